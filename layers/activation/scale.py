"""Scale: multiply along some axes by a learned blob or a second bottom, and add a learned bias."""

from imae.layers.activation.spread import Spread, span, spread
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.schema import FillerParameter


class Scale(Layer):
    """y = a x + b, where a (and b) spans the axes `axis` to `axis` + `num_axes` of x and repeats over the others.

    a is the first blob, of ones unless a filler is given, or the second bottom; b, with `bias_term`, the last blob.
    """

    type = "Scale"
    bottoms = (1, 2)
    capturable = True
    geometry: Spread

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.scale_param
        shape = bottoms[1] if len(bottoms) == 2 else span(self, param, bottoms[0])
        if len(bottoms) == 1:
            given = param.HasField("filler")
            self.add_blob(shape, param.filler if given else FillerParameter(type="constant", value=1))
        self.bias_term = param.bias_term
        if self.bias_term:
            self.add_blob(shape, param.bias_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        scale = bottoms[1] if len(bottoms) == 2 else self.blobs[0].shape
        if self.bias_term and self.blobs[-1].shape != scale:
            raise self.error(f"its bias is {describe(self.blobs[-1].shape)}, the scale {describe(scale)}")
        self.geometry = spread(self, self.param.scale_param, "scale", scale, bottoms[0])
        return bottoms[:1]

    def keeps(self) -> Kept:
        """x, for the scale's gradient, and the scale, for that of x."""
        learned = len(self.param.bottom) == 1
        return Kept(bottoms=((0,) if self.blobs[0].wants_diff else ()) if learned else (0, 1))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x, a = bottoms[0], bottoms[1] if len(bottoms) == 2 else self.blobs[0].data
        y = x * self.geometry.out(a, x)
        return [y.add_(self.geometry.out(self.blobs[-1].data, x)) if self.bias_term else y]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = a dy; da = sum of x dy and db = sum of dy over the axes they repeat over."""
        dy, x, a = top_diffs[0], bottoms[0], bottoms[1] if len(bottoms) == 2 else self.blobs[0].data
        if self.bias_term and self.blobs[-1].wants_diff:
            self.blobs[-1].diff += self.geometry.sum(dy, self.blobs[-1].data)
        learned = len(needs) == 1
        da = self.geometry.sum(dy * x, a) if (self.blobs[0].wants_diff if learned else needs[1]) else None
        if learned and da is not None:
            self.blobs[0].diff += da
        dx = dy * self.geometry.out(a, dy) if needs[0] else None
        return [dx] if learned else [dx, da]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        if len(bottoms) == 2:
            scale = self.geometry.to_onnx(graph, bottoms[1])
        else:
            scale = graph.constant(f"{self.name}_0", self.blobs[0].data.view(self.geometry.shape))
        if not self.bias_term:
            graph.node("Mul", [bottoms[0], scale], tops)
            return
        bias = graph.constant(f"{self.name}_bias", self.blobs[-1].data.view(self.geometry.shape))
        graph.node("Add", [graph.add("Mul", [bottoms[0], scale]), bias], tops)
