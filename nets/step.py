"""Steps: the layers of a net at their places, which is all that an execution plan is a list of."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from imae.layers.layer import Diffs, Kept, Layer, Saved, Shape, Shapes, Tensors


@dataclass
class Step:
    """A layer at its place in the net: which values it reads and makes, and which gradients its backward gives.

    Values are given by their indices in the net. An in-place layer makes a new value under the old name, and a value
    with several readers gets the sum of their gradients, which is all that Caffe's Split layers do.
    """

    layer: Layer
    bottoms: list[int]
    tops: list[int]
    loss_weights: list[float]
    needs: list[bool]  # which bottoms get a gradient
    backward: bool  # whether it runs in a backward pass
    shapes: Shapes = field(default_factory=list)  # the bottoms' shapes that the layer was last reshaped for
    kept: Kept = field(default_factory=Kept)  # what its backward reads, if it runs
    last_read: list[int] = field(default_factory=list)  # freed after its forward: not read later, or recomputed
    last_kept: list[int] = field(default_factory=list)  # values that are freed after its backward
    saved: Saved = field(default_factory=dict)
    made: list[tuple[Shape, torch.dtype]] | None = None  # of the last forward's tops, and their gradients; None before

    def reads(self) -> list[int]:
        """Return the values that its backward reads."""
        if not self.backward:
            return []
        return [self.bottoms[i] for i in self.kept.bottoms] + [self.tops[i] for i in self.kept.tops]


class Observer:
    """What a net tells, in a pass, of what each layer makes; a subclass looks at what it is there for."""

    def forward(self, step: Step, tops: Tensors) -> None:
        """Look at the tops that the step's layer has made."""

    def backward(self, step: Step, top_diffs: Tensors, bottom_diffs: Diffs) -> None:
        """Look at the gradients that have come to the step's layer, and at what it gives; its blobs have theirs."""

    def end_of_backward(self) -> None:
        """Look at the gradients of all parameters."""


def plan_liveness(steps: Sequence[Step], outputs: Collection[int]) -> None:
    """Note in each step which values are freed after its forward and which after its backward.

    A value is freed in forward after its last reader, unless it is one of `outputs` or a backward reads it: then it is
    freed in backward, after the last reader there. A value that is recomputed is freed in forward and in backward.
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
