"""Retrieval on real images: digits 5 to 9, never trained on, by features that wrong labels of 0 to 4 have taught."""

import itertools
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from imae import __version__
from imae.experiments.page import mean_text, write_page
from imae.experiments.paper import LOSSES
from imae.experiments.retrieval import (
    RANKS,
    FloatArray,
    IntArray,
    RetrievalResult,
    average_features,
    evaluate,
    evaluate_distance,
)
from imae.experiments.saved import read_saved
from imae.experiments.sweep_page import chosen
from imae.experiments.training_accuracy import training_accuracy
from imae.layers.data.digits_data import load_digits
from imae.layers.random_streams import permutation
from imae.layers.waiting import one_thread
from imae.nets.deploy import deploy
from imae.nets.digits_net import digits_net
from imae.nets.memory import keep_freed_memory
from imae.nets.net import Net
from imae.nets.paper import T_INTACT, T_NOISY, Q, digits_solver, loss_settings
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import create_folder, write_atomically
from imae.prototxt_like.schema import TEST, NetParameter
from imae.reports import pictures
from imae.reports.pages import Code, Figure, Heading, Items, Part, Table
from imae.reports.pictures import picture
from imae.solvers.solver import Solver

SEEN, UNSEEN = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
NOISE = (0, 50)  # percentages of training labels that are replaced at random
BASE_LR = 0.05
IMAGES_PER_TRACKLET = 4
CAMERAS = 6  # as many as MARS has
SCALE = 1 / 16  # brings the images, 0 to 16, to 0 to 1
FEATURE = "pool"  # the blob before the classifier: 32 values
UNTRAINED_PASSES = 20  # batches from which BatchNorm takes the statistics of an untrained net
CHANCE_DRAWS = 100
RETRIEVAL_COLUMNS = ("noise, %", "features", "mAP", "mAP, not interpolated", *(f"CMC-{rank}" for rank in RANKS))
ACCURACY_COLUMNS = ("noise, %", "loss", "test, digits 0-4", "training, corrupted labels", "training, intact labels")
PIXELS, UNTRAINED, CHANCE = "raw pixels", "untrained net", "chance"
_BASELINE_STYLES: dict[str, dict[str, Any]] = {
    name: {"color": pictures.FAINT, "linestyle": dash, "linewidth": 0.9}
    for name, dash in ((PIXELS, "solid"), (UNTRAINED, (0, (5, 2))), (CHANCE, (0, (1, 1.5))))
}


@dataclass(frozen=True)
class Tracklets:
    """The images of the unseen digits (F x 1 x 8 x 8, uint8), tracklet by tracklet, and columns of (tracklets,).

    `first` and `last` count a tracklet's images from 1, both inclusive; `query` are the rows that are queries.
    """

    images: Tensor
    first: IntArray
    last: IntArray
    digit: IntArray
    camera: IntArray
    query: IntArray


@dataclass(frozen=True)
class Run:
    """One training: `noise` percent of the labels replaced at random; the seed of weights, order and wrong labels."""

    noise: int
    loss: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"noise{self.noise}_{self.loss.lower()}_seed{self.seed}"


@dataclass(frozen=True)
class Scores:
    """What `retrieval.evaluate` gives, as fractions; `cmc` at ranks 1 to 20."""

    map_trapezoid: float
    map_standard: float
    cmc: list[float]

    def __post_init__(self) -> None:
        if len(self.cmc) != max(RANKS):
            raise ValueError(f"{len(self.cmc)} ranks, {max(RANKS)} expected")


