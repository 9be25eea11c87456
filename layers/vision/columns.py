"""Convolutions over any number of spatial axes, as Caffe computes them: windows as columns, and products of matrices.

The whole (N x C x spatial) is where windows slide, what is of windows (N x O x windows) has O numbers for each of them,
and the weight is O x C / group x kernel: a Convolution goes from the whole to what is of windows, a Deconvolution back.
"""

import math

from torch import Tensor

from imae.layers.blob import Shape
from imae.layers.vision.windows import Windows, col2im, im2col


def of_windows(whole: Tensor, weight: Tensor, windows: Windows, group: int) -> Tensor:
    """Return the sum over each window of its elements times the weight."""
    columns = im2col(whole, windows)
    return (_matrix(weight, group) @ _grouped(columns, group)).view(len(whole), len(weight), *columns.shape[2:])


def whole_from(of: Tensor, weight: Tensor, windows: Windows, group: int, spatial: Shape) -> Tensor:
    """Return, for a whole of size `spatial`, the sums over windows of their numbers times the weight: the adjoint."""
    columns = (_matrix(weight, group).mT @ _grouped(of, group)).flatten(1, 2)
    return col2im(columns.view(*columns.shape[:2], *of.shape[2:]), windows, spatial)


def weight_gradient(whole: Tensor, of: Tensor, weight: Tensor, windows: Windows, group: int) -> Tensor:
    """Return the gradient of the sum of `of` times `of_windows(whole, weight)` by the weight."""
    products = _grouped(of, group) @ _grouped(im2col(whole, windows), group).mT
    return products.sum(0).view(weight.shape)


def _matrix(weight: Tensor, group: int) -> Tensor:
    """Group x O / group x (C / group kernel)."""
    return weight.reshape(group, len(weight) // group, math.prod(weight.shape[1:]))


def _grouped(x: Tensor, group: int) -> Tensor:
    """N x group x channels / group x places."""
    return x.reshape(len(x), group, x.shape[1] // group, math.prod(x.shape[2:]))
