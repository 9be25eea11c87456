"""What `debug_info: true` prints of a pass: how large, in the mean, each blob, parameter and gradient is."""

from collections.abc import Callable

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Layer, Tensors
from imae.nets.net import Net
from imae.nets.step import Observer, Step

_FORWARD, _BACKWARD, _UPDATE, _ALL = "net.cpp:593", "net.cpp:621", "net.cpp:649", "net.cpp:721"


class DebugInfo(Observer):
    """Writes Caffe's lines, those of Split layers included, by `line(message, source)`; for a net of the plain plan.

    Where several layers read a blob, or one does and it is a loss, Caffe's net has a Split layer, by whose names of
    tops the readers know the blob. Here readers share a value, and the lines are written as if there were one.
    """

    def __init__(self, net: Net, line: Callable[[str, str], None]) -> None:
        self._net, self._line = net, line
        readers: dict[int, list[tuple[int, int] | None]] = {}  # of each value: steps and the place of the bottom
        for step in net.steps:
            for top, weight in zip(step.tops, step.layer.param.loss_weight, strict=False):
                readers[top] = [None] if weight else []
        for number, step in enumerate(net.steps):
            for place, bottom in enumerate(step.bottoms):
                readers.setdefault(bottom, []).append((number, place))
        self._bottoms = {id(step): [net.names[bottom] for bottom in step.bottoms] for step in net.steps}
        self._splits: dict[int, tuple[str, list[str]]] = {}
        """By value: the name of its Split layer, and of that layer's tops."""
        for step in net.steps:
            for place, top in enumerate(step.tops):
                if len(reading := readers.get(top, ())) < 2:
                    continue
                split = f"{net.names[top]}_{step.layer.name}_{place}_split"
                tops = [f"{split}_{k}" for k in range(len(reading))]
                self._splits[top] = split, tops
                for reader, name in zip(reading, tops, strict=True):
                    if reader:
                        self._bottoms[id(net.steps[reader[0]])][reader[1]] = name

    def forward(self, step: Step, tops: Tensors) -> None:
        """One line for each top and each parameter of the layer."""
        where = f"    [Forward] Layer {step.layer.name}"
        for index, top in zip(step.tops, tops, strict=True):
            self._line(f"{where}, top blob {self._net.names[index]} data: {_mean(top):g}", _FORWARD)
        for i, blob in enumerate(step.layer.blobs):
            self._line(f"{where}, param blob {_display_name(step.layer, i)} data: {_mean(blob.data):g}", _FORWARD)
        for index, top in zip(step.tops, tops, strict=True):
            split, names = self._splits.get(index, ("", []))
            for name in names:
                self._line(f"    [Forward] Layer {split}, top blob {name} data: {_mean(top):g}", _FORWARD)

    def backward(self, step: Step, top_diffs: Tensors, bottom_diffs: Diffs) -> None:
        """One line for the gradient by each bottom and each parameter of the layer that gets one."""
        for index, diff in reversed([*zip(step.tops, top_diffs, strict=True)]):
            if index in self._splits:
                where, name = f"    [Backward] Layer {self._splits[index][0]}", self._net.names[index]
                self._line(f"{where}, bottom blob {name} diff: {_mean(diff):g}", _BACKWARD)
        where, names = f"    [Backward] Layer {step.layer.name}", self._bottoms[id(step)]
        for name, bottom_diff, need in zip(names, bottom_diffs, step.needs, strict=False):
            if need:
                self._line(f"{where}, bottom blob {name} diff: {_mean(bottom_diff):g}", _BACKWARD)
        specs = step.layer.param.param
        for i, blob in enumerate(step.layer.blobs):
            if i >= len(specs) or specs[i].lr_mult or blob.forced:
                self._line(f"{where}, param blob {i} diff: {_mean(blob.diff):g}", _BACKWARD)

    def end_of_backward(self) -> None:
        """One line for all parameters together."""
        flat = self._net.storage.data, self._net.storage.diff
        (l1, l1_diff), (l2, l2_diff) = ([float(x.norm(p, dtype=torch.float64)) for x in flat] for p in (1, 2))
        self._line(
            f"    [Backward] All net params (data, diff): L1 norm = ({l1:g}, {l1_diff:g}); "
            f"L2 norm = ({l2:g}, {l2_diff:g})",
            _ALL,
        )

    def update(self, before: Tensor) -> None:
        """One line for each parameter that an update has changed from what `before`, flat, holds."""
        storage = self._net.storage
        taken = set[int]()
        for step in self._net.steps:
            for i, blob in enumerate(step.layer.blobs):
                if id(blob) in storage.spans and id(blob) not in taken:
                    taken.add(id(blob))
                    old = storage.view(before, blob)
                    self._line(
                        f"    [Update] Layer {step.layer.name}, param {_display_name(step.layer, i)} data: "
                        f"{_mean(old):g}; diff: {_mean(old.double() - blob.data.double()):g}",
                        _UPDATE,
                    )


def _display_name(layer: Layer, i: int) -> str:
    """What Caffe calls a layer's blob: by the name that it is shared under, else by its number."""
    specs = layer.param.param
    return str(specs[i].name) if i < len(specs) and specs[i].name else str(i)


def _mean(value: Tensor | None) -> float:
    """The mean of the absolute values; NaN of none, as 0 / 0 in Caffe."""
    return 0.0 if value is None else float(value.abs().mean(dtype=torch.float64))
