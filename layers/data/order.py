"""The order in which a data layer gives its elements: as they stand, or in a new permutation each epoch."""

import functools

import torch
from torch import Tensor

from imae.layers.random_streams import permutation


def in_epochs(position: Tensor, count: int, seed: int, stream: str | None) -> Tensor:
    """Return which of `count` elements stands at `position` (int64, ascending) in a sequence of all, over and over.

    Without `stream` they come as they stand, with it in a permutation of its own in each epoch.
    """
    epochs, index = position // count, position % count
    if stream is None:
        return index
    touched = range(int(epochs[0]), int(epochs[-1]) + 1)
    return torch.cat([order_of(count, seed, stream, epoch)[index[epochs == epoch]] for epoch in touched])


@functools.lru_cache(maxsize=8)
def order_of(count: int, seed: int, stream: str, epoch: int) -> Tensor:
    """Return the permutation of an epoch (int64), not to be changed."""
    return permutation(count, seed, stream, epoch)
