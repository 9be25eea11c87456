"""Data-parallel training: processes with a device each take turns with the batches and average their gradients."""

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import SolverParameter
from imae.solvers.class_accuracy import counting_layers
from imae.solvers.log import Log
from imae.solvers.solver import Solver, TrainingEnded

_PATIENCE = timedelta(minutes=10)
"""For processes that are silent without having ended, such as those of a host without power."""
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
T = TypeVar("T")


class ProcessLost(TrainingEnded):
    """Another process of the training ended, or cannot be reached."""


class Processes:
    """The processes that train one net, this being number `rank` of `count`. Leave them with `leave`."""

    def __init__(self, device: torch.device) -> None:
        """Join those that torchrun (or whoever set its environment variables) started; `device` is this process's.

        Raises InputError if the variables are incomplete.
        """
        if missing := [name for name in _VARIABLES if name not in os.environ]:
            raise InputError(f"{', '.join(missing)}: not in the environment, though others of torchrun's variables are")
        from torch import distributed
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        self._distributed = distributed
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with self._noticing_loss():
            store, self.rank, self.count = next(iter(rendezvous("env://")))
            # A prefix for each start: entries from before a restart by torchrun must not be found.
            self._store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            distributed.init_process_group(
                # Small agreements go by the CPUs, as reading them from a GPU would wait for all its work.
                "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
                store=self._store,
                rank=self.rank,
                world_size=self.count,
                timeout=_PATIENCE,
            )

    def leave(self) -> None:
        """End the communication."""
        self._distributed.destroy_process_group()

    def from_first(self, value: T) -> T:
        """Return the `value` that process 0 gives."""
        values = [value]
        with self._noticing_loss():
            self._distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def copy_from_first(self, tensor: Tensor) -> None:
        """Make `tensor` in every process what it is in process 0."""
        with self._noticing_loss():
            self._distributed.broadcast(tensor, src=0)

    def begin_sum(self, tensor: Tensor) -> Any:
        """Begin to replace `tensor` by its sum over the processes; for `finish`."""
        with self._noticing_loss():
            return self._distributed.all_reduce(tensor, async_op=True)

    def finish(self, *works: Any) -> None:
        """Wait until what was begun is done (on a GPU: have its later work wait)."""
        with self._noticing_loss():
            for work in works:
                work.wait()

    def mean(self, scalar: Tensor) -> Tensor:
        """Return the mean of a scalar over the processes."""
        total = scalar.clone()
        self.finish(self.begin_sum(total))
        return total.div_(self.count)

    def meet(self) -> None:
        """Wait for the others on the CPU, where a lost process is noticed at once; a GPU would wait for minutes."""
        self.finish(self.begin_sum(torch.zeros(1)))

    def first_to_claim(self, what: str) -> bool:
        """Whether this process is the first of those left to ask for `what`, as far as can be known."""
        try:
            asked: int = self._store.add(what, 1)
        except RuntimeError:  # the place to ask at is lost as well
            return True
        return asked == 1

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = re.sub(r"^\[\S+\] ", "", str(error).partition("\n")[0]).partition(". ")[0]
            raise ProcessLost(f"another process of the training was lost ({reason})") from error


