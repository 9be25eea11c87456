"""Slice: a blob cut along one axis."""

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Slice(Layer):
    """y_i = the part of x from `slice_point` i - 1 to i along `axis` (or `slice_dim`, its older name; 1 by default).

    Without points the tops are of one size. They are views of x.
    """

    type = "Slice"
    tops = (1, None)
    capturable = True
    kept = Kept()
    moves = True

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.slice_param
        if param.HasField("axis") and param.HasField("slice_dim"):
            raise self.error("slice_param has both axis and slice_dim, it takes one of them")
        points, tops = list(param.slice_point), len(self.param.top)
        if points and len(points) != tops - 1:
            raise self.error(f"needs {tops - 1} slice_point for its {tops} tops, or none, not {len(points)}")
        if any(point <= before for before, point in zip([0, *points], points, strict=False)):
            raise self.error(f"each slice_point must be larger than the one before, the first than 0: {points}")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The tops' sizes along the axis add up to the bottom's; the geometry is the axis and these sizes."""
        param, shape, tops = self.param.slice_param, bottoms[0], len(self.param.top)
        axis = self.axis(param.slice_dim if param.HasField("slice_dim") else param.axis, shape)
        size, points = shape[axis], list(param.slice_point)
        if points and points[-1] >= size:
            raise self.error(f"cannot cut axis {axis} of a bottom of shape {describe(shape)} at {points}")
        if not points and size % tops:
            raise self.error(f"cannot cut axis {axis} of a bottom of shape {describe(shape)} into {tops} equal parts")
        ends = [*points, size]
        sizes = (
            [end - begin for begin, end in zip([0, *points], ends, strict=True)] if points else [size // tops] * tops
        )
        self.geometry = axis, sizes
        return [(*shape[:axis], part, *shape[axis + 1 :]) for part in sizes]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        axis, sizes = self.geometry
        return list(torch.split(bottoms[0], sizes, axis))

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = [dy_0, dy_1, ...]."""
        return [torch.cat(top_diffs, self.geometry[0]) if len(top_diffs) > 1 else top_diffs[0]]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Split; along an axis of open size into equal parts, or, at points, by a Slice for each."""
        axis, sizes = self.geometry
        is_open, points = axis in graph.open_axes(bottoms[0]), list(self.param.slice_param.slice_point)
        if len(tops) == 1:
            graph.node("Identity", bottoms, tops)
        elif is_open and points:
            bounds = [
                graph.constant(f"{self.name}/point", [point]) for point in (0, *points, torch.iinfo(torch.int64).max)
            ]
            along = graph.constant(f"{self.name}/axis", [axis])
            for begin, end, top in zip(bounds, bounds[1:], tops, strict=False):
                graph.node("Slice", [bottoms[0], begin, end, along], [top])
        elif is_open:
            graph.node("Split", bottoms, tops, axis=axis, **({"num_outputs": len(tops)} if graph.opset >= 18 else {}))
        else:
            graph.node("Split", [*bottoms, graph.constant(f"{self.name}/split", sizes)], tops, axis=axis)
