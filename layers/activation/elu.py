"""ELU: the exponential linear unit."""

import torch

from imae.layers.activation.neuron import Neuron
from imae.layers.layer import Diffs, Kept, OnnxGraph, Saved, Shapes, Tensors

aten = torch.ops.aten


class ELU(Neuron):
    """y = x where x > 0, `alpha` (exp(x) - 1) elsewhere (Clevert et al. 2016)."""

    type = "ELU"

    def setup(self, bottoms: Shapes) -> None:
        self.alpha = self.param.elu_param.alpha

    def keeps(self) -> Kept:
        """The sign of x is that of y, unless alpha is negative."""
        return Kept(bottoms=(0,)) if self.alpha < 0 else Kept(tops=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [aten.elu(bottoms[0], self.alpha)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy where x > 0, (y + alpha) dy = alpha exp(x) dy elsewhere."""
        by_top = self.alpha >= 0
        return [aten.elu_backward(top_diffs[0], self.alpha, 1, 1, by_top, tops[0] if by_top else bottoms[0])]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        graph.node("Elu", bottoms, tops, alpha=self.alpha)
