"""Exp: an exponential function, to any base."""

import math

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


def log_of_base(layer: Layer, base: float) -> float:
    """Return the natural logarithm of a layer's `base`, where -1 stands for e; raises InputError for no base."""
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.error(f"base must be positive, or -1 for e, not {base:g}")
    return math.log(base)


class Exp(Neuron):
    """y = `base` ^ (`shift` + `scale` x); base e if it is -1."""

    type = "Exp"
    kept = Kept(tops=(0,))

    def setup(self, bottoms: Shapes) -> None:
        """Write y as outer exp(inner x)."""
        param = self.param.exp_param
        log_base = log_of_base(self, param.base)
        self.inner = log_base * param.scale
        self.outer = float(torch.tensor(log_base * param.shift, dtype=torch.float64).exp())
        if not max(abs(self.inner), self.outer) <= torch.finfo(torch.float32).max:
            raise self.error(
                f"base {param.base:g}, scale {param.scale:g} and shift {param.shift:g} are beyond what a float holds"
            )

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = outer exp(inner x)."""
        x = bottoms[0]
        y = x.exp() if self.inner == 1 else (x * self.inner).exp_()
        return [y if self.outer == 1 else y.mul_(self.outer)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = inner y dy."""
        dx = top_diffs[0] * tops[0]
        return [dx if self.inner == 1 else dx.mul_(self.inner)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        inner, outer = (
            graph.constant(f"{self.name}_{what}", torch.tensor(factor))
            for what, factor in (("inner", self.inner), ("outer", self.outer))
        )
        graph.node("Mul", [graph.add("Exp", [graph.add("Mul", [bottoms[0], inner])]), outer], tops)
