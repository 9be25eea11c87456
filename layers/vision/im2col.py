"""Im2col: the elements of each window of a convolution as channels."""

import math
from operator import add

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe
from imae.layers.vision.windows import as_images, check_fit, col2im, im2col, read_windows


class Im2col(Layer):
    """y[n, c kernel + k, i] = x[n, c, stride i - pad + dilation k], 0 in the padding; indices over all spatial axes.

    Takes the settings of windows in `convolution_param`; the axes before its `axis`, that of the channels, are a batch.
    """

    type = "Im2col"
    capturable = True
    kept = Kept()
    geometry: Shape
    """The bottom's."""

    def setup(self, bottoms: Shapes) -> None:
        self.windows = read_windows(self, bottoms[0])
        if not self.windows.kernel:
            raise self.error(f"needs at least 1 spatial axis after its axis, found a bottom of {describe(bottoms[0])}")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Batch, channels times the size of a window, number of windows along each axis."""
        self.geometry = shape = bottoms[0]
        windows, axis = self.windows, self.windows.axis
        if len(shape) != axis + 1 + len(windows.kernel):
            raise self.error(f"its windows have {len(windows.kernel)} axes, found a bottom of {describe(shape)}")
        check_fit(self, windows, shape)
        padded = (size + 2 * pad for size, pad in zip(shape[axis + 1 :], windows.pad, strict=True))
        self.check_size("padded bottom", (*shape[: axis + 1], *padded))
        return [(*shape[:axis], shape[axis] * math.prod(windows.kernel), *windows.fitting(shape[axis + 1 :]))]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        shape, axis = self.geometry, self.windows.axis
        y = im2col(bottoms[0].reshape(math.prod(shape[:axis]), *shape[axis:]), self.windows)
        return [y.view(*shape[:axis], *y.shape[1:])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = the sum of dy over the windows that hold x."""
        (dy,), shape, axis = top_diffs, self.geometry, self.windows.axis
        columns = dy.reshape(math.prod(shape[:axis]), *dy.shape[axis:])
        return [col2im(columns, self.windows, shape[axis + 1 :]).reshape(shape)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Conv, each channel for itself, by kernels of a 1 among zeros; between Reshapes but for channels at axis 1."""
        windows, channels = self.windows, self.geometry[self.windows.axis]
        taps = math.prod(windows.kernel)
        kernels = torch.eye(taps).view(taps, 1, *windows.kernel).repeat(channels, *[1] * (1 + len(windows.kernel)))
        settings = {
            "kernel_shape": windows.kernel,
            "strides": windows.stride,
            "pads": (*windows.pad, *map(add, windows.pad, windows.missing(self.geometry[self.windows.axis + 1 :]))),
            "dilations": windows.dilation,
            "group": channels,
        }
        kernel = graph.constant(f"{self.name}_kernels", kernels)
        if windows.axis == 1:
            graph.node("Conv", [*bottoms, kernel], tops, **settings)
            return
        with as_images(graph, bottoms[0], tops[0], windows) as (images, columns):
            graph.node("Conv", [images, kernel], [columns], **settings)
