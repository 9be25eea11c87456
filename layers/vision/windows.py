"""The windows that a kernel takes as it slides over the spatial axes: their settings, and their elements as columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from imae.layers.layer import Layer, OnnxGraph, Shape, describe


@dataclass(frozen=True)
class Windows:
    """What `convolution_param` says of windows: the axis of the channels, and a number for each spatial axis after."""

    axis: int
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extent(self) -> Shape:
        """How far a window reaches along each spatial axis: dilation (kernel - 1) + 1."""
        return tuple(dilation * (kernel - 1) + 1 for dilation, kernel in zip(self.dilation, self.kernel, strict=True))

    def fitting(self, spatial: Shape) -> list[int]:
        """Return how many fit along each axis: (size + 2 pad - extent) / stride + 1, rounded towards 0 as C does.

        So there is one that reaches past the padding, over zeros, where less than a stride is missing.
        """
        return [
            int((size + 2 * pad - extent) / stride) + 1
            for size, pad, extent, stride in zip(spatial, self.pad, self.extent, self.stride, strict=True)
        ]

    def missing(self, spatial: Shape) -> list[int]:
        """Return how far a window at the beginning reaches past the padding of each axis."""
        return [
            max(extent - size - 2 * pad, 0) for size, pad, extent in zip(spatial, self.pad, self.extent, strict=True)
        ]


def complete(x: Tensor, missing: list[int]) -> Tensor:
    """Return x (N x C x spatial) with as many zeros after the end of each spatial axis."""
    return F.pad(x, [n for after in reversed(missing) for n in (0, after)]) if any(missing) else x


def without(x: Tensor, missing: list[int]) -> Tensor:
    """Return x (N x C x spatial) without what `complete` adds."""
    for axis, after in enumerate(missing, 2):
        x = x.narrow(axis, 0, x.shape[axis] - after) if after else x
    return x


def read_windows(layer: Layer, bottom: Shape) -> Windows:
    """Return the windows of a layer with a `convolution_param` over a bottom of this shape.

    Raises InputError, naming the layer, for settings that do not fit the bottom's axes, and for zeros.
    """
    axis = layer.axis(layer.param.convolution_param.axis, bottom)
    axes = len(bottom) - axis - 1
    settings = [_setting(layer, what, axes) for what in ("kernel", "stride", "pad", "dilation")]
    windows = Windows(axis, *settings)
    if axes and min(windows.kernel + windows.stride + windows.dilation) < 1:
        raise layer.error("kernel, stride and dilation must be at least 1")
    return windows


def _setting(layer: Layer, what: str, axes: int) -> Shape:
    """Return the setting `what` for each spatial axis: from `what`_h and _w, or `what` once or per axis."""
    param = layer.param.convolution_param
    field = "kernel_size" if what == "kernel" else what
    given = list(getattr(param, field))
    if what != "dilation" and (param.HasField(f"{what}_h") or param.HasField(f"{what}_w")):
        if given or axes != 2:
            raise layer.error(f"give either {field} or {what}_h and {what}_w, not both")
        return getattr(param, f"{what}_h"), getattr(param, f"{what}_w")
    if not given and what == "kernel" and axes:
        raise layer.error("kernel_size is missing")
    given = given or [0 if what == "pad" else 1]
    if len(given) not in (1, axes):
        raise layer.error(f"{field} must be given once or once for each of {axes} spatial axes, not {len(given)} times")
    return tuple(given * axes if len(given) == 1 else given)


def check_fit(layer: Layer, windows: Windows, bottom: Shape) -> None:
    """Raise InputError, naming the layer, unless at least one window fits into a bottom of this shape."""
    if 0 in bottom[windows.axis :]:
        raise layer.error(f"needs channels, and sizes of at least 1, found a bottom of {describe(bottom)}")
    if min(windows.fitting(bottom[windows.axis + 1 :]), default=1) < 1:
        raise layer.error(f"a {describe(windows.kernel)} kernel does not fit into the bottom of {describe(bottom)}")


def im2col(x: Tensor, windows: Windows) -> Tensor:
    """Return the elements of each window: N x C x spatial -> N x (C kernel) x windows, as Caffe orders them."""
    x = complete(x, windows.missing(tuple(x.shape[2:])))
    if len(windows.kernel) == 2:
        fitting = windows.fitting(tuple(x.shape[2:]))
        columns = F.unfold(x, windows.kernel, windows.dilation, windows.pad, windows.stride)
        return columns.view(*columns.shape[:2], *fitting)
    # Along one axis after the other: N x C x (size, ...) becomes N x (C kernel) x (windows, ...).
    for axis, (kernel, stride, pad, dilation) in enumerate(
        zip(windows.kernel, windows.stride, windows.pad, windows.dilation, strict=True), start=2
    ):
        padded = F.pad(x, [0, 0] * (x.dim() - 1 - axis) + [pad, pad]) if pad else x
        taps = padded.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        x = taps.movedim(-1, 2).flatten(1, 2)
    return x


def col2im(columns: Tensor, windows: Windows, spatial: Shape) -> Tensor:
    """Return the sums of the elements of windows at their places, to which `im2col` is adjoint: N x C x spatial."""
    missing = windows.missing(spatial)
    if len(windows.kernel) == 2:
        whole = tuple(map(add, spatial, missing))
        flat = columns.flatten(2)
        return without(F.fold(flat, whole, windows.kernel, windows.dilation, windows.pad, windows.stride), missing)
    for axis in reversed(range(len(spatial))):
        kernel, stride, pad = windows.kernel[axis], windows.stride[axis], windows.pad[axis]
        taps = columns.reshape(
            columns.shape[0], columns.shape[1] // kernel, kernel, *columns.shape[2:]
        )  # N x C x kernel x (windows, ...)
        padded = list(taps.shape[:2] + taps.shape[3:])
        fitting = padded[axis + 2]
        padded[axis + 2] = spatial[axis] + 2 * pad + missing[axis]
        columns = taps.new_zeros(padded)
        for tap in range(kernel):
            first = tap * windows.dilation[axis]
            places = torch.arange(fitting, device=taps.device) * stride + first
            columns.index_add_(axis + 2, places, taps[:, :, tap])
        columns = columns.narrow(axis + 2, pad, spatial[axis])
    return columns


@contextmanager
def as_images(graph: OnnxGraph, bottom: str, top: str, windows: Windows) -> Iterator[tuple[str, str]]:
    """Bring `bottom` to batch x channels x spatial, at least one axis of these, and what is made of it back into `top`.

    Gives the names of the value to read and of the one to make.
    """
    axis, end = windows.axis, windows.axis + 1 + len(windows.kernel)
    one = [] if windows.kernel else [graph.constant(f"{bottom}/one", [1])]
    whole = graph.constant(f"{bottom}/batch", [-1])
    images = graph.reshape(bottom, graph.add("Concat", [whole, graph.sizes(bottom, axis, end), *one], axis=0))
    made = graph.name(f"{top}/images")
    yield images, made
    sizes = [graph.sizes(bottom, 0, axis)] if axis else []
    graph.reshape(made, graph.add("Concat", [*sizes, graph.sizes(made, 1, 2 + len(windows.kernel))], axis=0), top)
