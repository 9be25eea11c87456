"""ReLU, leaky by option."""

import torch
import torch.nn.functional as F

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors

aten = torch.ops.aten


class ReLU(Neuron):
    """y = max(x, 0) + negative_slope min(x, 0)."""

    type = "ReLU"

    def setup(self, bottoms: Shapes) -> None:
        self.slope = self.param.relu_param.negative_slope

    def keeps(self) -> Kept:
        """The sign of x is that of y, unless the slope is negative."""
        return Kept(bottoms=(0,)) if self.slope < 0 else Kept(tops=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = bottoms[0]
        return [F.leaky_relu(x, self.slope) if self.slope else x.clamp_min(0)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy where x > 0, slope dy elsewhere."""
        dy = top_diffs[0]
        if self.slope:
            by_top = self.slope > 0
            return [aten.leaky_relu_backward(dy, tops[0] if by_top else bottoms[0], self.slope, by_top)]
        return [aten.threshold_backward(dy, tops[0], 0)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        if self.slope:
            graph.node("LeakyRelu", bottoms, tops, alpha=self.slope)
        else:
            graph.node("Relu", bottoms, tops)
