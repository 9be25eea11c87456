"""Trains many nets, one process each, with all state on disk: a sweep that was killed goes on where it was."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from imae.experiments.cell import CLASSES, Cell, Divergence, Result
from imae.experiments.paper import Schedule
from imae.experiments.saved import read_saved
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically

if TYPE_CHECKING:
    from imae.layers.data.label_noise import Labels

_FIRST_ARITHMETIC = {"dtype": "float32", "tf32": False}  # of the sweeps whose settings do not say
_LOCK_PATIENCE = 10.0  # seconds in which the processes of a killed sweep will have ended

Progress = Callable[[str, int, bool], None]
"""Called, on any thread, with the name of a cell that runs, its iteration, and whether it is done."""


@dataclass(frozen=True)
class Sweep:
    """A folder of cells that are trained alike.

    On a CPU the number of `threads` of each cell is part of the settings because sums are rounded in an order that
    depends on it. How many cells run at a time is not: each is a process of its own.
    """

    output: Path
    data: Path
    schedule: Schedule
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"  # of the values in the nets, by torch's name
    tf32: bool = False  # whether a GPU may form float32 products from rounded factors

    def folder(self, cell: Cell) -> Path:
        """Where the cell's files are."""
        return self.output / "cells" / cell.name

    def labels_file(self, name: str) -> Path:
        """Where the labels of this name are kept."""
        return self.output / "labels" / f"{name}.npy"

    def result(self, cell: Cell) -> Result | None:
        """Return the cell's result, or None while it has none. Raises InputError if the file is damaged."""
        path = self.folder(cell) / "result.json"
        if not path.exists():
            return None
        result = read_saved(path, Result, "result of a cell")
        if result.cell != cell:
            raise InputError(f"{path}: is the result of {result.cell.name}; delete it to train the cell again")
        if result.iterations[:1] == [0] and result.test[:1] == [0]:
            # An older one's test before BatchNorm had statistics.
            return replace(result, iterations=result.iterations[1:], test=result.test[1:])
        return result

    def divergence(self, cell: Cell) -> Divergence | None:
        """Return how the cell diverged, or None if it did not. Raises InputError if the file is damaged."""
        path = self.folder(cell) / "diverged.json"
        return read_saved(path, Divergence, "divergence of a cell") if path.exists() else None

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell has a result, or diverged: training it again would end the same."""
        return self.result(cell) is not None or self.divergence(cell) is not None


def run_sweep(
    sweep: Sweep,
    cells: Sequence[Cell],
    *,
    jobs: int,
    command: str,
    progress: Progress,
    so_far: Callable[[list[Result]], object] = lambda _: None,
    labels: "Mapping[str, Labels] | None" = None,
) -> list[Result]:
    """Train the cells that are not done yet, `jobs` at a time, and return all results, in the order of `cells`.

    A cell that diverges has none, and hinders no other: `sweep.divergence` tells of it.

    `so_far` is called with the results that there are whenever a cell is done and others are not. `labels` are those
    that cells name, of all training images; the folder keeps them. `command` is noted as one that made the results.
    KeyboardInterrupt, and the failure of a cell, let the running cells take a snapshot before they
    end. Raises InputError if the data is missing, too many images are held out, the folder belongs to a sweep with
    other settings or labels or another process is at work in it, or a cell fails.
    """
    settings = _settings(sweep)
    _check_held_out(sweep, cells, settings["training_images"])
    with _locked(sweep.output) as lock:
        _check_settings(sweep.output, settings)
        for name, values in (labels or {}).items():
            _keep_labels(sweep, name, values)
        _note_command(sweep.output, command)
        todo = [cell for cell in cells if not sweep.is_done(cell)]
        processes = _Processes(sweep, lock, progress)
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(processes.run, cell) for cell in todo]
            try:
                for future in as_completed(futures):
                    future.result()
                    if not all(map(sweep.is_done, cells)):
                        so_far(_results(sweep, cells))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                processes.stop()
                raise
    return _results(sweep, cells)


def commands(output: Path) -> list[str]:
    """Return the different commands that made what is in a sweep's folder."""
    path = output / "commands.txt"
    return read_bytes(path).decode(errors="replace").splitlines() if path.exists() else []


@contextlib.contextmanager
def _locked(output: Path) -> Iterator[int]:
    """Hold the folder's lock, and give its descriptor: it is held until the last process that has it ends."""
    try:
        (output / "cells").mkdir(parents=True, exist_ok=True)
        file = (output / "lock").open("w")
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from error
    with file:
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise InputError(f"{output}: another process works in this folder") from error
                time.sleep(0.1)
        yield file.fileno()


