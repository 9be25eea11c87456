"""Initial values of learnable blobs: Caffe's fillers."""

import math

import torch
from torch import Tensor

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import FillerParameter


def fill(data: Tensor, filler: FillerParameter, generator: torch.Generator) -> None:
    """Fill `data` (a CPU tensor of the blob's shape) in place as `filler` says, drawing from `generator`.

    fan_in = count / shape[0]; fan_out = count / shape[1] (count, for one axis); n is one of them or their mean, by
    `variance_norm`. Raises InputError for an unknown type, or a shape the type cannot fill.
    """
    kind, data = filler.type, data if data.dim() else data.view(1)
    if filler.sparse >= 0 and kind != "gaussian":
        raise InputError(f'the filler "{kind}" cannot be sparse, only "gaussian" can')
    if kind == "constant":
        data.fill_(filler.value)
    elif kind == "uniform":
        if not filler.min <= filler.max:
            raise InputError(f"the uniform filler needs min <= max, not {filler.min:g} and {filler.max:g}")
        if not filler.max - filler.min <= torch.finfo(torch.float32).max:
            raise InputError(f"the uniform filler's {filler.min:g} to {filler.max:g} is more than a float32 can span")
        data.uniform_(filler.min, filler.max, generator=generator)
    elif kind == "gaussian":
        if not filler.std > 0:
            raise InputError(f"the gaussian filler needs a std above 0, not {filler.std:g}")
        data.normal_(filler.mean, filler.std, generator=generator)
        if filler.sparse >= 0:  # on average `sparse` inputs of each of the shape[0] outputs keep their weight
            if filler.sparse > data.shape[0] > 0:
                raise InputError(
                    f"the gaussian filler can keep {data.shape[0]} weights of an input, not {filler.sparse}"
                )
            kept = min(1.0, filler.sparse / max(1, data.shape[0]))
            data.mul_(torch.empty_like(data).bernoulli_(kept, generator=generator))
    elif kind == "xavier":  # Glorot and Bengio 2010: var = 1 / n
        bound = math.sqrt(3 / _fan(data, filler))
        data.uniform_(-bound, bound, generator=generator)
    elif kind == "msra":  # He et al. 2015: var = 2 / n
        data.normal_(0, math.sqrt(2 / _fan(data, filler)), generator=generator)
    elif kind == "positive_unitball":  # each output's weights are positive and sum to 1
        data.uniform_(generator=generator)
        rows = data.flatten(1) if data.dim() > 1 else data[:, None]
        data /= rows.sum(1).view(-1, *[1] * (data.dim() - 1))
    elif kind == "bilinear":
        _fill_bilinear(data)
    else:
        known = "bilinear, constant, gaussian, msra, positive_unitball, uniform, xavier"
        raise InputError(f'unknown filler "{kind}", known are {known}')


def _fan(data: Tensor, filler: FillerParameter) -> float:
    if not data.numel():
        return 1.0  # nothing will be drawn
    fan_in = data.numel() / data.shape[0]
    fan_out = data.numel() / data.shape[1] if data.dim() > 1 else data.numel()
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[
        filler.VarianceNorm.Name(filler.variance_norm)
    ]


def _fill_bilinear(data: Tensor) -> None:
    """Fill each kernel with the weights of bilinear interpolation: the outer product of a triangle with itself."""
    if data.dim() != 4 or data.shape[2] != data.shape[3]:
        raise InputError(f"the bilinear filler needs square 4-axis kernels, not {tuple(data.shape)}")
    size = data.shape[3]
    half = math.ceil(size / 2)
    centre = (size - 1) / (2 * half)
    triangle = 1 - (torch.arange(size, dtype=data.dtype) / half - centre).abs()
    data.copy_(triangle[:, None] * triangle)
