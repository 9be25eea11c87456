"""Steps: the layers of a net at their places, which is all that an execution plan is a list of."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from imae.layers.layer import Kept, Layer, Saved, Shape, Shapes


@dataclass
class Step:
    """A layer at its place in the net: which values it reads and makes, and what its backward owes.

    Values are numbered. An in-place layer makes a new value under the old name, and a value with several readers gets
    the sum of their gradients, which is all that Caffe's Split layers do.
    """

    layer: Layer
    bottoms: list[int]
    tops: list[int]
    loss_weights: list[float]
    needs: list[bool]
    """Which bottoms get a gradient."""
    backward: bool
    """Whether it runs in a backward pass."""
    shapes: Shapes = field(default_factory=list)
    """Of the bottoms that the layer's geometry is for."""
    kept: Kept = field(default_factory=Kept)
    """What its backward reads, if it runs."""
    last_read: list[int] = field(default_factory=list)
    """Values that nothing reads after its forward, but for a backward that keeps or recomputes them."""
    last_kept: list[int] = field(default_factory=list)
    """Values that nothing reads after its backward."""
    saved: Saved = field(default_factory=dict)
    made: list[tuple[Shape, torch.dtype]] = field(default_factory=list)
    """The tops of the last forward, as far as their gradient's form follows from them."""

    def reads(self) -> list[int]:
        """Return the values that its backward reads."""
        if not self.backward:
            return []
        return [self.bottoms[i] for i in self.kept.bottoms] + [self.tops[i] for i in self.kept.tops]


def plan_liveness(steps: Sequence[Step], outputs: Collection[int]) -> None:
    """Note in each step which values end with its forward and which with its backward.

    A value ends in forward with its last reader, unless it is one of `outputs` or a backward reads it; it is kept then
    until the first step, in forward's order, whose backward reads it. One that is recomputed is kept in backward only.
    """
    last_reader: dict[int, Step] = {}
    first_keeper: dict[int, Step] = {}
    recomputed: set[int] = set()
    for step in steps:
        step.kept = step.layer.keeps()
        step.last_read, step.last_kept = [], []
        last_reader.update(dict.fromkeys([*step.tops, *step.bottoms], step))
        for value in step.reads():
            first_keeper.setdefault(value, step)
        if step.backward and step.layer.recomputes:
            recomputed.update(step.tops)
    for value, step in last_reader.items():
        if value not in outputs and (value not in first_keeper or value in recomputed):
            step.last_read.append(value)
    for value, step in first_keeper.items():
        step.last_kept.append(value)


def values_made(steps: Iterable[Step]) -> set[int]:
    """Return the values that the steps make."""
    return {top for step in steps for top in step.tops}