def _results(sweep: Sweep, cells: Sequence[Cell]) -> list[Result]:
    return [result for result in map(sweep.result, cells) if result]


def _settings(sweep: Sweep) -> dict[str, Any]:
    """What all cells in a folder have in common; reads the data."""
    from imae.layers.data.cifar10_data import load_cifar10

    train, test = (load_cifar10(sweep.data, train)[1] for train in (True, False))
    if sweep.schedule.subset > len(train):
        raise InputError(f"subset {sweep.schedule.subset}: {sweep.data} has only {len(train)} training images")
    return {
        **asdict(sweep.schedule),
        "device": sweep.device.partition(":")[0],
        "threads": sweep.threads,
        "dtype": sweep.dtype,
        "tf32": sweep.tf32,
        "training_images": len(train),
        "test_images": len(test),
        "labels_crc32": zlib.crc32(train.numpy().tobytes() + test.numpy().tobytes()),
    }


def _check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Write the settings to the sweep's folder or, where there are some, compare."""
    path = output / "sweep.json"
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=1).encode())
        return
    try:
        written = {**_FIRST_ARITHMETIC, **json.loads(read_bytes(path))}
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: does not hold the settings of a sweep: {error}") from error
    if different := [name for name in settings if written.get(name) != settings[name]]:
        was, now = (", ".join(f"{name} {values.get(name)}" for name in different) for values in (written, settings))
        raise InputError(f"{output}: holds a sweep with {was}, not {now}; give another --output")


def _check_held_out(sweep: Sweep, cells: Sequence[Cell], training_images: int) -> None:
    held_out = max((cell.held_out for cell in cells), default=0)
    used = sweep.schedule.subset or 1
    if held_out + used > training_images:
        raise InputError(
            f"{held_out} images held out: {sweep.data} has {training_images} training images, "
            f"of which the first {used} are trained on"
        )


def _keep_labels(sweep: Sweep, name: str, labels: "Labels") -> None:
    """Write the labels to the sweep's folder or, where it has some of the name, compare."""
    import numpy as np

    from imae.layers.data.label_noise import load_labels, save_labels

    path = sweep.labels_file(name)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        save_labels(path, labels)
    elif not np.array_equal(load_labels(path, len(labels), CLASSES), labels):
        raise InputError(f'{sweep.output}: holds other labels of the name "{name}"; give another --output')


def _note_command(output: Path, command: str) -> None:
    known = commands(output)
    if command not in known:
        write_atomically(output / "commands.txt", "".join(f"{line}\n" for line in [*known, command]).encode())


class _Processes:
    """The cells that run."""

    def __init__(self, sweep: Sweep, lock: int, progress: Progress) -> None:
        self._sweep, self._lock, self._progress = sweep, lock, progress
        self._running: set[subprocess.Popen[str]] = set()
        self._stopping = False
        self._guard = threading.Lock()

    def run(self, cell: Cell) -> None:
        """Train a cell to its end; called on a thread of its own."""
        folder = self._sweep.folder(cell)
        folder.mkdir(exist_ok=True)
        errors = folder / "errors.txt"
        with errors.open("w") as stderr:
            process = self._start(cell, stderr)
            if process is None:
                return
            assert process.stdout
            for line in process.stdout:
                self._progress(cell.name, int(line), False)
            status = process.wait()
        with self._guard:
            self._running.discard(process)
        if self._stopping:
            return
        if (status or self._sweep.result(cell) is None) and self._sweep.divergence(cell) is None:
            lines = errors.read_text(errors="replace").splitlines() or [f"ended with status {status}"]
            raise InputError(f"{cell.name}: {lines[-1]} (more in {errors})")
        errors.unlink()
        self._progress(cell.name, self._sweep.schedule.iterations, True)

    def stop(self) -> None:
        """Have the processes take a snapshot and end."""
        with self._guard:
            self._stopping = True
            for process in self._running:
                process.terminate()

    def _start(self, cell: Cell, stderr: IO[str]) -> subprocess.Popen[str] | None:
        threads = {name: str(self._sweep.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        arguments = (json.dumps(asdict(each), default=str) for each in (self._sweep, cell))
        with self._guard:
            if self._stopping:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "imae.experiments.train_cell", *arguments],
                stdin=subprocess.PIPE,  # whose end tells it that this process was killed
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **threads},
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C is for this process, which then asks that one to stop
            )
            self._running.add(process)
        return process
