"""Scale: multiply along some axes by a learned blob or a second bottom, and add a learned bias."""

from dataclasses import dataclass

from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, Saved, Shape, Shapes, Tensors, describe
from imae.layers.onnx_graph import OnnxGraph
from imae.layers.registry import register
from imae.prototxt_like.schema import FillerParameter


@dataclass(frozen=True)
class ScaleGeometry:
    """How a scale is broadcast against a bottom."""

    first: int
    """The bottom's axis that the scale's first axis is aligned with."""
    spread: Shape
    """The scale's shape with axes of 1 behind it, to broadcast against the bottom."""
    repeated: tuple[int, ...]
    """The bottom's axes over which the scale repeats."""


@register
class Scale(Layer):
    """y = a x + b, where a (and b) spans the axes `axis` to `axis` + `num_axes` of x and repeats over the others.

    a is the first blob, of ones unless a filler is given, or the second bottom; b, with `bias_term`, the last blob.
    """

    type = "Scale"
    bottoms = (1, 2)
    capturable = True
    geometry: ScaleGeometry

    def setup(self, bottoms: Shapes) -> None:
        """Create the scale, unless it is a bottom, and the bias."""
        param = self.param.scale_param
        shape = bottoms[1] if len(bottoms) == 2 else self._span(self._first(bottoms), bottoms[0])
        if len(bottoms) == 1:
            given = param.HasField("filler")
            self.add_blob(shape, param.filler if given else FillerParameter(type="constant", value=1))
        self.bias_term = param.bias_term
        if self.bias_term:
            self.add_blob(shape, param.bias_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Check that the scale fits the bottom."""
        shape, first = bottoms[0], self._first(bottoms)
        scale_shape = bottoms[1] if len(bottoms) == 2 else self.blobs[0].shape
        if self.bias_term and self.blobs[-1].shape != scale_shape:
            raise self.error(f"its bias is {describe(self.blobs[-1].shape)}, the scale {describe(scale_shape)}")
        if shape[first : first + len(scale_shape)] != scale_shape:
            raise self.error(
                f"a scale of {describe(scale_shape)} does not fit a bottom of {describe(shape)} from axis {first} on"
            )
        self.geometry = ScaleGeometry(
            first=first,
            spread=(*scale_shape, *[1] * (len(shape) - first - len(scale_shape))),
            repeated=tuple(i for i in range(len(shape)) if not first <= i < first + len(scale_shape)),
        )
        return [shape]

    def keeps(self) -> Kept:
        """x, for the scale's gradient, and the scale, for that of x."""
        learned = len(self.param.bottom) == 1
        return Kept(bottoms=((0,) if self.blobs[0].lr_mult else ()) if learned else (0, 1))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = a x + b."""
        x, a = bottoms[0], bottoms[1] if len(bottoms) == 2 else self.blobs[0].data
        y = x * self._spread(a, x)
        return [y.add_(self._spread(self.blobs[-1].data, x)) if self.bias_term else y]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = a dy; da = sum of x dy and db = sum of dy over the axes they repeat over."""
        dy, x, a = top_diffs[0], bottoms[0], bottoms[1] if len(bottoms) == 2 else self.blobs[0].data
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
            spread = self.geometry.spread
            scale = graph.reshape(bottoms[1], [*[0] * len(spread[:1]), *spread[1:]])
        else:
            scale = graph.constant(f"{self.name}_0", self.blobs[0].data.view(self.geometry.spread))
        if not self.bias_term:
            graph.node("Mul", [bottoms[0], scale], tops)
            return
        bias = graph.constant(f"{self.name}_bias", self.blobs[-1].data.view(self.geometry.spread))
        graph.node("Add", [graph.add("Mul", [bottoms[0], scale]), bias], tops)

    def _first(self, bottoms: Shapes) -> int:
        """The axis of the bottom that the scale's first axis is aligned with."""
        return 0 if bottoms[1:] == [()] else self.axis(self.param.scale_param.axis, bottoms[0])

    def _span(self, first: int, shape: Shape) -> Shape:
        """The shape of a learned scale."""
        num_axes = self.param.scale_param.num_axes
        if num_axes < -1 or first + num_axes > len(shape):
            raise self.error(f"num_axes {num_axes} from axis {first} reaches past a bottom of {describe(shape)}")
        return shape[first:] if num_axes == -1 else shape[first : first + num_axes]

    def _spread(self, value: Tensor, x: Tensor) -> Tensor:
        """`value` in the shape that broadcasts against `x`; a scale given as a bottom may span the batch."""
        return value.to(x.dtype).reshape((*value.shape, *self.geometry.spread[value.dim() :]))

    def _sum(self, product: Tensor, like: Tensor) -> Tensor:
        """The sum of `product` over the axes that the scale repeats over, in the scale's shape."""
        return (product.sum(self.geometry.repeated) if self.geometry.repeated else product).view(like.shape)
