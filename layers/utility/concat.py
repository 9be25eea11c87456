"""Concat: blobs side by side along one axis."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Concat(Layer):
    """y = the bottoms, one after the other along `axis` (or `concat_dim`, its older name; 1 by default)."""

    type = "Concat"
    bottoms = (1, None)
    capturable = True
    kept = Kept()
    moves = True

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise self.error("concat_param has both axis and concat_dim, it takes one of them")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """All bottoms have one shape but for the axis, along which the top is as long as they are together.

        The geometry is the axis and the bottoms' sizes along it.
        """
        param = self.param.concat_param
        axis = self.axis(param.concat_dim if param.HasField("concat_dim") else param.axis, bottoms[0])
        first, last = bottoms[0][:axis], bottoms[0][axis + 1 :]
        axes = len(bottoms[0])
        if any(len(bottom) != axes or (bottom[:axis], bottom[axis + 1 :]) != (first, last) for bottom in bottoms):
            raise self.error(f"its bottoms differ in more than axis {axis}: {', '.join(map(describe, bottoms))}")
        sizes = [bottom[axis] for bottom in bottoms]
        self.geometry = axis, sizes
        return [(*first, sum(sizes), *last)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        axis, _ = self.geometry
        return [torch.cat(bottoms, axis)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx_i = the part of dy where x_i is."""
        axis, sizes = self.geometry
        return list(torch.split(top_diffs[0], sizes, axis))

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        graph.node("Concat", bottoms, tops, axis=self.geometry[0])
