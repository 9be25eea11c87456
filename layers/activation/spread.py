"""How a blob or a second bottom lies along some axes of a bottom and repeats over the others: of Scale and of Bias."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from imae.layers.layer import Layer, OnnxGraph, Shape, describe


class Axes(Protocol):
    """What `scale_param` and `bias_param` have in common."""

    @property
    def axis(self) -> int:
        """The bottom's axis that the value's first axis lies along."""

    @property
    def num_axes(self) -> int:
        """How many axes a learned value spans; -1: all from `axis` on."""


@dataclass(frozen=True)
class Spread:
    """How a value lies along a bottom."""

    shape: Shape
    """The value's shape with axes of 1 behind it, to broadcast against the bottom."""
    repeated: tuple[int, ...]
    """The bottom's axes over which the value repeats."""
    first: int
    """The bottom's axis that the value's first axis lies along; 0 for a scalar."""

    def out(self, value: Tensor, like: Tensor) -> Tensor:
        """Return `value` in the shape and the dtype in which it broadcasts against the bottom `like`."""
        return value.to(like.dtype).reshape((*value.shape, *self.shape[value.dim() :]))

    def sum(self, product: Tensor, like: Tensor) -> Tensor:
        """Return the sum of `product` over the axes that the value repeats over, in the shape of the value `like`."""
        return (product.sum(self.repeated) if self.repeated else product).view(like.shape)

    def to_onnx(self, graph: OnnxGraph, value: str) -> str:
        """Have a second bottom broadcast, by an Unsqueeze where axes of 1 are missing, and return its name."""
        axes = len(self.shape)
        behind = range(axes - sum(axis >= self.first for axis in self.repeated), axes)
        return graph.unsqueeze(value, behind) if behind else value


def span(layer: Layer, axes: Axes, bottom: Shape) -> Shape:
    """Return the shape of a learned value; raises InputError if it reaches past the bottom."""
    first, num_axes = layer.axis(axes.axis, bottom), axes.num_axes
    if num_axes < -1 or first + num_axes > len(bottom):
        raise layer.error(f"num_axes {num_axes} from axis {first} reaches past a bottom of {describe(bottom)}")
    return bottom[first:] if num_axes == -1 else bottom[first : first + num_axes]


def spread(layer: Layer, axes: Axes, what: str, value: Shape, bottom: Shape) -> Spread:
    """Return how a value of this shape, called `what`, lies along a bottom; raises InputError if it does not fit.

    That of a scalar lies the same way whatever `axis` says.
    """
    first = layer.axis(axes.axis, bottom) if value else 0
    if bottom[first : first + len(value)] != value:
        raise layer.error(
            f"a {what} of {describe(value)} does not fit a bottom of {describe(bottom)} from axis {first} on"
        )
    return Spread(
        shape=(*value, *[1] * (len(bottom) - first - len(value))),
        repeated=tuple(i for i in range(len(bottom)) if not first <= i < first + len(value)),
        first=first,
    )
