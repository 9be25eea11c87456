"""TanH: the hyperbolic tangent."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, Saved, Tensors


class TanH(Neuron):
    """y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))."""

    type = "TanH"
    onnx_operator = "Tanh"
    kept = Kept(tops=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [bottoms[0].tanh()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = (1 - y^2) dy."""
        return [torch.ops.aten.tanh_backward(top_diffs[0], tops[0])]
