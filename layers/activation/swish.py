"""Swish: x times a sigmoid of itself; SiLU for beta 1."""

import torch
import torch.nn.functional as F
from torch import Tensor

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors


class Swish(Neuron):
    """y = x sigmoid(`beta` x) (Ramachandran et al. 2017)."""

    type = "Swish"
    kept = Kept(bottoms=(0,))

    def setup(self, bottoms: Shapes) -> None:
        self.beta = self.param.swish_param.beta

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = x s, where s = sigmoid(beta x)."""
        x = bottoms[0]
        return [F.silu(x) if self.beta == 1 else x * self._scaled(x).sigmoid()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = s (1 + beta x (1 - s)) dy."""
        return [torch.ops.aten.silu_backward(top_diffs[0], self._scaled(bottoms[0]))]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        scaled = graph.add("Mul", [bottoms[0], graph.constant(f"{self.name}_beta", torch.tensor(self.beta))])
        graph.node("Mul", [bottoms[0], graph.add("Sigmoid", [scaled])], tops)

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.beta == 1 else x * self.beta
