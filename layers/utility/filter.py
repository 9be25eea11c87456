"""Filter: the items of a batch that a selector chooses."""

from collections.abc import Sequence

from imae.layers.layer import Context, Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.schema import LayerParameter


class Filter(Layer):
    """y_i = the items of x_i whose value in the selector, the last bottom, is not 0.

    How many they are is known after forward alone; until then the tops have the shapes of their bottoms.
    """

    type = "Filter"
    bottoms = (2, None)
    tops = (1, None)
    tops_vary = True
    kept = Kept()

    def __init__(self, param: LayerParameter, context: Context | None = None) -> None:
        super().__init__(param, context)
        self.no_gradient_to = self.index_bottoms = frozenset({len(param.bottom) - 1})

    def setup(self, bottoms: Shapes) -> None:
        if len(self.param.top) != len(bottoms) - 1:
            raise self.error(
                f"needs a top for each of its {len(bottoms)} bottoms but the last, the selector, not "
                f"{len(self.param.top)}"
            )

    def reshape(self, bottoms: Shapes) -> Shapes:
        """All items at most; the geometry is the shapes of the filtered bottoms."""
        *shapes, selector = bottoms
        if not selector or any(size != 1 for size in selector[1:]):
            raise self.error(f"its selector is {describe(selector)}; expected one value for each item")
        for shape in shapes:
            if not shape or shape[0] != selector[0]:
                raise self.error(f"a bottom of {describe(shape)} has not the {selector[0]} items of its selector")
        self.geometry = shapes
        return shapes

    def moved_from(self, top: int) -> Sequence[int]:
        """x_i."""
        return (top,)

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        *xs, selector = bottoms
        saved["index"] = index = selector.flatten().nonzero().flatten()
        return [x.index_select(0, index) for x in xs]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx_i = dy_i for the chosen items, 0 for the others."""
        diffs: Diffs = [
            dy.new_zeros(shape).index_copy_(0, saved["index"], dy)
            for dy, shape in zip(top_diffs, self.geometry, strict=True)
        ]
        return [*diffs, None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        *xs, selector = bottoms
        chosen = graph.reshape(graph.cast(selector, "BOOL"), [-1])
        for x, top in zip(xs, tops, strict=True):
            graph.node("Compress", [x, chosen], [top], axis=0)
