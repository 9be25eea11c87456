"""Scale: multiply along some axes by a learned blob or a second bottom, and add a learned bias."""

from torch import Tensor

from imae.layers.layer import Layer, Saved, Shape, Shapes, describe, register
from imae.layers.onnx_graph import OnnxGraph
from imae.prototxt_like.schema import FillerParameter


@register
class Scale(Layer):
    """y = a x + b, where a (and b) spans the axes `axis` to `axis` + `num_axes` of x and repeats over the others.

    a is the first blob, of ones unless a filler is given, or the second bottom; b, with `bias_term`, the last blob.
    """

    type = "Scale"
    bottoms = (1, 2)
    capturable = True

    def setup(self, bottoms: Shapes) -> Shapes:
        """Create the scale, unless it is a bottom, and the bias."""
        param, shape = self.param.scale_param, bottoms[0]
        self.first = first = 0 if bottoms[1:] == [()] else self.axis(param.axis, shape)
        self.by_image = first > 0
        scale_shape = bottoms[1] if len(bottoms) == 2 else self._span(first, shape)
        if shape[first : first + len(scale_shape)] != scale_shape:
            raise self.error(
                f"a scale of {describe(scale_shape)} does not fit a bottom of {describe(shape)} from axis {first} on"
            )
        self.spread = (*scale_shape, *[1] * (len(shape) - first - len(scale_shape)))
        self.repeated = [i for i in range(len(shape)) if not first <= i < first + len(scale_shape)]
        if len(bottoms) == 1:
            given = param.HasField("filler")
            self.add_blob(scale_shape, param.filler if given else FillerParameter(type="constant", value=1))
        self.bias_term = param.bias_term
        if self.bias_term:
            self.add_blob(scale_shape, param.bias_filler)
        return [shape]

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = a x + b."""
        x, a = bottoms[0], bottoms[1] if len(bottoms) == 2 else self.blobs[0].data
        saved.update(x=x, a=a)
        y = x * self._spread(a, x)
        return [y.add_(self._spread(self.blobs[-1].data, x)) if self.bias_term else y]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dx = a dy; da = sum of x dy and db = sum of dy over the axes they repeat over."""
        dy, x, a = top_diffs[0], saved["x"], saved["a"]
        if self.bias_term and self.blobs[-1].lr_mult:
            self.blobs[-1].diff += self._sum(dy, self.blobs[-1].data)
        learned = len(needs) == 1
        da = self._sum(dy * x, a) if (self.blobs[0].lr_mult if learned else needs[1]) else None
        if learned and da is not None:
            self.blobs[0].diff += da
        dx = dy * self._spread(a, dy) if needs[0] else None
        return [dx] if learned else [dx, da]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Mul, then Add."""
        if len(bottoms) == 2:
            scale = graph.reshape(bottoms[1], [*[0] * len(self.spread[:1]), *self.spread[1:]])
        else:
            scale = graph.constant(f"{self.name}_0", self.blobs[0].data.view(self.spread))
        if not self.bias_term:
            graph.node("Mul", [bottoms[0], scale], tops)
            return
        bias = graph.constant(f"{self.name}_bias", self.blobs[-1].data.view(self.spread))
        graph.node("Add", [graph.add("Mul", [bottoms[0], scale]), bias], tops)

    def _span(self, first: int, shape: Shape) -> Shape:
        """The shape of a learned scale."""
        num_axes = self.param.scale_param.num_axes
        if num_axes < -1 or first + num_axes > len(shape):
            raise self.error(f"num_axes {num_axes} from axis {first} reaches past a bottom of {describe(shape)}")
        return shape[first:] if num_axes == -1 else shape[first : first + num_axes]

    def _spread(self, value: Tensor, x: Tensor) -> Tensor:
        """`value` in the shape that broadcasts against `x`; a scale given as a bottom may span the batch."""
        return value.to(x.dtype).reshape(*value.shape, *self.spread[value.dim() :])

    def _sum(self, product: Tensor, like: Tensor) -> Tensor:
        """The sum of `product` over the axes that the scale repeats over, in the scale's shape."""
        return (product.sum(self.repeated) if self.repeated else product).view(like.shape)
