"""Values as tensors: of what callers give a net or a layer, and in the precision to compute in."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from imae.prototxt_like.errors import InputError


def as_tensor(value: Any, what: str) -> Tensor:
    """Return numbers of any real dtype and memory layout as a tensor, which shares their memory where torch can.

    `value` is a tensor, an array, or what numpy makes an array of. Raises InputError, calling it `what`, for anything
    but real numbers.
    """
    if isinstance(value, Tensor):
        if value.is_complex():
            raise InputError(f"{what} holds values of type {value.dtype}, expected real numbers")
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{what} is no array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} holds values of type {array.dtype}, expected real numbers")
    if not array.dtype.isnative or array.dtype.itemsize > 8 or (array.dtype.kind == "u" and array.dtype.itemsize > 1):
        array = array.astype(np.float64)  # torch lacks the type, or computes nothing in it
    if not array.flags.writeable or any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32 where its own floating-point type is shorter."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
