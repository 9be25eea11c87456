"""ReLU, leaky by option."""

import torch
from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes, register
from imae.layers.onnx_graph import OnnxGraph

aten = torch.ops.aten


@register
class ReLU(Layer):
    """y = max(x, 0) + negative_slope min(x, 0)."""

    type = "ReLU"
    capturable = True
    by_image = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's."""
        self.slope = self.param.relu_param.negative_slope
        return bottoms

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = max(x, 0) + slope min(x, 0)."""
        x = bottoms[0]
        if self.slope:
            saved["positive"] = x > 0
            return [x.where(saved["positive"], self.slope * x)]
        saved["y"] = y = x.clamp_min(0)
        return [y]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dx = dy where x > 0, slope dy elsewhere."""
        dy = top_diffs[0]
        if self.slope:
            return [dy.where(saved["positive"], self.slope * dy)]
        return [aten.threshold_backward(dy, saved["y"], 0)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Relu or LeakyRelu."""
        if self.slope:
            graph.node("LeakyRelu", bottoms, tops, alpha=self.slope)
        else:
            graph.node("Relu", bottoms, tops)
