"""Flatten: a range of axes made one."""

import math

from imae.layers.layer import OnnxGraph, Shapes
from imae.layers.utility.reshape import View


class Flatten(View):
    """y = x with its axes from `axis` to `end_axis` as one."""

    type = "Flatten"

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The axes outside stay; where `end_axis` is the one before `axis`, none is replaced by an axis of 1."""
        param, shape = self.param.flatten_param, bottoms[0]
        first, last = self.axis(param.axis, shape), self.axis(param.end_axis, shape)
        if first > last + 1:
            raise self.error(f"axis {param.axis} comes after end_axis {param.end_axis}")
        top = (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
        self.geometry = shape, top, first
        return [top]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Reshape, for any batch size, unless the shape is the same."""
        shape, top, flat = self.geometry
        if shape == top:
            graph.node("Identity", bottoms, tops)
        else:
            graph.reshape(bottoms[0], [*[0] * flat, -1, *top[flat + 1 :]], tops[0])
