"""A net's blobs by name: what its passes computed, in buffers that keep their addresses and can be written."""

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor

from imae.layers.layer import Shape
from imae.prototxt_like.errors import InputError


class NamedBlobs(Mapping[str, Tensor]):
    """The values (or the gradients) of a net's blobs: one buffer a name, made when it is first asked for.

    A buffer is a contiguous float32 tensor on the CPU (float64 in a net of float64). It keeps its address until its
    blob is reshaped: every pass refreshes it, and a pass that starts in the middle reads it. Before the first pass it
    is zero.
    """

    def __init__(
        self,
        names: Collection[str],
        why_not: Callable[[str], str],
        shape_of: Callable[[str], Shape],
        dtype: torch.dtype,
        *,
        gradients: bool = False,
    ) -> None:
        """`names` are all there are; `why_not` says why one is not available, and is empty where it is.

        Of `gradients` only those are present, and iterated over, that a pass computed or somebody asked for.
        """
        self._names, self._why_not, self._shape_of, self._gradients = names, why_not, shape_of, gradients
        self._dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._buffers: dict[str, Tensor] = {}
        self._latest: dict[str, Tensor] = {}  # of the last pass, not copied to a buffer, as nobody has asked for them

    def __getitem__(self, name: str) -> Tensor:
        """Return the buffer of blob `name`; raises InputError for one that does not exist or is not kept."""
        if reason := self._why_not(name):
            raise InputError(reason)
        buffer, shape = self._buffers.get(name), self._shape_of(name)
        if name in self._latest:
            shape = tuple(self._latest[name].shape)
        if buffer is None or tuple(buffer.shape) != shape:
            buffer = self._buffers[name] = torch.zeros(shape, dtype=self._dtype)
        if name in self._latest:
            buffer.copy_(self._latest.pop(name))
        return buffer

    def __contains__(self, name: object) -> bool:
        there = isinstance(name, str) and not self._why_not(name)
        return there and (not self._gradients or name in self._latest or name in self._buffers)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Take the values that a pass computed."""
        self._latest.update(values)
        for name in self._buffers.keys() & values.keys():
            if self._buffers[name].shape == values[name].shape:
                self._buffers[name].copy_(self._latest.pop(name))

    def current(self, name: str) -> Tensor:
        """Return the value of `name`, on whatever device and in whatever dtype it is; never write to it."""
        return self._latest[name] if name in self._latest else self[name]

    def written(self) -> Mapping[str, Tensor]:
        """Return the buffers that were handed out, which may have been written."""
        return self._buffers
