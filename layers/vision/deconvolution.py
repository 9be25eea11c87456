"""Deconvolution: the adjoint of a Convolution, which enlarges."""

from imae.layers.blob import Shape
from imae.layers.vision.base_convolution import BaseConvolution


class Deconvolution(BaseConvolution):
    """y[n, o] = b[o] + sum over c in o's group of what a Convolution by w[c, o] gives back as gradient for x[n, c].

    Blobs: weight (channels x num_output / group x kernel), bias (num_output) unless `bias_term: false`.
    Output size along an axis: stride (size - 1) + dilation (kernel - 1) + 1 - 2 pad. With the filler "bilinear", as
    many groups as channels, kernel 2 f - f mod 2, stride f and pad ceil((f - 1) / 2), it is interpolation by f.
    """

    type = "Deconvolution"
    transposed = True
    onnx_operator = "ConvTranspose"

    def output_size(self, spatial: Shape) -> list[int]:
        """As far as the windows reach, less the padding."""
        windows = self.windows
        return [
            stride * (size - 1) + extent - 2 * pad
            for stride, size, extent, pad in zip(windows.stride, spatial, windows.extent, windows.pad, strict=True)
        ]

    def effective_stride(self, spatial: Shape) -> list[int]:
        """From one position there is no step."""
        return [stride if size > 1 else 1 for stride, size in zip(self.windows.stride, spatial, strict=True)]
