"""Reshape: the same numbers under other axes."""

import math

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe


class View(Layer):
    """y = x in another shape: a view, where x lies in the order of its axes."""

    geometry: tuple[Shape, Shape, int]
    """The bottom's shape, the top's, and the first axis that may be another."""
    capturable = True
    kept = Kept()
    moves = True
    in_place = False

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [bottoms[0].reshape(self.geometry[1])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy in the bottom's shape."""
        return [top_diffs[0].reshape(self.geometry[0])]


class Reshape(View):
    """y = x with `num_axes` of its axes from `axis` on (all, by default) replaced by those of `shape`.

    In `shape` 0 is the size of the bottom's axis at that place, and -1, at most once, what is left. A negative `axis`
    counts from behind the last axis: -1 appends.
    """

    type = "Reshape"

    def setup(self, bottoms: Shapes) -> None:
        self.dims = list(self.param.reshape_param.shape.dim)
        if min(self.dims, default=0) < -1:
            raise self.error(f"reshape_param gives a size of {min(self.dims)}; expected 1 or more, 0 to copy, -1 once")
        if self.dims.count(-1) > 1:
            raise self.error("reshape_param gives -1 more than once: only one size can follow from the others")

    def reshape(self, bottoms: Shapes) -> Shapes:
        shape = bottoms[0]
        first, end = self._replaced(shape)
        new = [self._copied(shape, first + i) if dim == 0 else dim for i, dim in enumerate(self.dims)]
        if -1 in new:
            others = -math.prod(new) * math.prod(shape[:first]) * math.prod(shape[end:])
            if not others or math.prod(shape) % others:
                raise self.error(
                    f"no size for -1 follows: the other sizes make {others} of the {math.prod(shape)} numbers of a "
                    f"bottom of shape {describe(shape)}"
                )
            new[new.index(-1)] = math.prod(shape) // others
        top = (*shape[:first], *new, *shape[end:])
        if math.prod(top) != math.prod(shape):
            raise self.error(
                f"cannot make a bottom of {describe(shape)} a top of {describe(top)}: "
                f"{math.prod(shape)} numbers are not {math.prod(top)}"
            )
        self.geometry = shape, top, first
        return [top]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Reshape, unless the shape is the same: axes that are kept at their places have 0, and -1 stands where it is
        given, or for the one other axis of open size.
        """
        shape, top, first = self.geometry
        if shape == top:
            graph.node("Identity", bottoms, tops)
            return
        given = {first + i: dim for i, dim in enumerate(self.dims)}
        new = [0 if axis < first else given.get(axis, size) for axis, size in enumerate(top)]
        unknown = [axis for axis in graph.open_axes(tops[0]) if new[axis] > 0]
        if -1 not in new and len(unknown) == 1:
            new[unknown[0]] = -1
        graph.reshape(bottoms[0], new, tops[0])

    def _replaced(self, shape: Shape) -> tuple[int, int]:
        """The first of the axes that are replaced, and the end of them."""
        param = self.param.reshape_param
        first = param.axis if param.axis >= 0 else len(shape) + 1 + param.axis
        if not 0 <= first <= len(shape):
            raise self.error(f"axis {param.axis} is out of range for a bottom of shape {describe(shape)}")
        end = len(shape) if param.num_axes == -1 else first + param.num_axes
        if not first <= end <= len(shape):
            raise self.error(
                f"num_axes {param.num_axes} from axis {first} on is out of range for a bottom of shape "
                f"{describe(shape)}; -1 is all"
            )
        return first, end

    def _copied(self, shape: Shape, axis: int) -> int:
        if axis >= len(shape):
            raise self.error(f"a size of 0 copies axis {axis}, which a bottom of shape {describe(shape)} has not")
        return shape[axis]
