"""Crop: a part of the bottom, of another's size."""

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Crop(Layer):
    """y[i] = x[i + offset], along the axes from `axis` on, as large there as bottom 1, of which only the shape counts.

    `offset` is given once, or once for each of these axes; without, it is 0. y is a view of x.
    """

    type = "Crop"
    bottoms = (2, 2)
    no_gradient_to = held_fixed = frozenset({1})
    capturable = True
    kept = Kept()
    moves = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Check the offsets; the geometry is the bottom's shape, and the slice of each axis."""
        (shape, like), param = bottoms, self.param.crop_param
        axis = self.axis(param.axis, shape)
        cropped = len(shape) - axis
        offsets = list(param.offset) or [0]
        if len(offsets) not in (1, cropped):
            raise self.error(f"offset must be given once or once for each of {cropped} axes, not {len(offsets)} times")
        if len(like) < len(shape):
            raise self.error(f"needs the size of {len(shape)} axes, bottom 1 is {describe(like)}")
        offsets = [0] * axis + (offsets * cropped if len(offsets) == 1 else offsets)
        top = (*shape[:axis], *like[axis : len(shape)])
        for i, (size, offset, wanted) in enumerate(zip(shape, offsets, top, strict=True)):
            if offset + wanted > size:
                raise self.error(f"has no {wanted} elements from {offset} on along axis {i} of {describe(shape)}")
        slices = tuple(slice(offset, offset + wanted) for offset, wanted in zip(offsets, top, strict=True))
        self.geometry = shape, slices
        return [top]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [bottoms[0][self.geometry[1]]]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy there, 0 elsewhere."""
        shape, slices = self.geometry
        dx = top_diffs[0].new_zeros(shape)
        dx[slices] = top_diffs[0]
        return [dx, None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Slice; where the size is open, that of bottom 1 gives the ends."""
        first, last = self.axis(self.param.crop_param.axis, self.geometry[0]), len(self.geometry[0])
        slices = self.geometry[1][first:]
        starts = graph.constant(f"{self.name}_starts", [s.start for s in slices])
        if any(axis >= first for axis in graph.open_axes(bottoms[1])):
            ends = graph.add("Add", [graph.sizes(bottoms[1], first, last), starts])
        else:
            ends = graph.constant(f"{self.name}_ends", [s.stop for s in slices])
        axes = graph.constant(f"{self.name}_axes", list(range(first, last)))
        graph.node("Slice", [bottoms[0], starts, ends, axes], tops)
