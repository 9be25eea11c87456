"""Sigmoid: the logistic function."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, Saved, Tensors


class Sigmoid(Neuron):
    """y = 1 / (1 + exp(-x))."""

    type = "Sigmoid"
    onnx_operator = "Sigmoid"
    kept = Kept(tops=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [bottoms[0].sigmoid()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = y (1 - y) dy."""
        return [torch.ops.aten.sigmoid_backward(top_diffs[0], tops[0])]
