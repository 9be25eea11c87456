"""The demo: four losses on real digits, half of the training labels replaced at random, and the IMAE net as ONNX."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from imae.experiments import tables
from imae.experiments.cell import BestAndFinal
from imae.experiments.curves import Curve, plot
from imae.experiments.paper import LOSSES
from imae.experiments.suspects import SHEET_WIDTH, draw_suspects, suspects_of
from imae.experiments.training_accuracy import TrainingAccuracy, training_accuracy
from imae.layers.data.image_set import ImageSetData
from imae.nets.digits_net import digits_net
from imae.nets.memory import keep_freed_memory
from imae.nets.net import Net
from imae.nets.onnx_export import compare_with_onnxruntime, export_onnx
from imae.nets.paper import digits_solver, loss_settings
from imae.prototxt_like.files import write_atomically, write_each
from imae.reports import pictures
from imae.reports.pictures import picture
from imae.solvers.log import read_metrics
from imae.solvers.solver import Solver

NOISE = 0.5
_TITLE = "Digits, half of the training labels replaced at random"
COLUMNS = ("loss", *tables.COLUMNS, "suspects really wrong")


@dataclass
class Result(BestAndFinal):
    """One loss's accuracies, as fractions: on the test set by iteration, and on the training set at the end.

    The suspects are the training labels of the smallest p_y, as many as are wrong.
    """

    loss: str
    iterations: list[int]
    test: list[float]
    training: TrainingAccuracy
    suspects: int
    found: int  # how many of them really are wrong
    corrected: int  # for how many of them the most probable other class is the right one


def run(output: Path, seed: int, console: Console) -> list[Result]:
    """Train with each loss; write logs, snapshots, `results.md`, its two pictures and `imae.onnx` into `output`.

    `seed` sets the initial weights and the order of the images; the wrong labels are the same for all losses and
    seeds. Raises InputError if the folder cannot be written.
    """
    keep_freed_memory()
    solvers = {loss: _solver(loss, output, seed) for loss in LOSSES}
    imae = solvers["IMAE"]
    labels = _labels(_images(imae.net))
    console.print(
        f"Training a small residual net on 1,297 real 8x8 digits, once with each loss. {labels}. "
        "Testing on 500 other digits with intact labels."
    )
    results = [_result(loss, solver) for loss, solver in _trained(solvers, console)]
    console.print(_table(results))
    readings = [reading_of(results), suspects_reading(results)]
    for reading in readings:
        console.print(reading, style="bold")
    chart, sheet = output / "test_accuracy", output / "suspects"
    write_each(chart, picture(partial(_draw, results), pictures.SMALL).files)
    suspects = partial(draw_suspects, suspects_of(imae), _images(imae.net).images)
    write_each(sheet, picture(suspects, SHEET_WIDTH).files)
    onnx = output / "imae.onnx"
    difference = _export(imae, onnx)
    console.print(f"IMAE net as ONNX: {onnx}; in ONNX Runtime its probabilities differ by at most {difference:.1e}")
    write_atomically(output / "results.md", _markdown(results, labels, readings).encode())
    write_atomically(output / "results.json", json.dumps([asdict(result) for result in results], indent=1).encode())
    console.print(f"Test accuracy by iteration: {chart}.png; the labels that IMAE suspects most: {sheet}.png")
    console.print("Which labels of your own data are wrong: imae audit FOLDER")
    return results


def reading_of(results: list[Result]) -> str:
    """Return what the reader should see in the results, in one line, with this run's figures."""
    right = ", ".join(f"{result.loss} {result.training.intact:.0%} and {result.final:.0%}" for result in results)
    return f"What to see: for all the wrong labels, so many training and test images are told rightly: {right}."


def suspects_reading(results: list[Result]) -> str:
    """Return how many of the labels that each net believes least really are wrong, in one line."""
    by_loss = {result.loss: result for result in results}
    found = ", ".join(f"{loss} {by_loss[loss].found}" for loss in LOSSES)
    imae = by_loss["IMAE"]
    return (
        f"Which labels were wrong: of the {imae.suspects} that each net finds least probable, so many really are: "
        f"{found}; for {imae.corrected} of its own IMAE also names the right digit."
    )