class ParallelSolver(Solver):
    """A Solver in each of several processes, which all end every iteration with the same weights.

    In iteration n process r of R reads batch n R + r: together they read what one process would with batches R times
    as large. Gradients are averaged, as by Caffe 1.0, so that one process with that batch makes the same update.
    BatchNorm normalises within a process; the running statistics of process 0 are the net's. The sum of weights that
    `normalize_by: WEIGHTS` divides by is over all processes. Test batches are shared out. Process 0 alone reads files
    of weights and states, and writes log, metrics and snapshots.

    `stop_requested` and `snapshot_requested` may be set in any process; all act on it after the same iteration.
    """

    exchanges = True

    def __init__(
        self,
        param: SolverParameter,
        processes: Processes,
        *,
        show: Callable[[str], None] = lambda line: None,
        **options: Any,
    ) -> None:
        """Build the nets, with `options` as the Solver's. To be called, as all methods, in every process."""
        self.processes = processes
        self._asked, self._agreed = [False, False], [False, False]
        if param.random_seed < 0:
            param.random_seed = processes.from_first(secrets.randbits(31))
        super().__init__(param, show=show, **options)
        self.net.context.passes.number, self.net.context.passes.stride = processes.rank, processes.count
        self.net.context.mean_over_processes = processes.mean
        self._applied: list[Any] = []

    # What the processes agree on

    @property
    def stop_requested(self) -> bool:
        """Whether to stop after this iteration: reads true once all processes know."""
        return self._agreed[0]

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self._asked[0] = value

    @property
    def snapshot_requested(self) -> bool:
        """Whether to take a snapshot after this iteration: reads true once all processes know."""
        return self._agreed[1]

    @snapshot_requested.setter
    def snapshot_requested(self, value: bool) -> None:
        self._asked[1] = value

    def _agree(self) -> None:
        requests = torch.tensor(self._asked, dtype=torch.int32)
        self.processes.finish(self.processes.begin_sum(requests))
        self._agreed = requests.bool().tolist()

    def synchronise(self) -> None:
        """Make weights, history, iteration, seed and place in the data those of process 0."""
        nets = [self.net, *self.test_nets]
        forwards = [net.context.passes.number for net in nets]
        self.iteration, self.seed, forwards = self.processes.from_first((self.iteration, self.seed, forwards))
        for net, first in zip(nets, forwards, strict=True):
            net.reseed(self.seed, first)
        self.net.context.passes.number += self.processes.rank
        for tensor in (self.net.storage.data, *self.update.histories, *self._states()):
            self.processes.copy_from_first(tensor)

    # Training

    def solve(self, resume: str | Path | None = None) -> None:
        """As Solver's, from the solverstate that process 0 is given, if it is.

        Raises ProcessLost when another process ends: one of those left has then taken a snapshot, unless there is no
        prefix, after the last iteration that all of them completed.
        """
        super().solve(self.processes.from_first(resume))

    def restore(self, path: str | Path) -> None:
        """As Solver's; the file is read by process 0."""
        if self.processes.rank == 0:
            super().restore(path)
        self.synchronise()

    def step(self, iterations: int) -> None:
        """As Solver's."""
        self.synchronise()
        try:
            super().step(iterations)
        except ProcessLost as lost:
            self._take_last_snapshot(lost)
            raise

    def _take_last_snapshot(self, ended: TrainingEnded) -> None:
        """As Solver's, in the first process that ends."""
        claimed = self.processes.first_to_claim("last snapshot")
        ended.speaks = claimed or not isinstance(ended, ProcessLost)
        if claimed and self.prefix and self._update_is_whole():
            self.net.context.passes.number -= self.processes.rank
            with contextlib.suppress(InputError):
                if super()._are_finite():
                    ended.state = super()._write_snapshot()

    def forward_backward(self, rate: float) -> Tensor:
        """As Solver's; the gradients and the loss are the means over the processes.

        One all-reduce sums them, and with them the requests to stop and for a snapshot, so that all processes know of
        these after the same iteration.
        """
        loss, storage = super().forward_backward(rate), self.net.storage
        if self.device.type == "cuda":
            self.processes.meet()
        storage.tail[0].copy_(loss)
        storage.tail[1:3].copy_(torch.tensor(self._asked))
        work = self.processes.begin_sum(storage.diff_and_tail)
        self.processes.finish(work)
        self._applied = [work]
        storage.diff_and_tail.mul_(1 / self.processes.count)
        self._agreed = storage.tail[1:3].bool().tolist()
        return storage.tail[0].clone()

    def _obstacles(self) -> list[str]:
        hindering = super()._obstacles()
        for step in self.net.steps:
            if getattr(step.layer, "by_weights", False):
                hindering.append(f'layer "{step.layer.name}" sums its weights over the processes')
        return hindering

    def _mean_loss(self, loss: Tensor) -> Tensor:
        return self.processes.mean(loss)

    # Testing

    def _sum_outputs(self, number: int, batches: int) -> tuple[dict[str, Tensor], Tensor]:
        """As Solver's, by all processes: each runs its share of the batches with the statistics of process 0."""
        for statistics in self._running:
            self.processes.copy_from_first(statistics)
        net = self.test_nets[number]
        rank, count, context = self.processes.rank, self.processes.count, net.context
        first = context.passes.number
        context.passes.number, context.passes.stride = first + rank, count
        sums, losses = super()._sum_outputs(number, len(range(rank, batches, count)))
        context.passes.number, context.passes.stride = first, 1
        counts = [layer.state[0] for layer in counting_layers(net).values()]
        self.processes.finish(*(self.processes.begin_sum(total) for total in (*sums.values(), losses, *counts)))
        self._agree()
        context.passes.number = first + batches
        return sums, losses

    def _interrupts_test(self) -> bool:
        return self._asked[0]

    # Files

    def _write_snapshot(self) -> Path:
        """As Solver's, by process 0."""
        return super()._write_snapshot() if self.processes.rank == 0 else self.state_path

    def _are_finite(self) -> bool:
        """As Solver's, in process 0, whose weights and statistics a snapshot has."""
        return self.processes.from_first(super()._are_finite())

    def _update_is_whole(self, patience: float = 5.0) -> bool:
        """Whether the all-reduce of the last update is complete, within `patience` seconds: on a GPU it may hang."""
        until = time.monotonic() + patience
        while not all(work.is_completed() for work in self._applied):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def _open_log(self, show: Callable[[str], None], folder: str | Path) -> None:
        if self.processes.rank == 0:
            super()._open_log(show, folder)
        else:
            self.prefix, self.log = self.param.snapshot_prefix, Log()
            self.log.speaks = False
