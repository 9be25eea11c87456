"""The features of images by a backbone, kept on disk as they are made, so that nothing is made twice."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imae.audit.backbones import BATCH, Backbone
from imae.audit.image_arrays import ImageArrays, fingerprint
from imae.audit.samples import Samples
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.prototxt_like.number_file import map_numbers, new_map

_log = logging.getLogger(__name__)
KEPT_EVERY = 8
"""Batches after which what was done is noted."""


class BackboneFeatures:
    """A table of N x D float32 in `folder`, with a note of how far it is.

    It is filled in a random order: what an audit that was interrupted leaves is of a random part of the images.
    """

    def __init__(self, folder: Path, samples: Samples, backbone: Backbone, *, seed: int = 0) -> None:
        self._folder, self._samples, self._backbone = folder, samples, backbone
        self._order = np.random.Generator(np.random.PCG64(seed)).permutation(len(samples))
        self._fingerprint = f"{backbone.fingerprint} {fingerprint(samples)} {seed}"
        self._path, self._note = folder / "features.npy", folder / "features.json"
        self.done, self.unreadable = self._kept()

    def _kept(self) -> tuple[int, dict[int, str]]:
        """How many are done and which are unreadable, by the note; none where there is no sound one of this audit."""
        try:
            note = json.loads(read_bytes(self._note))
            done, shape = int(note["done"]), map_numbers(self._path).shape
            unreadable = {int(index): str(why) for index, why in note["unreadable"].items()}
        except (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return 0, {}
        if note["fingerprint"] != self._fingerprint:
            _log.warning("%s: is of other images or another backbone: all are read anew", self._path)
            return 0, {}
        sound = len(shape) == 2 and shape[0] == len(self._samples) >= done >= 0
        return (done, unreadable) if sound else (0, {})

    def fill(self, images: ImageArrays, on_progress: Callable[[int, int], None]) -> None:
        """Compute the rows that are missing; interrupted, those that are done stay."""
        table: NDArray[np.float32] | None = None
        try:
            for start in range(self.done, len(self._order), BATCH):
                chosen = self._order[start : start + BATCH]
                pixels, failed = images.read(chosen.tolist(), self._backbone.size)
                features = self._backbone(pixels)
                if table is None:
                    table = self._open(features.shape[1])
                table[chosen] = features
                self.unreadable |= {int(chosen[i]): why for i, why in failed.items()}
                self.done = start + len(chosen)
                on_progress(self.done, len(self._order))
                if start // BATCH % KEPT_EVERY == KEPT_EVERY - 1:
                    self._keep(table)
        finally:
            if table is not None:
                self._keep(table)

    def _open(self, width: int) -> NDArray[np.float32]:
        shape = (len(self._samples), width)
        if not self.done:
            return new_map(self._path, shape, np.dtype(np.float32))
        table: NDArray[np.float32] = np.lib.format.open_memmap(self._path, mode="r+")
        if table.shape != shape or table.dtype != np.float32:
            raise InputError(f"{self._path}: has {table.dtype} of shape {table.shape}, expected {shape}: remove it")
        return table

    def found(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return which samples have features, in order, and these (a map of the file)."""
        readable = np.array([i for i in np.sort(self._order[: self.done]) if i not in self.unreadable], np.int64)
        return readable, np.load(self._path, mmap_mode="r")

    def _keep(self, table: NDArray[np.float32]) -> None:
        table.flush()  # type: ignore[attr-defined]
        unreadable = {str(index): why for index, why in self.unreadable.items()}
        note = {"fingerprint": self._fingerprint, "done": self.done, "unreadable": unreadable}
        write_atomically(self._note, json.dumps(note).encode(errors="replace"))
