"""Trains many nets, one process each, with all state on disk: a sweep that was killed goes on where it was.

    python -m imae.experiments.sweep JOB

is one of the processes; it trains the cell that JOB, as JSON, describes.
"""

import contextlib
import fcntl
import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from imae.experiments.best_and_final import BestAndFinal
from imae.experiments.paper import Schedule
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically

if TYPE_CHECKING:
    from imae.layers.data.label_noise import Labels
    from imae.prototxt_like.schema import SolverParameter

SNAPSHOTS = 20
"""Snapshots in a cell's training: a kill costs at most this share of it."""
TRAINING_TESTS = 32
"""Tests on the training set in a cell's training, at most."""
CLASSES = 10
"""Of CIFAR-10."""
_FIRST_ARITHMETIC = {"dtype": "float32", "tf32": False}
"""Of the sweeps whose settings do not say."""
_REPORT_EVERY = 0.25
"""Seconds between two messages of a cell's process on how far it is."""
_LOCK_PATIENCE = 10.0
"""Seconds in which the processes of a killed sweep will have ended."""

Progress = Callable[[str, int, bool], None]
"""Called, on any thread, with the name of a cell that runs, its iteration, and whether it has its result."""


@dataclass(frozen=True)
class Cell:
    """One training: ResNet-`depth` on labels of which `noise` percent are drawn anew, with `loss` (CCE, ...)."""

    depth: int
    noise: int
    loss: str
    seed: int
    T: float | None = None
    """IMAE's, where it is not the paper's, 0.5 for noise 0 and else 8."""
    q: float | None = None
    """GCE's, where it is not 0.7."""
    labels: str = ""
    """The labels trained on, by their name among the sweep's; with them `noise` is 0."""
    held_out: int = 0
    """How many of the training images, the last, are for validation and not trained on."""

    @property
    def name(self) -> str:
        """The cell's folder."""
        parts = [
            self.task,
            self.loss.lower(),
            "" if self.T is None else f"T{self.T:.15g}",
            "" if self.q is None else f"q{self.q:.15g}",
            f"heldout{self.held_out}" if self.held_out else "",
            f"seed{self.seed}",
        ]
        return "_".join(filter(None, parts))

    @property
    def task(self) -> str:
        """The net and the labels it is trained on."""
        return f"resnet{self.depth}_" + (f"labels-{self.labels}" if self.labels else f"noise{self.noise}")

    @property
    def solver(self) -> str:
        """The example solver it is trained by."""
        return f"resnet{self.depth}_{self.loss.lower()}_noise{self.noise}_solver.prototxt"