@dataclass(frozen=True)
class Result:
    """What a run came to: retrieval of unseen digits, and classification of the seen ones, as fractions."""

    run: Run
    iterations: int
    scores: Scores
    test: float
    corrupted: float
    intact: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """Features, the noise of the labels they were learned from, if any, and what they reach for each seed."""

    name: str
    noise: int | None
    scores: Sequence[Scores]
    results: Sequence[Result] = ()

    @property
    def mean_map(self) -> float:
        """mAP as MARS has it, %, the mean over the seeds."""
        return 100 * float(np.mean([scores.map_trapezoid for scores in self.scores]))

    @property
    def mean_cmc(self) -> FloatArray:
        """The CMC, %, at ranks 1 to 20, the mean over the seeds."""
        mean: FloatArray = 100 * np.array([scores.cmc for scores in self.scores]).mean(axis=0)
        return mean

    @property
    def retrieval_cells(self) -> list[str]:
        """RETRIEVAL_COLUMNS."""
        return self._cells([(s.map_trapezoid, s.map_standard, *(s.cmc[k - 1] for k in RANKS)) for s in self.scores])

    @property
    def accuracy_cells(self) -> list[str]:
        """ACCURACY_COLUMNS."""
        return self._cells([(result.test, result.corrupted, result.intact) for result in self.results])

    def _cells(self, fractions: Sequence[tuple[float, ...]]) -> list[str]:
        texts = [mean_text([100 * value for value in column]) for column in zip(*fractions, strict=True)]
        return ["" if self.noise is None else str(self.noise), self.name, *texts]


def select_runs(noises: Sequence[int], losses: Sequence[str], seeds: int) -> list[Run]:
    """Return the runs for seeds 1 .. `seeds`, of the given noise rates (none: 0 and 50 %) and losses (none: all).

    Raises InputError for a rate outside 0 to 100 %, or a loss that there is not.
    """
    for noise in noises:
        if not 0 <= noise <= 100:
            raise InputError(f"--noise {noise}: expected a percentage, 0 to 100")
    losses = chosen("digits-retrieval", "--loss", [loss.upper() for loss in losses], LOSSES)
    rates = dict.fromkeys(noises or NOISE)
    return [Run(*parts) for parts in itertools.product(rates, losses, range(1, seeds + 1))]


def saved_results(output: Path, runs: Sequence[Run], iterations: int) -> dict[Run, Result]:
    """Return the results that lie in `output`. Raises InputError if one is damaged or of other iterations."""
    results = {}
    for run in runs:
        path = _path(output, run)
        if not path.exists():
            continue
        results[run] = read_saved(path, Result, "result of a run")
        if results[run].run != run:
            raise InputError(f"{path}: is the result of {results[run].run.name}; delete it to train again")
        if results[run].iterations != iterations:
            found = results[run].iterations
            raise InputError(f"{path}: a run of {found} iterations, not {iterations}; give another --output")
    return results


