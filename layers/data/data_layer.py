"""What all data layers share: batches by number, prepared in the background while the net computes."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from threading import Barrier
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.layer import Context, Layer, Saved, Tensors
from imae.layers.random_streams import random_below
from imae.layers.waiting import quota_of_cores
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.schema import LayerParameter


class DataError(InputError):
    """Data that a pass needs cannot be read."""


class DataLayer(Layer):
    """A layer without bottoms whose tops are `batch(context.passes.number)`.

    A batch is a function of its number and the net's seed alone, so training that resumes at iteration n sees what an
    uninterrupted run would have seen. A subclass writes `setup` and `batch`.
    """

    bottoms = (0, 0)
    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    index_tops = frozenset({1, 2})
    label_noise = ""  # after `setup`, in words: what noise its labels have, how many differ from the intact ones
    left_out = ""  # after `setup`, in words: how much of its data it leaves out as broken, if it looks for that

    def __init__(self, param: LayerParameter, context: Context | None = None) -> None:
        super().__init__(param, context)
        self._worker = workers(1, f"prefetch {self.name}")
        self._ahead: dict[tuple[int, int], Future[list[Tensor]]] = {}

    def batch(self, number: int) -> list[Tensor]:
        """Return the tops of forward pass `number` (from 0), on the net's device. Runs on the worker thread."""
        raise NotImplementedError

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return batch `context.passes.number`, and have the next one prepared meanwhile.

        Raises DataError if the batch cannot be read.
        """
        seed, number = self.context.passes.seed, self.context.passes.number
        following = number + self.context.passes.stride
        ready = self._ahead.pop((seed, number), None) or self._worker.submit(self._prepare, number)
        self._ahead = {(seed, following): self._worker.submit(self._prepare, following)}
        try:
            tops = ready.result()
        except InputError as error:
            raise DataError(str(error)) from error
        if self.context.device.type == "cuda":
            for top in tops:
                top.record_stream(torch.cuda.current_stream(self.context.device))
        return tops

    @property
    def num_images(self) -> int:
        """How many images, records or rows an epoch has; 0 where there are no epochs."""
        return 0

    def settings(self, field: str, source: str = "") -> Any:
        """Return its message `field`; raises InputError without a batch size or, where that is said, its `source`."""
        own = getattr(self.param, field)
        if source and not own.source:
            raise self.error(f"{field} needs source, {source}")
        if own.batch_size < 1:
            raise self.error(f"{field} needs a batch_size of at least 1")
        return own

    def skipped(self, rand_skip: int) -> int:
        """Return how many of the first elements `rand_skip` leaves out: by the net's seed, fewer than so many."""
        if not rand_skip:
            return 0
        once = torch.zeros((), dtype=torch.int64)
        return int(random_below(rand_skip, self.context.passes.seed, f"{self.name} rand_skip", once))

    def sound(
        self, readers: ThreadPoolExecutor, count: int, read: Callable[[int], object], where: Callable[[int], str]
    ) -> NDArray[np.int64]:
        """Return which of `count` images can be read, ascending, and keep in words how many are `left_out`.

        `where` names an image in these. Raises the InputError of the first if all are broken.
        """

        def is_sound(number: int) -> bool:
            try:
                read(number)
            except InputError:
                return False
            return True

        sound = np.array(list(readers.map(is_sound, range(count))))
        if not sound.any():
            read(0)  # says what is wrong with it
        if broken := np.count_nonzero(~sound):
            first, of = where(int(sound.argmin())), counted(count, "image")
            self.left_out = f"{broken} of {of} cannot be read and are left out, the first at {first}"
        else:
            self.left_out = f"all of {counted(count, 'image')} can be read"
        return np.flatnonzero(sound)

    def _prepare(self, number: int) -> list[Tensor]:
        """Return batch `number`, complete; on a GPU by a stream of its own, whose copies do not wait for the net."""
        if self.context.device.type != "cuda":
            return self.batch(number)
        with torch.cuda.stream(self._stream):
            tops = self.batch(number)
        self._stream.synchronize()
        return tops

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.context.device)  # type: ignore[no-untyped-call]


def data_lines(*nets: Iterable[Layer]) -> list[str]:
    """Return lines for the log, each once, on the layers of `nets` whose labels have noise or whose data has gaps."""
    layers = (layer for net in nets for layer in net if isinstance(layer, DataLayer))
    remarks = ((layer.name, remark) for layer in layers for remark in (layer.left_out, layer.label_noise) if remark)
    return list(dict.fromkeys(f'Layer "{name}": {remark}' for name, remark in remarks))


def workers(count: int, name: str) -> ThreadPoolExecutor:
    """Return `count` threads, called `name`, on each of which torch computes on that thread alone."""
    threads, all_started = torch.get_num_threads(), Barrier(count)
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    for started in [pool.submit(_use_one_thread, all_started) for _ in range(count)]:
        started.result()
    torch.set_num_threads(threads)
    return pool


def readers(name: str, count: int | None = None) -> ThreadPoolExecutor:
    """Return `count` `workers`, or as many as keep the cores busy that this process may use."""
    return workers(count or reader_count(), name)


def reader_count() -> int:
    """Return how many `readers` there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(cores, quota_of_cores() or cores))


def _use_one_thread(all_started: Barrier) -> int:
    """Have torch compute on the calling thread alone.

    With a team of its own there would be more threads than processors, and OpenMP would then put the net's threads to
    sleep after every operation. A thread adopts the process's setting when it first uses it: the second call.
    """
    all_started.wait()
    torch.set_num_threads(1)
    return torch.get_num_threads()
