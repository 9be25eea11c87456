"""Embed: a learned vector for each index."""

from imae.layers.indices import IndexCheck, add_rows
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Embed(Layer):
    """y = W_x + b for each index x of the bottom: W: input_dim x num_output, y: the bottom's shape x num_output.

    What stands behind an index's point is cut off.
    """

    type = "Embed"
    no_gradient_to = frozenset({0})
    index_bottoms = frozenset({0})
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.embed_param
        for field in ("num_output", "input_dim"):
            if not getattr(param, field):
                raise self.error(f"{field} is missing or 0")
        self.add_blob((param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)
        self.check = IndexCheck(self, "index", "rows of its weight (input_dim)")

    def reshape(self, bottoms: Shapes) -> Shapes:
        return [(*bottoms[0], self.param.embed_param.num_output)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        weight = self.blob_values(0)
        saved["index"] = index = self.check.checked(bottoms[0].long(), len(weight))
        y = weight.index_select(0, index.flatten()).view(*index.shape, weight.shape[1])
        return [y.add_(self.blob_values(1)) if len(self.blobs) > 1 else y]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dW_m = the sum of dy where x = m, db = the sum of dy."""
        weight, *bias = self.blobs
        dy = top_diffs[0].reshape(-1, weight.shape[1]).to(weight.diff.dtype)
        if weight.wants_diff:
            add_rows(weight.diff, saved["index"].flatten(), dy)
        if bias and bias[0].wants_diff:
            bias[0].diff += dy.sum(0)
        return [None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        weight = graph.constant(f"{self.name}_0", self.blobs[0].data)
        index = graph.cast(bottoms[0], "INT64")
        if len(self.blobs) > 1:
            bias = graph.constant(f"{self.name}_1", self.blobs[1].data)
            graph.node("Add", [graph.add("Gather", [weight, index]), bias], tops)
        else:
            graph.node("Gather", [weight, index], tops)
