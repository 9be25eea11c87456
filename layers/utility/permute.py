"""Permute, of SSD's Caffe: the axes in another order."""

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Permute(Layer):
    """Axis k of the top is axis `order[k]` of the bottom; axes that `order` does not name follow as they stand."""

    type = "Permute"
    capturable = True
    kept = Kept()
    moves = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the whole order."""
        (shape,), order = bottoms, list(self.param.permute_param.order)
        if len(set(order)) < len(order) or any(axis >= len(shape) for axis in order):
            raise self.error(f"order {order} does not name different axes of a bottom of {describe(shape)}")
        self.geometry = order + [axis for axis in range(len(shape)) if axis not in order]
        return [tuple(shape[axis] for axis in self.geometry)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = x with its axes in that order."""
        return [bottoms[0].permute(self.geometry).contiguous()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy with its axes back in their places."""
        return [top_diffs[0].permute([self.geometry.index(axis) for axis in range(len(self.geometry))])]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Transpose."""
        graph.node("Transpose", bottoms, tops, perm=self.geometry)
