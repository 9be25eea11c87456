"""The process of a sweep that trains one cell.

    python -m imae.experiments.train_cell SWEEP CELL

They are a `Sweep` and a `Cell` as JSON. Standard output has the iterations, standard error the reason of a failure.
"""

import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from imae import __version__
from imae.experiments.cell import METRICS, About, Cell, Divergence, Result, cell_solver, read_measured
from imae.experiments.saved import parse_saved
from imae.experiments.sweep import Sweep
from imae.experiments.training_accuracy import training_accuracy
from imae.nets.memory import keep_freed_memory
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.solvers.divergence import Diverged
from imae.solvers.solver import Solver

TRAINING_TESTS = 32  # tests on the training set in a cell's training, at most
_REPORT_EVERY = 0.25  # seconds between two messages on how far it is


def train_cell(sweep: Sweep, cell: Cell) -> None:
    """Train a cell of a sweep from its newest snapshot, and write its result.

    Raises Diverged, after writing why.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(sweep.threads)
    keep_freed_memory()
    schedule, folder = sweep.schedule, sweep.folder(cell)
    clock = _Clock(folder / "seconds.txt")
    training_interval = schedule.test_interval * -(-schedule.iterations // (schedule.test_interval * TRAINING_TESTS))

    class CellSolver(Solver):
        def snapshot(self) -> Path:
            """Write a snapshot; only then delete the one before."""
            clock.save()
            path = super().snapshot()
            for other in folder.glob("cell_iter_*"):
                if not other.name.startswith(f"{path.stem}."):
                    other.unlink()
            return path

        def test_all(self) -> list[dict[str, float]]:
            """Now and then, and at the end, test on the training set too."""
            tested = super().test_all()
            due = (self.iteration and not self.iteration % training_interval) or self.iteration == schedule.iterations
            if due and not self.stop_requested:
                training = training_accuracy(self)
                self.log.metrics(iteration=self.iteration, phase="training set", **asdict(training))
            return tested

    labels = str(sweep.labels_file(cell.labels).resolve()) if cell.labels else None
    param = cell_solver(cell, schedule, folder, str(sweep.data.resolve()), labels)
    solver = CellSolver(param, device=sweep.device, dtype=getattr(torch, sweep.dtype), tf32=sweep.tf32)
    reported = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal reported
        if what == "train" and (time.monotonic() > reported + _REPORT_EVERY or done == total):
            reported = time.monotonic()
            print(done, flush=True)

    solver.on_progress = report
    signal.signal(signal.SIGTERM, lambda *_: setattr(solver, "stop_requested", True))
    states = sorted(folder.glob("cell_iter_*.solverstate"), key=lambda path: (len(path.stem), path.stem))
    try:
        solver.solve(resume=states[-1] if states else None)
        if schedule.iterations % schedule.test_interval:
            solver.test_all()  # which solve does at its end otherwise
    except Diverged as error:
        write_atomically(folder / "diverged.json", json.dumps(asdict(Divergence(cell, str(error))), indent=1).encode())
        raise
    if solver.stop_requested:
        return
    tests = read_measured(folder / METRICS, "accuracy")
    corrupted, intact = read_measured(folder / METRICS, "corrupted"), read_measured(folder / METRICS, "intact")
    held_out = training_accuracy(solver, held_out=cell.held_out) if cell.held_out else None
    packages = {package: version(package) for package in ("torch", "numpy")}
    about = About(
        round(clock.seconds(), 1),
        torch.cuda.get_device_name(solver.device) if solver.device.type == "cuda" else _processor(),
        torch.get_num_threads(),
        {"python": platform.python_version(), "imae": __version__, **packages},
    )
    result = Result(
        cell,
        list(tests),
        list(tests.values()),
        list(corrupted.values())[-1],
        list(intact.values())[-1],
        about,
        held_out.corrupted if held_out else None,
        held_out.intact if held_out else None,
    )
    write_atomically(folder / "result.json", json.dumps(asdict(result), indent=1).encode())
    for left in (*folder.glob("cell_iter_*.solverstate"), folder / "seconds.txt"):
        left.unlink(missing_ok=True)


class _Clock:
    """The seconds that went into a cell up to its newest snapshot, over all processes that worked on it, and since."""

    def __init__(self, path: Path) -> None:
        self._path, self._since = path, time.monotonic()
        try:
            self._before = float(read_bytes(path)) if path.exists() else 0.0
        except ValueError as error:
            raise InputError(f"{path}: does not hold seconds; delete it") from error

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def save(self) -> None:
        write_atomically(self._path, f"{self.seconds():.1f}".encode())


def _end_with_parent() -> None:
    """End at once when the sweep's process has ended, as that may have been killed: another may go on in its place."""
    sys.stdin.read()
    os._exit(1)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    try:
        train_cell(parse_saved(Sweep, sys.argv[1]), parse_saved(Cell, sys.argv[2]))
    except InputError as error:
        sys.exit(" ".join(str(error).split()))
