"""A cell of a sweep: one training of one net, its result, and its net and solver as in the paper."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imae.experiments.paper import Schedule
from imae.nets.paper import cifar10_solver, loss_settings
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import NetParameter, NoiseKind, SolverParameter

SNAPSHOTS = 20  # snapshots in a cell's training: a kill costs at most this share of it
CLASSES = 10  # of CIFAR-10
METRICS = "cell.metrics.jsonl"  # the file in a cell's folder with all that was measured
Quantity = Literal["accuracy", "corrupted", "intact"]
"""As the metrics file calls it; `accuracy` is that of the test phase."""


@dataclass(frozen=True)
class Cell:
    """One training: ResNet-`depth` with `loss` (CCE, ...), `noise` percent of the labels replaced at random."""

    depth: int
    noise: int
    loss: str
    seed: int
    T: float | None = None  # IMAE's, where it is not the paper's, 0.5 for noise 0 and else 8
    q: float | None = None  # GCE's, where it is not 0.7
    labels: str = ""  # the labels trained on, by their name among the sweep's; with them `noise` is 0
    held_out: int = 0  # how many of the training images, the last, are for validation and not trained on

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


@dataclass(frozen=True)
class About:
    """On what a cell was trained."""

    seconds: float = 0.0
    device: str = "unknown"
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)


class BestAndFinal:
    """The two accuracies that the paper reports of a training, of those by iteration, as fractions, in `test`."""

    test: list[float]

    @property
    def best(self) -> float:
        """The best test accuracy."""
        return max(self.test)

    @property
    def final(self) -> float:
        """The test accuracy at the end."""
        return self.test[-1]


@dataclass(frozen=True)
class Result(BestAndFinal):
    """What a cell came to: accuracies as fractions, on the test set by iteration, on the training set at the end."""

    cell: Cell
    iterations: list[int]
    test: list[float]
    corrupted: float
    intact: float
    about: About = field(compare=False)  # on what it was trained: all else is the same in two runs of a cell
    held_out_noisy: float | None = None
    """Accuracy on the images held out, by labels with the same noise as those trained on."""
    held_out_intact: float | None = None  # the same by the intact labels

    def __post_init__(self) -> None:
        if not self.test or len(self.test) != len(self.iterations):
            raise ValueError(f"{len(self.iterations)} iterations, {len(self.test)} tests")


@dataclass(frozen=True)
class Divergence:
    """A cell that has no result, as a loss, an output or a weight of its turned NaN or infinite."""

    cell: Cell
    reason: str  # at which iteration, what, and at which learning rate, in words


def cell_net(cell: Cell, schedule: Schedule, data: str, labels: str | None) -> NetParameter:
    """Return the cell's net on the images and labels that it is trained on. Raises InputError without CIFAR-10."""
    loss = cell.loss.lower()
    settings = loss_settings(loss, cell.noise)
    settings |= {name: value for name, value in (("T", cell.T), ("q", cell.q)) if value is not None}
    net = resnet_cifar(cell.depth, loss, noise_rate=cell.noise / 100, source=data, **settings)
    train, test = (layer.cifar10_data_param for layer in net.layer[:2])
    train_images, test_images = image_counts(data)
    train.batch_size, train.subset = schedule.train_batch, schedule.subset
    if cell.held_out and not schedule.subset:
        train.subset = train_images - cell.held_out
    if labels:
        train.noise_kind, train.noise_file = NoiseKind.Value("FILE"), labels
    test.batch_size = math.gcd(test_images, schedule.test_batch)  # that whole batches make the whole test set
    return net


def cell_solver(cell: Cell, schedule: Schedule, folder: Path, data: str, labels: str | None) -> SolverParameter:
    """Return the paper's solver with the cell's net, the schedule, and snapshots in `folder`."""
    param = cifar10_solver()
    param.net_param.CopyFrom(cell_net(cell, schedule, data, labels))
    test_batch = param.net_param.layer[1].cifar10_data_param.batch_size
    param.max_iter, param.stepvalue[:] = schedule.iterations, schedule.steps
    param.test_iter[:], param.test_interval = [image_counts(data)[1] // test_batch], schedule.test_interval
    param.snapshot = max(1, schedule.iterations // SNAPSHOTS)
    param.display = schedule.test_interval
    param.random_seed, param.snapshot_prefix = cell.seed, str(folder / "cell")
    return param


def image_counts(data: str) -> tuple[int, int]:
    """Return how many images there are for training and for testing. Raises InputError without CIFAR-10."""
    from imae.layers.data.cifar10_data import load_cifar10  # not before: it loads torch

    train, test = (len(load_cifar10(Path(data), train)[1]) for train in (True, False))
    return train, test


def read_measured(path: Path, quantity: Quantity) -> dict[int, float]:
    """Return a cell's accuracies, as fractions, by iteration, from its metrics file.

    Raises InputError if the file is missing, damaged or without such records.
    """
    from imae.solvers.log import read_metrics  # not before: it loads torch

    phase = "test" if quantity == "accuracy" else "training set"
    try:
        records = [record for record in read_metrics(path) if record["phase"] == phase]
        points = {int(record["iteration"]): float(record[quantity]) for record in records}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as the metrics of a cell: {error}") from error
    if not points:
        raise InputError(f'{path}: has no record of the phase "{phase}"')
    return points
