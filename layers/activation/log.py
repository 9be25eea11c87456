"""Log: a logarithm, to any base."""

import torch

from imae.layers.activation.exp import log_of_base
from imae.layers.activation.neuron import Neuron, linear
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors


class Log(Neuron):
    """y = log(`shift` + `scale` x) / log(`base`); base e if it is -1."""

    type = "Log"

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.log_param
        log_base = log_of_base(self, param.base)
        if log_base == 0:
            raise self.error("there is no logarithm to base 1")
        self.outer, self.scale, self.shift = 1 / log_base, param.scale, param.shift

    def keeps(self) -> Kept:
        """x, unless its linear function is saved."""
        return Kept(bottoms=(0,) if self.scale == 1 and self.shift == 0 else ())

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = outer log(shift + scale x), where outer is 1 / log(base)."""
        x = bottoms[0]
        argument = linear(x, self.scale, self.shift)
        if argument is not x:
            saved["argument"] = argument
        y = argument.log()
        return [y if self.outer == 1 else y.mul_(self.outer)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = outer scale dy / (shift + scale x)."""
        argument = saved["argument"] if "argument" in saved else bottoms[0]
        dx, factor = top_diffs[0] / argument, self.outer * self.scale
        return [dx if factor == 1 else dx.mul_(factor)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        scale, shift, outer = (
            graph.constant(f"{self.name}_{what}", torch.tensor(getattr(self, what)))
            for what in ("scale", "shift", "outer")
        )
        argument = graph.add("Add", [graph.add("Mul", [bottoms[0], scale]), shift])
        graph.node("Mul", [graph.add("Log", [argument]), outer], tops)
