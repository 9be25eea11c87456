"""What Convolution and Deconvolution share: settings, weight and bias, any axis of channels, several bottoms."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import add
from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe
from imae.layers.vision.columns import of_windows, weight_gradient, whole_from
from imae.layers.vision.windows import as_images, complete, read_windows, without

MOST_AXES = 3
"""Spatial axes that PyTorch's convolutions take; over more, windows become columns as in Caffe."""
ONEDNN_STRIDES = 2**15
"""From which on oneDNN's kernels, PyTorch's on a CPU, crash."""


class BaseConvolution(Layer):
    """A linear map of windows, the same at each position; blobs: weight, and bias unless `bias_term: false`.

    The axes before `axis`, which is that of the channels, are those of a batch, and the axes after it are spatial;
    without any it is a fully connected layer in groups. Each bottom has its top, and all bottoms the same weight.
    `engine` and `force_nd_im2col`, which choose among Caffe's implementations, have no effect.
    """

    bottoms = (1, None)
    tops = (1, None)
    capturable = True
    onnx_operator: ClassVar[str]
    transposed: ClassVar[bool]
    """Whether it is the adjoint, from the windows' results to where their elements lie."""
    geometry: tuple[list[int], list[int], list[int]]
    """Stride and dilation, no larger than makes a difference: PyTorch's kernels crash on some that are; and how far the
    one window reaches past a bottom that is smaller.
    """

    def setup(self, bottoms: Shapes) -> None:
        param, shape = self.param.convolution_param, bottoms[0]
        if len(self.param.top) != len(bottoms):
            raise self.error(f"needs a top for each bottom, has {len(self.param.top)} for {len(bottoms)}")
        self.windows = windows = read_windows(self, shape)
        self.group, self.bias_term, self.channels = param.group, param.bias_term, shape[windows.axis]
        if not param.num_output:
            raise self.error("num_output is missing or 0")
        if self.group < 1 or self.channels % self.group or param.num_output % self.group:
            raise self.error(
                f"group {self.group} must divide the {self.channels} input and the {param.num_output} output channels"
            )
        rows, columns = (self.channels, param.num_output) if self.transposed else (param.num_output, self.channels)
        self.add_blob((rows, columns // self.group, *windows.kernel), param.weight_filler)
        if self.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        shape, axis, axes = bottoms[0], self.windows.axis, len(self.windows.kernel)
        if any(other != shape for other in bottoms):
            raise self.error(f"its bottoms differ in shape: {', '.join(map(describe, bottoms))}")
        if len(shape) != axis + 1 + axes or shape[axis] != self.channels:
            raise self.error(
                f"its weight is for {self.channels} channels and {axes} spatial axes, found a bottom of "
                f"{describe(shape)}"
            )
        if 0 in shape[axis:]:
            raise self.error(f"needs channels, and sizes of at least 1, found a bottom of {describe(shape)}")
        spatial = self.output_size(shape[axis + 1 :])
        if min(spatial, default=1) < 1:
            raise self.error(
                f"a {describe(self.windows.kernel)} kernel does not fit into the bottom of {describe(shape)}"
            )
        dilation = [
            dilation if kernel > 1 else 1
            for dilation, kernel in zip(self.windows.dilation, self.windows.kernel, strict=True)
        ]
        missing = [0] * axes if self.transposed else self.windows.missing(shape[axis + 1 :])
        self.geometry = self.effective_stride(shape[axis + 1 :]), dilation, missing
        if axes > MOST_AXES:
            self._check_columns(shape[axis + 1 :], tuple(spatial))
        return [(*bottom[:axis], self.param.convolution_param.num_output, *spatial) for bottom in bottoms]

    def output_size(self, spatial: Shape) -> list[int]:
        """Return the top's size along each spatial axis, for that of the bottom."""
        raise NotImplementedError

    def effective_stride(self, spatial: Shape) -> list[int]:
        """Return the stride, no larger than makes a difference for a bottom of this size."""
        raise NotImplementedError

    def keeps(self) -> Kept:
        """The bottoms: the weight's gradient needs their values, the gradients by themselves only their shapes."""
        return Kept(bottoms=tuple(range(len(self.param.bottom))))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        return [self.convolve(x, self.blobs[1].data if self.bias_term else None) for x in bottoms]

    def convolve(self, x: Tensor, bias: Tensor | None, weight: Tensor | None = None) -> Tensor:
        """Return x * weight + bias, in the precision of x; the weight is the layer's unless given."""
        weight = (self.blobs[0].data if weight is None else weight).to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
        with self._sound_kernels():
            y = self._forward(complete(self._batch(x), self.geometry[2]), self._kernels(weight), bias)
        return self._unbatched(y, x.shape[: self.windows.axis])

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dw = dy * x, db = sum of dy, dx = dy * flipped w."""
        return self.convolve_backward(bottoms, top_diffs, needs, bias=self.bias_term)

    def convolve_backward(self, bottoms: Tensors, top_diffs: Tensors, needs: list[bool], *, bias: bool) -> Diffs:
        """Return dx, and add to the diffs of the weight and, with `bias`, of the bias."""
        weight = self._kernels(self.blobs[0].data.to(top_diffs[0].dtype))
        learns = [blob.wants_diff for blob in self.blobs]
        bottom_diffs: Diffs = []
        missing = self.geometry[2]
        for x, dy, need in zip(bottoms, top_diffs, needs, strict=True):
            wanted = [need, learns[0], bias and learns[1]]
            with self._sound_kernels():
                whole = complete(self._batch(x), missing)
                dx, dw, db = self._backward(self._batch(dy), whole, weight, wanted)
            batch = x.shape[: self.windows.axis]
            bottom_diffs.append(None if dx is None else self._unbatched(without(dx, missing), batch))
            # PyTorch's kernels may give gradients that were not asked for.
            for blob, learn, diff in zip(self.blobs, wanted[1:], (dw, db), strict=False):
                if learn and diff is not None:
                    blob.diff += diff.view(blob.shape)
        return bottom_diffs

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Conv or ConvTranspose; between Reshapes where the channels are not at axis 1, or no axes are behind them."""
        windows = self.windows
        weight, *bias = (blob.data for blob in self.blobs)
        kernel = windows.kernel or (1,)
        settings = {
            "kernel_shape": kernel,
            "strides": windows.stride or (1,),
            "pads": (*windows.pad, *map(add, windows.pad, self.geometry[2])) or (0, 0),
            "dilations": windows.dilation or (1,),
            "group": self.group,
        }
        learned = [weight.view(*weight.shape[:2], *kernel), *bias]
        blobs = [graph.constant(f"{self.name}_{i}", blob) for i, blob in enumerate(learned)]
        for bottom, top in zip(bottoms, tops, strict=True):
            if windows.axis == 1 and windows.kernel:
                graph.node(self.onnx_operator, [bottom, *blobs], [top], **settings)
            else:
                with as_images(graph, bottom, top, windows) as (images, convolved):
                    graph.node(self.onnx_operator, [images, *blobs], [convolved], **settings)

    def _forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x * weight + bias, of a batch."""
        windows, axes = self.windows, len(self.windows.kernel)
        # of a whole batch in float64 PyTorch would make the columns at once
        if len(x) > 1 and x.dtype == torch.float64 and x.device.type == "cpu":
            return torch.cat([self._forward(x[i : i + 1], weight, bias) for i in range(len(x))])
        if axes <= MOST_AXES:
            return torch.convolution(x, weight, bias, *self._sliding())
        if self.transposed:
            y = whole_from(x, weight, windows, self.group, tuple(self.output_size(tuple(x.shape[2:]))))
        else:
            y = of_windows(x, weight, windows, self.group)
        return y if bias is None else y + bias.view(-1, *[1] * axes)

    def _backward(self, dy: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
        """Those of the gradients by x, the weight and the bias that are `wanted`."""
        windows = self.windows
        if len(windows.kernel) <= MOST_AXES:
            outputs = [self.param.convolution_param.num_output]
            gradients: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                dy, x, weight, outputs, *self._sliding(), wanted
            )
            return gradients
        if self.transposed:
            dx = of_windows(dy, weight, windows, self.group) if wanted[0] else None
        else:
            dx = whole_from(dy, weight, windows, self.group, tuple(x.shape[2:])) if wanted[0] else None
        whole, of = (dy, x) if self.transposed else (x, dy)
        dw = weight_gradient(whole, of, weight, windows, self.group) if wanted[1] else None
        return dx, dw, dy.transpose(0, 1).flatten(1).sum(1) if wanted[2] else None

    def _check_columns(self, bottom: Shape, top: Shape) -> None:
        """Refuse windows whose columns would be larger than a blob, for spatial axes of these sizes."""
        windows, columns = self.windows, self.blobs[0].shape[1]
        whole, of = (top, bottom) if self.transposed else (bottom, top)
        padded = (size + 2 * pad for size, pad in zip(whole, windows.pad, strict=True))
        self.check_size("padded " + ("top" if self.transposed else "bottom"), (columns * self.group, *padded))
        self.check_size("columns", (columns * self.group * math.prod(windows.kernel), *of))

    def _sliding(self) -> tuple[Sequence[int], Sequence[int], Sequence[int], bool, list[int], int]:
        """The arguments of PyTorch's convolutions: stride, pad, dilation, transposed, output padding and groups."""
        stride, dilation, _ = self.geometry
        if not stride:
            return [1], [0], [1], self.transposed, [0], self.group
        return stride, self.windows.pad, dilation, self.transposed, [0] * len(stride), self.group

    @contextmanager
    def _sound_kernels(self) -> Iterator[None]:
        """Leave oneDNN's kernels out where they would crash."""
        if max(self.geometry[0], default=1) < ONEDNN_STRIDES:
            yield
            return
        before = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.backends.mkldnn.enabled = before

    def _batch(self, x: Tensor) -> Tensor:
        """N x channels x spatial, with one axis of size 1 where there are none."""
        axis = self.windows.axis
        if axis != 1:
            x = x.reshape(math.prod(x.shape[:axis]), *x.shape[axis:])
        return x if self.windows.kernel else x[:, :, None]

    def _unbatched(self, y: Tensor, batch: Shape) -> Tensor:
        """The axes `batch` before the channels, and no spatial axis where there are none."""
        y = y if self.windows.kernel else y[:, :, 0]
        return y if len(batch) == 1 else y.reshape(*batch, *y.shape[1:])

    def _kernels(self, weight: Tensor) -> Tensor:
        return weight if self.windows.kernel else weight[:, :, None]
