"""What all losses are."""

from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.layer import Kept, Layer, Shapes, describe


class Loss(Layer):
    """A scalar of a batch of predictions (bottom 0) and what they should be (bottom 1), with a loss weight of 1.

    Computed in float32, or in float64 where the bottom is. What backward reads is saved by forward in that precision.
    """

    bottoms = (2, 2)
    is_loss = True
    capturable = True
    kept = Kept()
    predictions: ClassVar[int] = 1
    """How many of its bottoms, the first ones, predict."""

    def check_batch(self, bottoms: Shapes) -> int:
        """Return the size of the batch; raises InputError unless the first two bottoms have one, and the same."""
        first, second = bottoms[:2]
        if not first or not second or first[0] != second[0]:
            raise self.error(f"needs bottoms of the same batch size, found {describe(first)} and {describe(second)}")
        return first[0]

    def check_count(self, bottoms: Shapes) -> int:
        """The same, and that they have as many values."""
        batch = self.check_batch(bottoms)
        if torch.Size(bottoms[0]).numel() != torch.Size(bottoms[1]).numel():
            raise self.error(f"needs bottoms of one size, found {describe(bottoms[0])} and {describe(bottoms[1])}")
        return batch


_COMPUTED_IN = (torch.float32, torch.float64)


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in the precision that losses compute in."""
    return x if x.dtype in _COMPUTED_IN else x.float()
