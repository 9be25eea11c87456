"""BatchReindex: items of a batch, chosen by their indices."""

from imae.layers.indices import IndexCheck, add_rows
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class BatchReindex(Layer):
    """y_n = x_m, m = index_n: items of the first bottom, in any order, any number of times; the second has the indices.

    What stands behind an index's point is cut off.
    """

    type = "BatchReindex"
    bottoms = (2, 2)
    no_gradient_to = frozenset({1})
    index_bottoms = frozenset({1})
    capturable = True
    kept = Kept()
    moves = True

    def setup(self, bottoms: Shapes) -> None:
        self.check = IndexCheck(self, "index", "items")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """As many items as indices; the geometry is the first bottom's shape."""
        shape, index = bottoms
        if not shape or len(index) != 1:
            raise self.error(
                f"needs items along a first axis and indices along one, found bottoms of {describe(shape)} and "
                f"{describe(index)}"
            )
        if index[0] and not shape[0]:
            raise self.error(f"has {index[0]} indices, but no items: a bottom of {describe(shape)}")
        self.geometry = shape
        return [(index[0], *shape[1:])]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x, index = bottoms
        # Caffe refuses -0.5 before it cuts it to 0.
        saved["index"] = self.check.checked(index.floor().long(), len(x))
        return [x.index_select(0, saved["index"])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx_m = the sum of dy_n over all n with index_n = m."""
        dx = top_diffs[0].new_zeros(self.geometry)
        add_rows(dx, saved["index"], top_diffs[0])
        return [dx, None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        graph.node("Gather", [bottoms[0], graph.cast(bottoms[1], "INT64")], tops, axis=0)
