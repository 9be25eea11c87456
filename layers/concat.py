"""Concat: blobs side by side along one axis."""

import torch
from torch import Tensor

from imae.layers.layer import Layer, Saved, Shapes, describe, register
from imae.layers.onnx_graph import OnnxGraph


@register
class Concat(Layer):
    """y = the bottoms, one after the other along `axis` (or `concat_dim`, its older name; 1 by default)."""

    type = "Concat"
    bottoms = (1, None)
    capturable = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """All bottoms have one shape but for the axis, along which the top is as long as they are together."""
        param = self.param.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise self.error("concat_param has both axis and concat_dim, it takes one of them")
        self.along = self.axis(param.concat_dim if param.HasField("concat_dim") else param.axis, bottoms[0])
        self.by_image = self.along != 0
        first, last = bottoms[0][: self.along], bottoms[0][self.along + 1 :]
        if any(bottom != (*first, *bottom[self.along : self.along + 1], *last) for bottom in bottoms):
            raise self.error(f"its bottoms differ in more than axis {self.along}: {', '.join(map(describe, bottoms))}")
        self.sizes = [bottom[self.along] for bottom in bottoms]
        return [(*first, sum(self.sizes), *last)]

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = [x_0, x_1, ...]."""
        return [torch.cat(bottoms, self.along)]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dx_i = the part of dy where x_i is."""
        return list(torch.split(top_diffs[0], self.sizes, self.along))

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Concat."""
        graph.node("Concat", bottoms, tops, axis=self.along)
