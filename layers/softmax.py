"""Softmax along an axis."""

import torch
from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes, register
from imae.layers.onnx_graph import OnnxGraph

aten = torch.ops.aten


@register
class Softmax(Layer):
    """p_j = exp(z_j) / sum of exp(z_m) over m along `softmax_param.axis` (equation 1 of the paper)."""

    type = "Softmax"
    capturable = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's."""
        self.along, self.shape = self.axis(self.param.softmax_param.axis, bottoms[0]), bottoms[0]
        return bottoms

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """p = exp(z) / sum of exp(z)."""
        saved["p"] = p = torch.softmax(bottoms[0], self.along)
        return [p]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dz = p (dp - sum of p dp) (equation 8)."""
        dp, p = top_diffs[0], saved["p"]
        return [aten._softmax_backward_data(dp, p, self.along, p.dtype)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Softmax."""
        graph.node("Softmax", bottoms, tops, axis=self.along)
