"""Pooling: the maximum, mean or a random element of each window."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imae.layers.blob import LARGEST_COUNT
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe
from imae.layers.random_streams import random_uniform

aten = torch.ops.aten


@dataclass(frozen=True)
class PoolingGeometry:
    """Sizes along height and width."""

    size: Shape  # of the bottom
    kernel: Shape  # of a window, clipped to the padded bottom
    pooled: Shape  # of the top: how many windows there are
    beyond: Shape  # how far the last windows reach past the far border


class Pooling(Layer):
    """MAX: y = max of the window; AVE: y = sum of the window over its size, padding included; STOCHASTIC: see below.

    Output size along an axis: (size + 2 pad - kernel) / stride + 1, rounded up (down with `round_mode: FLOOR`), less
    one where the last window would start in the padding. Windows that reach past the padded border are clipped to it.
    Without padding, a last window that would start past the border, which Caffe fills with garbage, is an error.
    A second top of MAX gives the index h W + w of each maximum, the first at a tie.

    STOCHASTIC (Zeiler and Fergus 2013), for bottoms that are nowhere negative: TRAIN draws one element of the window
    with probability proportional to its value, TEST takes the mean weighted by it.
    """

    type = "Pooling"
    tops = (1, 2)
    no_gradient_from = frozenset({1})
    index_tops = frozenset({1})
    capturable = True
    geometry: PoolingGeometry

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.pooling_param
        self.method = param.PoolMethod.Name(param.pool)
        if len(self.param.top) == 2 and self.method != "MAX":
            raise self.error("only MAX pooling has a second top")
        self.everywhere = param.global_pooling
        self.kernel, self.stride, self.pad = (self._pair(what) for what in ("kernel", "stride", "pad"))
        if self.everywhere:
            if param.HasField("kernel_size") or param.HasField("kernel_h") or param.HasField("kernel_w"):
                raise self.error("global_pooling takes no kernel size")
            if self.stride != (1, 1) or self.pad != (0, 0):
                raise self.error("global_pooling takes no stride but 1 and no pad but 0")
        else:
            if min(self.kernel + self.stride) < 1:
                raise self.error("kernel and stride must be at least 1")
            if max(self.kernel + self.stride) > LARGEST_COUNT:
                raise self.error(f"kernel and stride must be at most {LARGEST_COUNT}")
            if any(pad >= kernel for pad, kernel in zip(self.pad, self.kernel, strict=True)):
                raise self.error(f"pad {describe(self.pad)} must be smaller than the kernel {describe(self.kernel)}")
        if self.method == "STOCHASTIC" and max(self.pad):
            raise self.error("STOCHASTIC pooling takes no padding")
        self.ceil_mode = param.RoundMode.Name(param.round_mode) == "CEIL"

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Return the top's shape, twice where the indices are asked for."""
        shape = bottoms[0]
        if len(shape) != 4:
            raise self.error(f"needs a bottom of 4 axes, found {describe(shape)}")
        if 0 in shape[1:]:
            raise self.error(f"needs channels, and sizes of at least 1, found a bottom of {describe(shape)}")
        size = shape[2:]
        window = size if self.everywhere else self.kernel
        pooled = tuple(self._size(*along) for along in zip(size, window, self.stride, self.pad, strict=True))
        if min(pooled) < 1:
            raise self.error(f"a {describe(window)} window does not fit into the bottom of {describe(shape)}")
        kernel = tuple(min(k, whole + 2 * p) for k, whole, p in zip(window, size, self.pad, strict=True))
        beyond = tuple(
            max((windows - 1) * stride + along - whole - pad, 0)
            for windows, stride, along, whole, pad in zip(pooled, self.stride, kernel, size, self.pad, strict=True)
        )
        self.geometry = PoolingGeometry(size, kernel, pooled, beyond)
        padded = (whole + pad + far for whole, pad, far in zip(size, self.pad, beyond, strict=True))
        self.check_size("padded bottom", (*shape[:2], *padded))
        return [(*shape[:2], *pooled)] * len(self.param.top)

    def keeps(self) -> Kept:
        """x, of which MAX needs only the shape, but PyTorch's kernel takes the tensor."""
        return Kept(bottoms=() if self.method == "AVE" and self.everywhere else (0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = bottoms[0]
        if self.method == "STOCHASTIC":
            return [self._stochastic(x, saved)]
        if self.method == "AVE":
            return [x.mean((2, 3), keepdim=True) if self.everywhere else self._mean(x)]
        padded, kernel, stride, pad, ceil_mode = self._padded(x)
        y, saved["index"] = aten.max_pool2d_with_indices(padded, kernel, stride, pad, [1, 1], ceil_mode)
        if len(self.param.top) == 1:
            return [y]
        return [y, self._unpadded_index(saved["index"], x).to(torch.promote_types(x.dtype, torch.float32))]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy at the maximum or the drawn element; dy over the window's size in all of it."""
        dy, geometry = top_diffs[0], self.geometry
        if self.method == "AVE" and self.everywhere:
            return [(dy / math.prod(geometry.size)).expand(*dy.shape[:2], *geometry.size)]
        x = bottoms[0]
        if self.method == "STOCHASTIC":
            windows = saved["choice"] * dy.reshape(*dy.shape[:2], 1, math.prod(geometry.pooled))
            return [self._fold(windows, x)]
        padded, kernel, stride, pad, ceil_mode = self._padded(x)
        if self.method == "AVE":
            dy, divisor = (dy, None) if padded is x else (dy / self._window_sizes(x.device), 1)
            like = padded.contiguous() if padded.is_cuda and any(pad) else padded  # channels_last ignores `pad` there
            dx = aten.avg_pool2d_backward(dy, like, kernel, stride, pad, ceil_mode, True, divisor)
        else:
            dx = aten.max_pool2d_with_indices_backward(
                dy, padded, kernel, stride, pad, [1, 1], ceil_mode, saved["index"]
            )
        return [dx if padded is x else dx[:, :, self.pad[0] :, self.pad[1] :][:, :, : x.shape[2], : x.shape[3]]]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """GlobalAveragePool, GlobalMaxPool, AveragePool or MaxPool, padded as far as the windows reach.

        An average over clipped windows is divided by that of a mask of ones; indices are MaxPool's, modulo an image's
        size. STOCHASTIC is the average of the squares over that of the values, 0 where all are.
        """
        if self.method == "STOCHASTIC":
            if self.training:
                raise self.error("has no ONNX form in phase TRAIN, in which STOCHASTIC pooling draws at random")
            graph.whole = True
            means = [self._average(graph, x) for x in (graph.add("Mul", bottoms * 2), bottoms[0])]
            zero = graph.constant(f"{self.name}_zero", 0.0)
            weighted = graph.add("Div", means)
            graph.node("Where", [graph.add("Equal", [means[1], zero]), zero, weighted], tops)
        elif self.method == "AVE":
            self._average(graph, bottoms[0], tops[0])
        elif len(tops) == 2 and tops[1] not in graph.unread:
            graph.whole = True
            place = graph.name(f"{tops[1]}/place")
            graph.node("MaxPool", bottoms, [tops[0], place], **self._windows(graph, bottoms[0]))
            pixels = graph.reduce("ReduceProd", graph.sizes(bottoms[0], 2, 4), [0], keepdims=False)
            graph.cast(graph.add("Mod", [place, pixels]), "FLOAT", tops[1])
        elif self.everywhere:
            graph.node("GlobalMaxPool", bottoms, tops[:1])
        else:
            graph.node("MaxPool", bottoms, tops[:1], **self._windows(graph, bottoms[0]))

    def _windows(self, graph: OnnxGraph, x: str) -> dict[str, Any]:
        """The attributes of ONNX's pooling, which rounds down: with the padding on the far side that gives as many
        windows as Caffe has, of this size, or of any where the size is open.
        """
        stride, far = self.stride, self.geometry.beyond
        if self._any_size(graph, x):
            more = [s - 1 if self.ceil_mode else 0 for s in stride]
            far = tuple(min(p + m, k - 1) for p, m, k in zip(self.pad, more, self.geometry.kernel, strict=True))
        return {"kernel_shape": self.geometry.kernel, "strides": stride, "pads": [*self.pad, *far]}

    def _any_size(self, graph: OnnxGraph, x: str) -> bool:
        return any(axis >= 2 for axis in graph.open_axes(x))

    def _average(self, graph: OnnxGraph, x: str, top: str | None = None) -> str:
        """Add the sum of each window over its size, padding included."""
        if self.everywhere:
            return graph.add("GlobalAveragePool", [x], top)
        windows = self._windows(graph, x)
        beyond = [max(far - pad, 0) for far, pad in zip(windows["pads"][2:], self.pad, strict=True)]
        if not any(beyond):
            return graph.add("AveragePool", [x], top, count_include_pad=1, **windows)
        mean = graph.add("AveragePool", [x], count_include_pad=1, **windows)
        if not self._any_size(graph, x):
            clipped = math.prod(self.geometry.kernel) / self._window_sizes(torch.device("cpu"))
            return graph.add("Mul", [mean, graph.constant(f"{self.name}_clipped", clipped)], top)
        around = graph.constant(f"{self.name}_pads", [2 * pad for pad in self.pad])
        size = graph.add("Add", [graph.sizes(x, 2, 4), around])
        whole = graph.add("Concat", [graph.constant(f"{self.name}_one", [1, 1]), size], axis=0)
        ones = graph.add("Expand", [graph.constant(f"{self.name}_ones", 1.0), whole])
        inside = graph.add("AveragePool", [ones], count_include_pad=1, **(windows | {"pads": [0, 0, *beyond]}))
        return graph.add("Div", [mean, inside], top)

    def _mean(self, x: Tensor) -> Tensor:
        padded, kernel, stride, pad, ceil_mode = self._padded(x)
        if padded is x:
            return F.avg_pool2d(x, kernel, stride, pad, ceil_mode, count_include_pad=True)
        return F.avg_pool2d(padded, kernel, stride, pad, ceil_mode, divisor_override=1) / self._window_sizes(x.device)

    def _padded(self, x: Tensor) -> tuple[Tensor, Shape, Shape, Shape, bool]:
        """The arguments of PyTorch's pooling, which pads by at most half the kernel; more is padded here."""
        pad, kernel, beyond = self.pad, self.geometry.kernel, self.geometry.beyond
        if all(2 * p <= k for p, k in zip(pad, kernel, strict=True)):
            return x, kernel, self.stride, pad, self.ceil_mode
        x = F.pad(x, (pad[1], beyond[1], pad[0], beyond[0]), value=-math.inf if self.method == "MAX" else 0.0)
        return x, kernel, self.stride, (0, 0), False

    def _window_sizes(self, device: torch.device) -> Tensor:
        """The number of elements of each window, padding included (pooled height x pooled width)."""
        h, w = (
            (along + 2 * pad - torch.arange(size, device=device) * stride).clamp_max(kernel)
            for along, pad, size, stride, kernel in zip(
                self.geometry.size, self.pad, self.geometry.pooled, self.stride, self.geometry.kernel, strict=True
            )
        )
        return h[:, None] * w

    def _unpadded_index(self, index: Tensor, x: Tensor) -> Tensor:
        padded = self._padded(x)[0]
        if padded is x:
            return index
        h, w = index // padded.shape[3] - self.pad[0], index % padded.shape[3] - self.pad[1]
        return h * x.shape[3] + w

    def _stochastic(self, x: Tensor, saved: Saved) -> Tensor:
        """Draw (or average over) the elements of each window; keeps what each element passed on in `choice`."""
        windows = self._unfold(x)
        total = windows.sum(2, keepdim=True)
        if not self.training:
            mean = ((windows**2).sum(2, keepdim=True) / total).nan_to_num(0.0)  # 0 for a window of zeros
            saved["choice"] = ((2 * windows - mean) / total).nan_to_num(0.0)
            return mean.view(*x.shape[:2], *self.geometry.pooled)
        counter = self.context.passes.counters(total.numel()).view(total.shape)
        threshold = random_uniform(self.context.passes.seed, self.name, counter).to(x.dtype) * total
        chosen = (windows.cumsum(2) <= threshold).sum(2, keepdim=True).clamp_max(windows.shape[2] - 1)
        saved["choice"] = torch.zeros_like(windows).scatter_(2, chosen, 1.0)
        return windows.gather(2, chosen).view(*x.shape[:2], *self.geometry.pooled)

    def _unfold(self, x: Tensor) -> Tensor:
        """The windows, N x C x kernel elements x windows; zeros past the border."""
        kernel, (below, right) = self.geometry.kernel, self.geometry.beyond
        columns = F.unfold(F.pad(x, (0, right, 0, below)), kernel, stride=self.stride)
        return columns.view(*x.shape[:2], math.prod(kernel), math.prod(self.geometry.pooled))

    def _fold(self, windows: Tensor, x: Tensor) -> Tensor:
        size = tuple(along + beyond for along, beyond in zip(x.shape[2:], self.geometry.beyond, strict=True))
        return F.fold(windows.flatten(1, 2), size, self.geometry.kernel, stride=self.stride)[
            :, :, : x.shape[2], : x.shape[3]
        ]

    def _size(self, size: int, kernel: int, stride: int, pad: int) -> int:
        span = (size + 2 * pad - kernel) / stride
        pooled = (math.ceil(span) if self.ceil_mode else math.floor(span)) + 1
        if (pooled - 1) * stride < size + pad:
            return pooled
        if not any(self.pad):
            raise self.error(f"its last window would start past the {size} elements; set round_mode: FLOOR or a pad")
        return pooled - 1

    def _pair(self, what: str) -> tuple[int, int]:
        """A setting along height and width: from `what`_h and `what`_w, or one number for both.

        Beside kernel_size, as in Caffe, one of kernel_h and kernel_w alone has no effect.
        """
        param, square = self.param.pooling_param, "kernel_size" if what == "kernel" else what
        by_axis = param.HasField(f"{what}_h"), param.HasField(f"{what}_w")
        one_for_both = param.HasField(square)
        if any(by_axis) and (one_for_both if all(by_axis) else not (one_for_both and what == "kernel")):
            raise self.error(f"give either {square} or both {what}_h and {what}_w")
        names = (f"{what}_h", f"{what}_w") if all(by_axis) else (square, square)
        return getattr(param, names[0]), getattr(param, names[1])
