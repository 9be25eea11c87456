"""Flat storage for learnable blobs, so that an update is a handful of kernels whatever the number of blobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from imae.layers.blob import Blob, zeros

ALIGNMENT = 64  # elements, of which blobs begin at a multiple: a GPU's kernels want addresses of whole vectors
_PART = 2**22  # values of an array that are copied at a time
TAIL = 4  # elements behind the gradients for what several processes exchange together with them


@dataclass
class Group:
    """A stretch of the storage whose elements share their multipliers."""

    data: Tensor
    diff: Tensor
    lr_mult: float
    decay_mult: float
    span: slice


class Storage:
    """Moves blobs into one flat `data` and one flat `diff` tensor, which they become views of.

    Blobs with equal multipliers lie side by side, in `groups`, with zeros between them up to the `ALIGNMENT`. Blobs of
    4 axes (convolution weights) are laid out channels last, except those in `plain`. What they hold comes along if they
    are `filled`; it is zero, and takes no memory of a CPU's, until it is written, otherwise.
    """

    def __init__(self, blobs: Sequence[Blob], plain: Sequence[Blob] = (), *, filled: bool = True) -> None:
        self._plain = {id(blob) for blob in plain}
        ordered = sorted(blobs, key=_multipliers)  # stable: blobs keep their order within a group
        self.spans: dict[int, slice] = {}
        stop = 0
        for blob in ordered:
            start = -(-stop // ALIGNMENT) * ALIGNMENT
            stop = start + blob.data.numel()
            self.spans[id(blob)] = slice(start, stop)
        like = ordered[0].data if ordered else torch.empty(0)
        self.data, self.diff_and_tail = zeros([stop], like), zeros([stop + TAIL], like)
        self.diff, self.tail = self.diff_and_tail[:stop], self.diff_and_tail[stop:]
        for blob in ordered:
            if filled:
                self.view(self.data, blob).copy_(blob.data)
            blob.data, blob.diff = self.view(self.data, blob), self.view(self.diff, blob)
        self.groups: list[Group] = []
        for (lr_mult, decay_mult), members in groupby(ordered, _multipliers):
            spans = [self.spans[id(blob)] for blob in members]
            span = slice(spans[0].start, spans[-1].stop)
            self.groups.append(Group(self.data[span], self.diff[span], lr_mult, decay_mult, span))

    def view(self, flat: Tensor, blob: Blob) -> Tensor:
        """Return the part of `flat` (a tensor laid out as `data`) that belongs to `blob`, in the blob's shape."""
        part = flat[self.spans[id(blob)]]
        if len(blob.shape) != 4 or id(blob) in self._plain:
            return part.view(blob.shape)
        n, c, h, w = blob.shape
        return part.view(n, h, w, c).permute(0, 3, 1, 2)


def _multipliers(blob: Blob) -> tuple[float, float]:
    return blob.lr_mult, blob.decay_mult


def as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array in the order of its axes: without a copy where it lies so in the host's memory."""
    return tensor.detach().cpu().contiguous().numpy()


def copy_array(tensor: Tensor, array: np.ndarray) -> None:
    """Copy an array of the tensor's shape into it, a part at a time: the array may be read only and not aligned."""
    if array.size <= _PART:
        tensor.copy_(torch.from_numpy(np.array(array)))
    elif len(array) == 1:
        copy_array(tensor[0], array[0])
    else:
        half = len(array) // 2
        copy_array(tensor[:half], array[:half])
        copy_array(tensor[half:], array[half:])
