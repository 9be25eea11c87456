"""Softmax along an axis."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Softmax(Layer):
    """p_j = exp(z_j) / sum of exp(z_m) over m along `softmax_param.axis` (equation 1 of the paper)."""

    type = "Softmax"
    capturable = True
    kept = Kept(tops=(0,))

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's; the geometry is the axis."""
        self.geometry = self.axis(self.param.softmax_param.axis, bottoms[0])
        return bottoms

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [torch.softmax(bottoms[0], self.geometry)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dz = p (dp - sum of p dp) (equation 8)."""
        dp, p = top_diffs[0], tops[0]
        return [torch.ops.aten._softmax_backward_data(dp, p, self.geometry, p.dtype)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        graph.node("Softmax", bottoms, tops, axis=self.geometry)
