"""A learnable parameter of a layer."""

import torch
from torch import Tensor

Shape = tuple[int, ...]
LARGEST_COUNT = 2**31 - 1  # how many numbers a blob of Caffe's may have


class Blob:
    """A learnable parameter: `data` and `diff` (same shape), and the multipliers of its learning rate and decay."""

    def __init__(self, data: Tensor, lr_mult: float = 1.0, decay_mult: float = 1.0) -> None:
        self.data = data
        self.diff = torch.zeros_like(data)
        self.lr_mult = lr_mult
        self.decay_mult = decay_mult

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return tuple(self.data.shape)
