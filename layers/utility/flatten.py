"""Flatten: a range of axes made one."""

import math

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Flatten(Layer):
    """y = x with its axes from `axis` to `end_axis` as one: a view, where x lies in the order of its axes."""

    type = "Flatten"
    capturable = True
    kept = Kept()
    moves = True
    in_place = False

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The axes outside stay; where `end_axis` is the one before `axis`, none is replaced by an axis of 1.

        The geometry is the bottom's shape, the top's, and the place of the flat axis.
        """
        param, shape = self.param.flatten_param, bottoms[0]
        first, last = self.axis(param.axis, shape), self.axis(param.end_axis, shape)
        if first > last + 1:
            raise self.error(f"axis {param.axis} comes after end_axis {param.end_axis}")
        top = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
        self.geometry = shape, top, first
        return [top]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = x in the top's shape."""
        return [bottoms[0].reshape(self.geometry[1])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy in the bottom's shape."""
        return [top_diffs[0].reshape(self.geometry[0])]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Reshape, for any batch size, unless the shape is the same."""
        shape, top, flat = self.geometry
        if shape == top:
            graph.node("Identity", bottoms, tops)
        else:
            graph.reshape(bottoms[0], [*[0] * flat, -1, *top[flat + 1 :]], tops[0])