def compare(
    output: Path,
    runs: Sequence[Run],
    iterations: int,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    show: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Train and score the runs that have no result in `output` yet, and return the baselines' rows and the losses'.

    `progress` gets "train", the iterations done and those to do in all, `show` a line for each run. Raises InputError
    as `saved_results`, and if the folder cannot be written.
    """
    keep_freed_memory()
    results = saved_results(output, runs, iterations)
    for folder in (output, _path(output, runs[0]).parent):
        create_folder(folder)
    tracklets = make_tracklets()
    todo = [run for run in runs if run not in results]
    with one_thread():
        for number, run in enumerate(todo):
            advance = partial(_advance, progress, number * iterations, len(todo) * iterations)
            result = results[run] = _measure(run, iterations, tracklets, advance)
            write_atomically(_path(output, run), json.dumps(asdict(result), indent=1).encode())
            show(f"{run.noise} % noise, {run.loss}, seed {run.seed}: mAP {100 * result.scores.map_trapezoid:.1f} %")
        rows = _baselines(tracklets, sorted({run.seed for run in runs}), iterations)
    for noise, loss in dict.fromkeys((run.noise, run.loss) for run in runs):
        alike = [results[run] for run in runs if (run.noise, run.loss) == (noise, loss)]
        rows.append(Row(loss, noise, [result.scores for result in alike], alike))
    return rows


def make_tracklets() -> Tracklets:
    """Return the tracklets of the unseen digits, from both splits of the data; always the same.

    The images, in the order `permutation(N, seed=0, "digits tracklets")` of training and then test split, are dealt,
    digit by digit, to tracklets of 4, the first ones of 5 where the number leaves a rest. Camera i mod 6 + 1 takes a
    digit's tracklet i, from 0; six of them are queries, the next six are not, and so on.
    """
    images, labels = (torch.cat(parts) for parts in zip(load_digits(True), load_digits(False), strict=True))
    order = permutation(len(labels), seed=0, stream="digits tracklets")
    parts: list[Tensor] = []
    table: list[tuple[int, int, bool]] = []
    for digit in UNSEEN:
        rows = order[labels[order] == digit]
        for i, part in enumerate(torch.tensor_split(rows, len(rows) // IMAGES_PER_TRACKLET)):
            parts.append(part)
            table.append((digit, i % CAMERAS + 1, i // CAMERAS % 2 == 0))
    last = np.cumsum([len(part) for part in parts])
    digits, cameras, queries = (np.array(column) for column in zip(*table, strict=True))
    first = np.concatenate([[1], last[:-1] + 1])
    return Tracklets(images[torch.cat(parts)], first, last, digits, cameras, np.flatnonzero(queries))


def retrieval_net(run: Run) -> NetParameter:
    """Return the demo's net with data and classes of the seen digits alone."""
    loss = run.loss.lower()
    net = digits_net(loss, noise_rate=run.noise / 100, noise_seed=run.seed, **loss_settings(loss, run.noise))
    for layer in net.layer:
        if layer.type == "DigitsData":
            layer.digits_data_param.digit.extend(SEEN)
            layer.transform_param.mean_value.append(0)
            layer.transform_param.scale = SCALE
            if layer.include[0].phase == TEST:
                layer.digits_data_param.batch_size = int(np.isin(load_digits(False)[1], SEEN).sum())
        elif layer.type == "InnerProduct":
            layer.inner_product_param.num_output = len(SEEN)
    return net


def score(frames: ArrayLike, tracklets: Tracklets) -> Scores:
    """Score features of all images (F, D) by the MARS protocol, after taking each tracklet's mean."""
    features = average_features(frames, tracklets.first, tracklets.last)
    return _scores(evaluate(features, tracklets.digit, tracklets.camera, tracklets.query))


def reading_of(rows: Sequence[Row]) -> list[str]:
    """Return what the reader should see in the rows: the losses in order of mAP for each noise, and the baselines."""
    ordered = sorted(rows, key=lambda row: -row.mean_map)
    noises = sorted({row.noise for row in rows if row.noise is not None})
    lines = [
        f"mAP, %, {f'{noise} % of the labels replaced at random' if noise else 'intact labels'}: "
        + " > ".join(f"{row.name} {row.mean_map:.1f}" for row in ordered if row.noise == noise)
        for noise in noises
    ]
    baselines = " > ".join(f"{row.name} {row.mean_map:.1f}" for row in ordered if row.noise is None)
    return [*lines, f"mAP, %, for comparison: {baselines}"]


def write_report(output: Path, rows: Sequence[Row], *, command: str) -> list[Path]:
    """Write `digits_retrieval`, .html, .md, .png, .svg and .json, into `output`; return the pages' paths."""
    stem = output / "digits_retrieval"
    write_atomically(f"{stem}.json", json.dumps([asdict(row) for row in rows], indent=1).encode())
    seeds = max(len(row.scores) for row in rows)
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    parts: list[Part] = [
        "A small residual net learns to tell the digits 0 to 4 apart from labels some of which are wrong. Its features "
        "then rank images of the digits 5 to 9, which it never saw.",
        Items(reading_of(rows)),
        Heading("Retrieval of the unseen digits"),
        Table(RETRIEVAL_COLUMNS, [row.retrieval_cells for row in rows], f"%: {spread}."),
        Figure(
            stem.name,
            picture(partial(_draw, rows)),
            "CMC, mean over the seeds; mAP, a dot for each seed, a line at their mean.",
        ),
        Heading("Classification of the seen digits"),
        Table(ACCURACY_COLUMNS, [row.accuracy_cells for row in rows if row.results], "Accuracy, %, after training."),
        Heading("Settings"),
        Items(_settings(rows)),
        Heading("Made by"),
        Code([command]),
    ]
    return write_page(stem, "Retrieval of digits never trained on, from wrong labels", parts)


def _path(output: Path, run: Run) -> Path:
    return output / "runs" / f"{run.name}.json"


def _advance(progress: Callable[[str, int, int], None], before: int, all_: int, what: str, done: int, _: int) -> None:
    if what == "train":
        progress(what, before + done, all_)


def _measure(run: Run, iterations: int, tracklets: Tracklets, progress: Callable[[str, int, int], None]) -> Result:
    started = time.monotonic()
    solver = _solver(run, iterations)
    solver.on_progress = progress
    solver.step(iterations)
    training = training_accuracy(solver)
    return Result(
        run,
        iterations,
        score(_features(solver, tracklets.images), tracklets),
        solver.test_all()[0]["accuracy"],
        training.corrupted,
        training.intact,
        round(time.monotonic() - started, 1),
    )


def _solver(run: Run, iterations: int) -> Solver:
    """The demo's solver with the run's net, the learning rate falling at 1/2 and 3/4; it writes no files."""
    param = digits_solver(iterations, BASE_LR)
    param.net_param.CopyFrom(retrieval_net(run))
    param.test_iter[:] = [1]
    param.test_interval, param.display, param.random_seed = iterations, 0, run.seed
    param.test_initialization = False
    return Solver(param)


def _features(solver: Solver, images: Tensor) -> FloatArray:
    """The features (F, 32) of images (F x 1 x 8 x 8, uint8) by a solver's net in phase TEST."""
    net = Net(deploy(solver.test_nets[0], outputs=[FEATURE]), TEST, backward=False)
    net.share_weights(solver.net)
    features: FloatArray = net.forward(data=images * SCALE)[FEATURE].flatten(1).numpy()
    return features


def _scores(result: RetrievalResult) -> Scores:
    return Scores(result.map_trapezoid, result.map_standard, result.cmc[: max(RANKS)].tolist())


def _baselines(tracklets: Tracklets, seeds: Sequence[int], iterations: int) -> list[Row]:
    """What needs no label: pixels, initial weights, and rankings at random."""
    untrained = []
    for seed in seeds:
        solver = _solver(Run(0, "CCE", seed), iterations)
        for _ in range(UNTRAINED_PASSES):
            solver.net.forward()
        untrained.append(score(_features(solver, tracklets.images), tracklets))
    return [
        Row(PIXELS, None, [score(tracklets.images.flatten(1).numpy(), tracklets)]),
        Row(UNTRAINED, None, untrained),
        Row(CHANCE, None, [_chance(tracklets)]),
    ]


def _chance(tracklets: Tracklets) -> Scores:
    """The means over rankings at random."""
    rng = np.random.Generator(np.random.PCG64(0))
    shape = len(tracklets.digit), len(tracklets.query)
    shown = tracklets.digit, tracklets.camera, tracklets.query
    draws = [astuple(_scores(evaluate_distance(rng.random(shape), *shown))) for _ in range(CHANCE_DRAWS)]
    return Scores(*(np.mean(values, axis=0).tolist() for values in zip(*draws, strict=True)))


def _settings(rows: Sequence[Row]) -> list[str]:
    tracklets = make_tracklets()
    results = [result for row in rows for result in row.results]
    iterations, seeds = results[0].iterations, sorted({result.run.seed for result in results})
    train, test = (int(np.isin(load_digits(split)[1], SEEN).sum()) for split in (True, False))
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "numpy", "scikit-learn"))
    return [
        f"Data: scikit-learn's digits, 8 x 8 pixels: {train} images of 0 to 4 to train on, {test} others of 0 to 4 to "
        f"test on, and all {len(tracklets.images)} images of 5 to 9 for retrieval",
        f"Training: {iterations} iterations of 128 images with the solver of `imae demo` at learning rate {BASE_LR:g}, "
        f"divided by 10 at {iterations // 2} and {iterations * 3 // 4}; momentum 0.9, weight decay 0.005",
        "Noise: a label is replaced, with the stated probability, by one of the five classes at random, perhaps itself",
        f"T of IMAE: {T_INTACT:g} on intact labels, {T_NOISY:g} on others; q of GCE: {Q:g}",
        f"Seeds: {', '.join(map(str, seeds))}: of initial weights, order and wrong labels, alike for all losses",
        f"Retrieval: {len(tracklets.digit)} tracklets of {IMAGES_PER_TRACKLET} or {IMAGES_PER_TRACKLET + 1} images, "
        f"always the same, dealt to {CAMERAS} cameras; {len(tracklets.query)} of them are queries. The mean of a "
        "tracklet's features, the 32 values before the classifier, is compared by cosine similarity; what shows the "
        "query's digit in the query's camera is left out. mAP is that of the MARS code, by trapezoids",
        "A camera here is a number alone: the images of one do not look different from those of another",
        f"{PIXELS}: the 64 pixels as features; {UNTRAINED}: initial weights, BatchNorm's statistics from "
        f"{UNTRAINED_PASSES} batches; {CHANCE}: the mean of {CHANCE_DRAWS} rankings at random",
        "With five digits, CMC-10 and CMC-20 say little: chance alone comes close to 100 %",
        f"Wall time of {len(results)} runs: {sum(result.seconds for result in results):.0f} seconds, one CPU thread",
        f"Versions: python {platform.python_version()}, imae {__version__}, {packages}",
    ]


