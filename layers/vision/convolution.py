"""Convolution, in groups, with stride, padding and dilation, over one, two or three spatial axes."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, Saved, Shapes, Tensors, describe
from imae.layers.onnx_graph import OnnxGraph
from imae.layers.registry import register

aten = torch.ops.aten


@register
class Convolution(Layer):
    """y[n, o] = b[o] + sum over c in o's group of x[n, c] * w[o, c]: cross-correlation.

    Blobs: weight (num_output x channels / group x kernel), bias (num_output) unless `bias_term: false`.
    Output size along an axis: (size + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down.
    """

    type = "Convolution"
    bottoms = (1, None)
    tops = (1, None)
    capturable = True
    geometry: tuple[list[int], list[int]]
    """Stride and dilation, no larger than makes a difference: PyTorch's kernels crash on some that are."""

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings, and create weight and bias."""
        param, shape = self.param.convolution_param, bottoms[0]
        if len(self.param.top) != len(bottoms):
            raise self.error(f"needs a top for each bottom, has {len(self.param.top)} for {len(bottoms)}")
        if self.axis(param.axis, shape) != 1 or len(shape) not in (3, 4, 5):
            raise self.error(f"needs N x C and 1 to 3 spatial axes, bottom is {describe(shape)} with axis {param.axis}")
        axes = len(shape) - 2
        self.kernel = self._geometry("kernel", axes, None)
        self.stride = self._geometry("stride", axes, 1)
        self.pad = self._geometry("pad", axes, 0)
        self.dilation = self._geometry("dilation", axes, 1)
        self.group, self.bias_term = param.group, param.bias_term
        if not param.num_output:
            raise self.error("num_output is missing or 0")
        if min(self.kernel + self.stride + self.dilation) < 1:
            raise self.error("kernel, stride and dilation must be at least 1")
        if self.group < 1 or shape[1] % self.group or param.num_output % self.group:
            raise self.error(
                f"group {self.group} must divide the {shape[1]} input and the {param.num_output} output channels"
            )
        self.add_blob((param.num_output, shape[1] // self.group, *self.kernel), param.weight_filler)
        if self.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Return one top shape a bottom."""
        shape, (num_output, inputs) = bottoms[0], self.blobs[0].shape[:2]
        if any(other[1:] != shape[1:] for other in bottoms):
            raise self.error(f"its bottoms differ in shape: {', '.join(map(describe, bottoms))}")
        if len(shape) != len(self.kernel) + 2 or shape[1] != inputs * self.group:
            raise self.error(
                f"its weight is for {inputs * self.group} channels and {len(self.kernel)} spatial axes, found a bottom "
                f"of {describe(shape)}"
            )
        if 0 in shape[1:]:
            raise self.error(f"needs channels, and sizes of at least 1, found a bottom of {describe(shape)}")
        spatial = [
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                shape[2:], self.kernel, self.stride, self.pad, self.dilation, strict=True
            )
        ]
        if min(spatial) < 1:
            raise self.error(f"a {describe(self.kernel)} kernel does not fit into the bottom of {describe(shape)}")
        self.geometry = (
            [min(stride, size + 2 * pad) for stride, size, pad in zip(self.stride, shape[2:], self.pad, strict=True)],
            [dilation if kernel > 1 else 1 for dilation, kernel in zip(self.dilation, self.kernel, strict=True)],
        )
        return [(bottom[0], num_output, *spatial) for bottom in bottoms]

    def keeps(self) -> Kept:
        """The bottoms: the weight's gradient needs their values, the gradients by themselves only their shapes."""
        return Kept(bottoms=tuple(range(len(self.param.bottom))))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = x * w + b."""
        return [self.convolve(x, self.blobs[1].data if self.bias_term else None) for x in bottoms]

    def convolve(self, x: Tensor, bias: Tensor | None, weight: Tensor | None = None) -> Tensor:
        """Return x * weight + bias, in the precision of x; the weight is the layer's unless given."""
        weight = (self.blobs[0].data if weight is None else weight).to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
        (stride, dilation), none = self.geometry, [0] * len(self.pad)
        return torch.convolution(x, weight, bias, stride, self.pad, dilation, False, none, self.group)

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dw = dy * x, db = sum of dy, dx = dy * flipped w."""
        return self.convolve_backward(bottoms, top_diffs, needs, bias=self.bias_term)

    def convolve_backward(self, bottoms: Tensors, top_diffs: Tensors, needs: list[bool], *, bias: bool) -> Diffs:
        """Return dx, and add to the diffs of the weight and, with `bias`, of the bias."""
        weight = self.blobs[0].data.to(top_diffs[0].dtype)
        stride, dilation = self.geometry
        learns = [blob.lr_mult != 0 for blob in self.blobs]
        bottom_diffs: Diffs = []
        for x, dy, need in zip(bottoms, top_diffs, needs, strict=True):
            dx, dw, db = aten.convolution_backward(
                dy,
                x,
                weight,
                [weight.shape[0]],
                stride,
                self.pad,
                dilation,
                False,
                [0] * len(self.pad),
                self.group,
                [need, learns[0], bias and learns[1]],
            )
            bottom_diffs.append(dx)
            for blob, diff in zip(self.blobs, (dw, db), strict=False):
                if diff is not None:
                    blob.diff += diff
        return bottom_diffs

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Conv."""
        blobs = [graph.constant(f"{self.name}_{i}", blob.data) for i, blob in enumerate(self.blobs)]
        for bottom, top in zip(bottoms, tops, strict=True):
            graph.node(
                "Conv",
                [bottom, *blobs],
                [top],
                kernel_shape=self.kernel,
                strides=self.stride,
                pads=self.pad * 2,
                dilations=self.dilation,
                group=self.group,
            )

    def _geometry(self, what: str, axes: int, default: int | None) -> list[int]:
        """Return the setting `what` for each spatial axis: from `what`_h and _w, or `what` once or per axis."""
        param = self.param.convolution_param
        field = "kernel_size" if what == "kernel" else what
        given = list(getattr(param, field))
        if what != "dilation" and (param.HasField(f"{what}_h") or param.HasField(f"{what}_w")):
            if given or axes != 2:
                raise self.error(f"give either {field} or {what}_h and {what}_w, not both")
            return [getattr(param, f"{what}_h"), getattr(param, f"{what}_w")]
        if not given and default is None:
            raise self.error("kernel_size is missing")
        given = given or [default or 0]
        if len(given) not in (1, axes):
            raise self.error(
                f"{field} must be given once or once for each of {axes} spatial axes, not {len(given)} times"
            )
        return given * (axes if len(given) == 1 else 1)
