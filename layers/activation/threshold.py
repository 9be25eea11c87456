"""Threshold: whether a value is above a number."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Kept, OnnxGraph, Saved, Tensors


class Threshold(Neuron):
    """y = 1 where x > `threshold`, 0 elsewhere; it has no derivative."""

    type = "Threshold"
    no_gradient_to = frozenset({0})
    kept = Kept()

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = bottoms[0]
        return [torch.gt(x, self.param.threshold_param.threshold, out=torch.empty_like(x))]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        threshold = graph.constant(f"{self.name}_threshold", torch.tensor(self.param.threshold_param.threshold))
        graph.node("Cast", [graph.add("Greater", [bottoms[0], threshold])], tops, to=1)  # FLOAT