@dataclass(frozen=True)
class Result(BestAndFinal):
    """What a cell came to: accuracies as fractions, on the test set by iteration, on the training set at the end."""

    cell: Cell
    iterations: list[int]
    test: list[float]
    corrupted: float
    intact: float
    about: dict[str, Any] = field(compare=False)
    """Not the result: seconds, device and versions. Two runs of a cell agree in all the rest."""
    held_out_noisy: float | None = None
    """Accuracy on the images held out, by labels with the same noise as those trained on."""
    held_out_intact: float | None = None
    """The same by the intact labels."""


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
    dtype: str = "float32"
    """Of the values in the nets, by torch's name."""
    tf32: bool = False
    """Whether a GPU may form float32 products from rounded factors."""

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
        try:
            values = json.loads(read_bytes(path))
            return Result(**{**values, "cell": Cell(**values["cell"])})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: is no result of a cell; delete it to train the cell again") from error


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
    """Train the cells that have no result yet, `jobs` at a time, and return all results, in the order of `cells`.

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
        todo = [cell for cell in cells if sweep.result(cell) is None]
        processes = _Processes(sweep, lock, progress)
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(processes.run, cell) for cell in todo]
            try:
                for future in as_completed(futures):
                    future.result()
                    results = _results(sweep, cells)
                    if len(results) < len(cells):
                        so_far(results)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                processes.stop()
                raise
    return _results(sweep, cells)


def commands(output: Path) -> list[str]:
    """Return the different commands that made what is in a sweep's folder."""
    path = output / "commands.txt"
    return read_bytes(path).decode().splitlines() if path.exists() else []


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
    except (ValueError, TypeError) as error:
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
        if status or self._sweep.result(cell) is None:
            lines = errors.read_text().splitlines() or [f"ended with status {status}"]
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
        sweep = self._sweep
        job = {
            "cell": asdict(cell),
            "schedule": asdict(sweep.schedule),
            "folder": str(sweep.folder(cell)),
            "data": str(sweep.data.resolve()),
            "labels": str(sweep.labels_file(cell.labels).resolve()) if cell.labels else None,
            "device": sweep.device,
            "threads": sweep.threads,
            "dtype": sweep.dtype,
            "tf32": sweep.tf32,
        }
        threads = {name: str(sweep.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with self._guard:
            if self._stopping:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "imae.experiments.sweep", json.dumps(job)],
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


def main(job: dict[str, Any]) -> None:
    """Train the cell of a job from its newest snapshot, and write its result."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Here, not above: the sweep's own process, and the shell's completion, must start fast.
    import torch

    from imae.experiments.training_accuracy import training_accuracy
    from imae.nets.memory import keep_freed_memory
    from imae.solvers.log import read_metrics
    from imae.solvers.solver import Solver

    torch.set_num_threads(job["threads"])
    keep_freed_memory()
    cell, schedule = Cell(**job["cell"]), Schedule(**job["schedule"])
    folder, data = Path(job["folder"]), Path(job["data"])
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

    param = _solver_param(cell, schedule, folder, data, job["labels"])
    solver = CellSolver(param, device=job["device"], dtype=getattr(torch, job["dtype"]), tf32=job["tf32"])
    reported = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal reported
        if what == "train" and (time.monotonic() > reported + _REPORT_EVERY or done == total):
            reported = time.monotonic()
            print(done, flush=True)

    solver.on_progress = report
    signal.signal(signal.SIGTERM, lambda *_: setattr(solver, "stop_requested", True))
    states = sorted(folder.glob("cell_iter_*.solverstate"), key=lambda path: int(path.stem.rpartition("_")[2]))
    solver.solve(resume=states[-1] if states else None)
    if schedule.iterations % schedule.test_interval:
        solver.test_all()  # which else was the end of solve
    if solver.stop_requested:
        return
    assert solver.log.metrics_path, "the solver has a prefix"
    records = read_metrics(solver.log.metrics_path)
    tests = [record for record in records if record["phase"] == "test"]
    training = [record for record in records if record["phase"] == "training set"][-1]
    held_out = training_accuracy(solver, held_out=cell.held_out) if cell.held_out else None
    packages = {package: version(package) for package in ("imae", "torch", "numpy")}
    about = {
        "seconds": round(clock.seconds(), 1),
        "device": torch.cuda.get_device_name(solver.device) if solver.device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **packages},
    }
    result = Result(
        cell,
        [record["iteration"] for record in tests],
        [record["accuracy"] for record in tests],
        training["corrupted"],
        training["intact"],
        about,
        held_out.corrupted if held_out else None,
        held_out.intact if held_out else None,
    )
    write_atomically(folder / "result.json", json.dumps(asdict(result), indent=1).encode())
    for left in (*folder.glob("cell_iter_*.solverstate"), folder / "seconds.txt"):
        left.unlink(missing_ok=True)


def _solver_param(cell: Cell, schedule: Schedule, folder: Path, data: Path, labels: str | None) -> "SolverParameter":
    """The example solver of the cell, with the net inside and all that the job sets."""
    from imae.layers.data.cifar10_data import load_cifar10
    from imae.prototxt_like.schema import TRAIN, NoiseKind
    from imae.prototxt_like.text import read_net, read_solver

    train_images, test_images = (len(load_cifar10(data, train)[1]) for train in (True, False))
    test_batch = math.gcd(test_images, schedule.test_batch)  # that whole batches make the whole test set
    with as_file(files("imae.examples") / "cifar10") as examples:
        param = read_solver(examples / cell.solver)
        net = read_net(examples / param.net)
    for layer in net.layer:
        if layer.type == "Cifar10Data":
            settings, trains = layer.cifar10_data_param, any(rule.phase == TRAIN for rule in layer.include)
            settings.source = str(data)
            settings.batch_size = schedule.train_batch if trains else test_batch
            settings.subset = schedule.subset if trains else 0
            if trains and cell.held_out and not schedule.subset:
                settings.subset = train_images - cell.held_out
            if trains and labels:
                settings.noise_kind, settings.noise_file = NoiseKind.Value("FILE"), labels
        if layer.type == "SoftmaxWithIMAELoss" and cell.T is not None:
            layer.imae_param.T = cell.T
        if layer.type == "SoftmaxWithGCELoss" and cell.q is not None:
            layer.gce_param.q = cell.q
    param.ClearField("net")
    param.net_param.CopyFrom(net)
    param.max_iter, param.stepvalue[:] = schedule.iterations, schedule.steps
    param.test_iter[:], param.test_interval = [test_images // test_batch], schedule.test_interval
    param.snapshot = max(1, schedule.iterations // SNAPSHOTS)
    param.display = schedule.test_interval
    param.random_seed, param.snapshot_prefix = cell.seed, str(folder / "cell")
    return param


class _Clock:
    """The seconds that went into a cell up to its newest snapshot, over all processes that worked on it, and since."""

    def __init__(self, path: Path) -> None:
        self._path, self._since = path, time.monotonic()
        self._before = float(path.read_text()) if path.exists() else 0.0

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._since

    def save(self) -> None:
        write_atomically(self._path, f"{self.seconds():.1f}".encode())


def _end_with_parent() -> None:
    """End at once when the sweep's process has ended, as that may have been killed: another may go on in its place."""
    sys.stdin.read()
    os._exit(1)


def _processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except InputError as error:
        sys.exit(" ".join(str(error).split()))
