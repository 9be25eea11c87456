"""Convolution, in groups, with stride, padding and dilation, over any number of spatial axes."""

from imae.layers.blob import Shape
from imae.layers.vision.base_convolution import BaseConvolution


class Convolution(BaseConvolution):
    """y[n, o] = b[o] + sum over c in o's group of x[n, c] * w[o, c]: cross-correlation.

    Blobs: weight (num_output x channels / group x kernel), bias (num_output) unless `bias_term: false`.
    Output size along an axis: (size + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down.
    """

    type = "Convolution"
    transposed = False
    onnx_operator = "Conv"

    def output_size(self, spatial: Shape) -> list[int]:
        return self.windows.fitting(spatial)

    def effective_stride(self, spatial: Shape) -> list[int]:
        """One past the end leaves one position."""
        windows = self.windows
        return [
            min(stride, size + 2 * pad) for stride, size, pad in zip(windows.stride, spatial, windows.pad, strict=True)
        ]
