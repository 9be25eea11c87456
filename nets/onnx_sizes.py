"""Which sizes of a net's inputs an exported model can leave open: those that the net itself lets vary."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations

from imae.layers.layer import Shape
from imae.layers.onnx_graph import Size
from imae.layers.recurrent.recurrent import Recurrent
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError

DIMENSIONS = {"batch": 0, "height": 2, "width": 3}
"""What can be left open, with the axis of images that it is."""
_STEPS = (1, 2, 3, 5, 8, 32, 64, 128)
"""How much larger a size is made to see what follows: some nets take multiples of their strides alone."""
_MOST_TIED = 6
"""Inputs among whose subsets is looked for those that vary together."""

Slot = tuple[str, int]
"""An input and one of its axes."""


@dataclass
class Open:
    """A size that is open: its name, the axes of inputs that have it, and how much larger it can be."""

    symbol: str
    slots: tuple[Slot, ...]
    steps: list[int]
    dimension: str


@dataclass
class Sizes:
    """The open sizes, and why others are not."""

    opened: list[Open] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    """The reason, by dimension."""
    axes: list[dict[int, str]] = field(default_factory=list)
    """For each value of the net its open axes, with the name of the size that they have; without where it is none."""

    def shape(self, name: str, shape: Shape) -> tuple[Size, ...]:
        """Return an input's shape with the names of its open sizes."""
        names = {slot: size.symbol for size in self.opened for slot in size.slots}
        return tuple(names.get((name, axis), size) for axis, size in enumerate(shape))

    def fix(self, dimension: str, reason: str) -> None:
        """Leave a dimension's sizes as they are."""
        self.opened = [size for size in self.opened if size.dimension != dimension]
        self.closed[dimension] = reason


def open_sizes(net: Net, dimensions: Sequence[str]) -> Sizes:
    """Return which of `dimensions` (of DIMENSIONS) the net lets vary, by making its inputs larger.

    Inputs of one size vary together, as many as the net takes so. The batch is axis 0; where there are recurrent
    layers, it is both sizes of their cont, T and N. Raises InputError for an unknown dimension.
    """
    sizes = Sizes()
    recurrent = any(isinstance(step.layer, Recurrent) for step in net.steps)
    for dimension in dimensions:
        if dimension not in DIMENSIONS:
            raise InputError(f'"{dimension}" is no size that can stay open: those are {", ".join(DIMENSIONS)}')
        if recurrent and dimension == "batch":
            sizes.opened += _of_sequences(net)
        elif isinstance(found := _of_images(net, dimension), Open):
            sizes.opened.append(found)
        else:
            sizes.closed[dimension] = found
    return sizes


def _of_images(net: Net, dimension: str) -> Open | str:
    """This size of the first input that has it, as images have it, and of others; or why it cannot be open."""
    axis = DIMENSIONS[dimension]
    axes = 4 if axis >= 2 else 1
    fitting = [name for name, index in net.input_values.items() if len(net.shapes[index]) >= axes]
    if not fitting:
        return f"no input has {axes} axes" if net.inputs else "it has no input"
    found = _tied(net, (fitting[0], axis), [(name, axis) for name in fitting[1:]])
    return found if isinstance(found, str) else Open("NCHW"[axis], *found, dimension)


def _of_sequences(net: Net) -> list[Open]:
    """T, the number of steps, along axis 0 of cont, and N, that of sequences, along axis 1; with what goes along."""
    readers = [step for step in net.steps if isinstance(step.layer, Recurrent)]
    conts = [name for name, index in net.input_values.items() if any(step.bottoms[1] == index for step in readers)]
    slots = [(name, axis) for name, i in net.input_values.items() for axis in range(min(2, len(net.shapes[i])))]
    opened = []
    for symbol, axis in (("T", 0), ("N", 1)):
        for name in conts[:1]:
            found = _tied(net, (name, axis), [slot for slot in slots if slot[0] != name])
            if not isinstance(found, str):
                opened.append(Open(symbol, *found, "batch"))
    return opened


def find_open_axes(net: Net, sizes: Sizes) -> None:
    """Set `sizes.axes` to what changes with the open sizes."""
    before = list(net.shapes)
    sizes.axes = [{} for _ in before]
    for size in sizes.opened:
        name, at = size.slots[0]
        base = before[net.input_values[name]][at]
        for step in size.steps:
            with larger(net, size.slots, step):
                for axes, old, new in zip(sizes.axes, before, net.shapes, strict=True):
                    for axis in range(len(old)):
                        if len(new) != len(old) or old[axis] != new[axis]:
                            same = len(new) == len(old) and (old[axis], new[axis]) == (base, base + step)
                            axes[axis] = size.symbol if same and axes.get(axis, size.symbol) == size.symbol else ""


def _tied(net: Net, first: Slot, others: Sequence[Slot]) -> tuple[tuple[Slot, ...], list[int]] | str:
    """The axes that can vary together, `first` and as many of `others` of its size as the net takes, and by how much;
    else why not.
    """
    shapes = {name: net.shapes[index] for name, index in net.input_values.items()}
    size = shapes[first[0]][first[1]]
    reason = ""
    for slots in _subsets(first, [(name, axis) for name, axis in others if shapes[name][axis] == size]):
        steps = []
        for step in _STEPS:
            try:
                with larger(net, slots, step):
                    steps.append(step)
            except InputError as error:
                reason = reason or str(error)
        if steps:
            return slots, steps
    return reason


def _subsets(first: Slot, others: Sequence[Slot]) -> Iterator[tuple[Slot, ...]]:
    """All subsets with `first`, larger ones first; of many, all and the first alone."""
    counts = range(len(others), -1, -1) if len(others) <= _MOST_TIED else (len(others), 0)
    for count in counts:
        for chosen in combinations(others, count):
            if len({name for name, _ in chosen}) == count:
                yield (first, *chosen)


@contextmanager
def larger(net: Net, slots: Sequence[Slot], step: int) -> Iterator[None]:
    """Have these axes of inputs be larger by `step` while the body runs; raises InputError if the net cannot."""
    before = {name: net.shapes[net.input_values[name]] for name, _ in slots}
    after = {name: list(shape) for name, shape in before.items()}
    for name, axis in slots:
        after[name][axis] += step
    net.reshape(**after)
    try:
        yield
    finally:
        net.reshape(**before)
