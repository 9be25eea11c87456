"""Bias: add a learned blob or a second bottom along some axes."""

from imae.layers.activation.spread import Spread, span, spread
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors


class Bias(Layer):
    """y = x + b, where b spans the axes `axis` to `axis` + `num_axes` of x and repeats over the others.

    b is the blob, of zeros unless a filler is given, or the second bottom.
    """

    type = "Bias"
    bottoms = (1, 2)
    capturable = True
    geometry: Spread

    def setup(self, bottoms: Shapes) -> None:
        if len(bottoms) == 1:
            param = self.param.bias_param
            self.add_blob(span(self, param, bottoms[0]), param.filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        bias = bottoms[1] if len(bottoms) == 2 else self.blobs[0].shape
        self.geometry = spread(self, self.param.bias_param, "bias", bias, bottoms[0])
        return bottoms[:1]

    def keeps(self) -> Kept:
        """The shape of b, where that is a bottom."""
        return Kept(bottoms=(1,) if len(self.param.bottom) == 2 else ())

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x, b = bottoms[0], bottoms[1] if len(bottoms) == 2 else self.blobs[0].data
        return [x + self.geometry.out(b, x)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy; db = sum of dy over the axes that b repeats over."""
        dy = top_diffs[0]
        dx = dy if needs[0] else None
        if len(needs) == 2:
            return [dx, self.geometry.sum(dy, bottoms[1]) if needs[1] else None]
        blob = self.blobs[0]
        if blob.wants_diff:
            blob.diff += self.geometry.sum(dy, blob.data)
        return [dx]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        if len(bottoms) == 2:
            bias = self.geometry.to_onnx(graph, bottoms[1])
        else:
            bias = graph.constant(f"{self.name}_0", self.blobs[0].data.view(self.geometry.shape))
        graph.node("Add", [bottoms[0], bias], tops)
