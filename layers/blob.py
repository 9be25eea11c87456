"""A learnable parameter of a layer."""

import math
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

Shape = tuple[int, ...]
LARGEST_COUNT = 2**31 - 1  # how many numbers a blob of Caffe's may have
_MAPPED = 2**20  # bytes from which on zeros are memory of their own


class Blob:
    """A learnable parameter: `data` and `diff` (same shape), and the multipliers of its learning rate and decay."""

    def __init__(self, data: Tensor, lr_mult: float = 1.0, decay_mult: float = 1.0) -> None:
        self.data = data
        self.diff = zeros(data.shape, data)
        self.lr_mult = lr_mult
        self.decay_mult = decay_mult
        self.forced = False  # whether its net has `force_backward`

    @property
    def wants_diff(self) -> bool:
        """Whether a backward adds to its diff: not where its rate is 0, unless that is forced."""
        return bool(self.lr_mult) or self.forced

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return tuple(self.data.shape)


def zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return zeros on the device and in the dtype of `like`; on a CPU many take memory only where they are written."""
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < _MAPPED:
        return like.new_zeros(shape)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # calloc writes zeros at times
    except OSError as error:
        raise MemoryError from error
    if sys.platform == "linux":
        with suppress(OSError):  # of a kernel built without
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=like.dtype).view(tuple(shape))