def _images(net: Net) -> ImageSetData:
    """The images that a net reads."""
    data = net.steps[0].layer
    assert isinstance(data, ImageSetData), "the example's first layer"
    return data


def _labels(data: ImageSetData) -> str:
    """What was done to the labels, in words."""
    wrong, total = int((data.labels != data.intact).sum()), data.num_images
    return f"Half of the labels were replaced at random, which leaves {wrong} of {total:,} wrong, {wrong / total:.1%}"


def _solver(loss: str, output: Path, seed: int) -> Solver:
    """The solver of examples/digits, with its files going to `output`."""
    param, name = digits_solver(), loss.lower()
    param.net_param.CopyFrom(digits_net(name, noise_rate=NOISE, crops=True, **loss_settings(name, NOISE)))
    param.snapshot_prefix, param.random_seed = str(output / name), seed
    return Solver(param)


def _trained(solvers: dict[str, Solver], console: Console) -> Iterator[tuple[str, Solver]]:
    """Run each solver to its end, showing how far all of them are."""
    columns = (
        TextColumn("{task.description:4}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {
            loss: progress.add_task(loss, start=False, total=solver.param.max_iter, rate="")
            for loss, solver in solvers.items()
        }
        for loss, solver in solvers.items():
            bar = bars[loss]
            progress.start_task(bar)
            solver.on_progress = partial(_advance, progress, bar)
            solver.solve()
            yield loss, solver


def _advance(progress: Progress, bar: TaskID, what: str, done: int, total: int) -> None:
    if what == "train":
        speed = progress.tasks[bar].speed
        progress.update(bar, completed=done, rate=f"{speed:.0f} it/s" if speed else "")


def _result(loss: str, solver: Solver) -> Result:
    path = solver.log.metrics_path
    assert path is not None, "the solver has a prefix"
    suspects = suspects_of(solver)
    tests = [record for record in read_metrics(path) if record["phase"] == "test"]
    return Result(
        loss,
        [record["iteration"] for record in tests],
        [record["accuracy"] for record in tests],
        training_accuracy(solver),
        suspects.count,
        suspects.found,
        suspects.corrected,
    )


def _row(result: Result) -> list[str]:
    figures = result.best, result.final, result.training.corrupted, result.training.intact
    return [result.loss, *(f"{100 * figure:.1f}" for figure in figures), f"{result.found} of {result.suspects}"]


def _table(results: list[Result]) -> Table:
    table = Table(title="Accuracy, % (the columns of the paper's Table 2)")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if i else "left")
    for result in results:
        table.add_row(*_row(result))
    return table


def _markdown(results: list[Result], labels: str, readings: list[str]) -> str:
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_row, results)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    about, suspects = readings
    return (
        f"# {_TITLE}\n\n{labels}. Accuracy, %:\n\n{table}\n\n{about}\n\n![](test_accuracy.png)\n\n"
        f"{suspects}\n\n![](suspects.png)\n"
    )


def _draw(results: list[Result], width: float) -> "pictures.Figure":
    figure, (axes,) = pictures.new_figure(width=width, x="iteration", y="test accuracy, %")
    curves = [
        Curve(r.loss, r.iterations, [100 * accuracy for accuracy in r.test], pictures.LOSS_STYLES[r.loss])
        for r in results
    ]
    plot(axes, _TITLE, curves)
    pictures.legend(axes)
    return figure


def _export(solver: Solver, path: Path) -> float:
    """Export the trained net, and return how far ONNX Runtime's outputs are from ours on the test images."""
    net = solver.test_nets[0]
    export_onnx(net, None, path)
    data = _images(net)
    images = torch.cat([data.batch(number)[0] for number in range(solver.param.test_iter[0])])
    return compare_with_onnxruntime(path, net, images)