def _draw(rows: Sequence[Row], width: float) -> "pictures.Figure":
    """Two panels for each noise: CMC, and mAP with its spread over the seeds."""
    baselines = [row for row in rows if row.noise is None]
    noises = sorted({row.noise for row in rows if row.noise is not None})
    figure, panels = pictures.new_figure(2 * len(noises), columns=2, width=width)
    for noise, cmc, precision in zip(noises, panels[::2], panels[1::2], strict=True):
        losses = [row for row in rows if row.noise == noise]
        for row in [*losses, *baselines]:
            style = pictures.LOSS_STYLES.get(row.name) or _BASELINE_STYLES[row.name]
            cmc.plot(range(1, max(RANKS) + 1), row.mean_cmc, label=row.name, **style)
        for place, row in enumerate(losses):
            colour = pictures.LOSS_COLOURS[row.name]
            percent = [100 * scores.map_trapezoid for scores in row.scores]
            precision.plot([place] * len(percent), percent, "o", color=colour, markersize=4, alpha=0.6)
            precision.hlines(row.mean_map, place - 0.3, place + 0.3, color=colour)
        for row in baselines:
            precision.axhline(row.mean_map, zorder=0, **_BASELINE_STYLES[row.name])
        labels = f"{noise} % noise" if noise else "intact labels"
        for axes, x, y in ((cmc, "rank", "CMC, %"), (precision, "", "mAP, %")):
            axes.set_xlabel(x, size=pictures.FONT_SIZE)
            axes.set_ylabel(y, size=pictures.FONT_SIZE)
            axes.set_title(f"{y.removesuffix(', %')}, {labels}", size=pictures.FONT_SIZE)
        cmc.set_xticks(RANKS)
        shown = [row for row in rows if row.name != CHANCE]  # which lies far below
        pictures.percent_axis(cmc, [value for row in shown for value in row.mean_cmc])
        pictures.percent_axis(precision, [100 * scores.map_trapezoid for row in shown for scores in row.scores])
        precision.set(xlim=(-0.6, len(losses) - 0.4))
        precision.set_xticks(range(len(losses)), [row.name for row in losses])
    pictures.legend(panels[0])
    return figure
