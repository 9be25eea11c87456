"""`imae reproduce`: the paper's tables and figures."""

import shlex
import signal
import sys
import time
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imae.cli.options import Cpu, Gpu, choose_device
from imae.cli.table import print_table

if TYPE_CHECKING:
    from rich.progress import TaskID

reproduce = typer.Typer(help="Reproduce the paper's tables and figures.", no_args_is_help=True)


@reproduce.callback()
def group() -> None:
    """Reproduce the paper's tables and figures."""


@reproduce.command()
def weights(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the figures go.")] = Path("weights"),
) -> None:
    """Draw Figures 1 and 5, a sample's weight against its probability, and compute Table 4, the weights' variance.

    The variance, for uniform probabilities, is computed twice: in closed form (equation 26) and by quadrature.

    [bold]imae reproduce weights --output weights[/]
    """
    from imae.experiments.weighting import (
        MAE_VARIANCE,
        TABLE_4,
        plot_weights,
        variance_closed_form,
        variance_quadrature,
        weight_imae,
        weight_mae,
    )
    from imae.prototxt_like.errors import InputError

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be created: {error.strerror}") from error
    rows = [["MAE", "", f"{variance_quadrature(weight_mae):.6f}", f"{MAE_VARIANCE:g}"]]
    for T, printed in TABLE_4.items():
        quadrature = variance_quadrature(partial(weight_imae, T=T))
        rows.append([f"IMAE, T = {T:g}", f"{variance_closed_form(T):.6f}", f"{quadrature:.6f}", f"{printed:g}"])
    print_table(["loss", "closed form", "quadrature", "the paper"], rows, right=range(1, 4))
    for path in plot_weights(output / "weights"):
        typer.echo(path)


class ScheduleName(StrEnum):
    """How long to train: as the paper, or a tenth of that on a tenth of the images."""

    paper = "paper"
    short = "short"


_CELLS, _CHANGING = "Which cells (all, by default)", "What to change in the schedule"
_Data = Annotated[Path, typer.Option(metavar="ROOT", help="The folder with CIFAR-10.", show_default=False)]
_Schedule = Annotated[
    ScheduleName,
    typer.Option(help="64,000 iterations on all images, or 6,400 on the first 5,000."),
]
_Seeds = Annotated[int, typer.Option(metavar="N", min=1, help="Train each cell with the seeds 1 to N.")]
_Jobs = Annotated[int, typer.Option(metavar="N", min=1, help="How many cells to train at a time.")]
_Threads = Annotated[
    int, typer.Option(metavar="N", min=1, help="CPU threads of each cell; results depend on it in rounding.")
]
_Output = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where cells, figures and pages go; goes on with what is there.")
]
_Net = Annotated[
    list[int] | None, typer.Option("--net", metavar="DEPTH", help="A ResNet: 20, 32, ...", rich_help_panel=_CELLS)
]
_Noise = Annotated[
    list[int] | None, typer.Option("--noise", metavar="PERCENT", help="20, 50, 80.", rich_help_panel=_CELLS)
]
_Loss = Annotated[
    list[str] | None, typer.Option("--loss", metavar="LOSS", help="CCE, MAE, GCE, IMAE.", rich_help_panel=_CELLS)
]
_Iterations = Annotated[
    int | None, typer.Option(metavar="N", min=4, help="Stop at this iteration.", rich_help_panel=_CHANGING)
]
_Subset = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Train on the first N images.", rich_help_panel=_CHANGING),
]


@reproduce.command()
def table1(
    context: typer.Context,
    data: _Data,
    schedule: _Schedule = ScheduleName.paper,
    seeds: _Seeds = 1,
    jobs: _Jobs = 1,
    threads: _Threads = 1,
    output: _Output = Path("tables"),
    gpu: Gpu = None,
    cpu: Cpu = False,
    net: _Net = None,
    loss: _Loss = None,
    iterations: _Iterations = None,
    subset: _Subset = None,
) -> None:
    """Table 1: ResNet-20, 32 and 56 on CIFAR-10's intact labels, with each loss.

    What is finished stays on disk: the same command, given again, goes on where it was stopped or killed.

    [bold]imae reproduce table1 --data DATA --schedule short --jobs 2[/]
    """
    _table(1, context, data, schedule, seeds, jobs, threads, output, gpu, cpu, net, [], loss, iterations, subset)


@reproduce.command()
def table2(
    context: typer.Context,
    data: _Data,
    schedule: _Schedule = ScheduleName.paper,
    seeds: _Seeds = 1,
    jobs: _Jobs = 1,
    threads: _Threads = 1,
    output: _Output = Path("tables"),
    gpu: Gpu = None,
    cpu: Cpu = False,
    net: _Net = None,
    noise: _Noise = None,
    loss: _Loss = None,
    iterations: _Iterations = None,
    subset: _Subset = None,
) -> None:
    """Table 2: ResNet-20 and 32 on CIFAR-10 with 20, 50 and 80 % of the training labels drawn anew, with each loss.

    What is finished stays on disk: the same command, given again, goes on where it was stopped or killed.

    [bold]imae reproduce table2 --data DATA --schedule short --jobs 2[/]
    """
    _table(2, context, data, schedule, seeds, jobs, threads, output, gpu, cpu, net, noise, loss, iterations, subset)


def _table(
    number: Literal[1, 2],
    context: typer.Context,
    data: Path,
    schedule_name: ScheduleName,
    seeds: int,
    jobs: int,
    threads: int,
    output: Path,
    gpu: str | None,
    cpu: bool,
    nets: list[int] | None,
    noises: list[int] | None,
    losses: list[str] | None,
    iterations: int | None,
    subset: int | None,
) -> None:
    from imae.experiments.paper import SCHEDULES
    from imae.experiments.sweep import Sweep, run_sweep
    from imae.experiments.tables import COLUMNS, QUANTITIES, orderings, rows_of, select_cells, write_report

    cells = select_cells(number, seeds, depths=nets or (), noises=noises or (), losses=losses or ())
    schedule, name = SCHEDULES[schedule_name], str(schedule_name)
    if iterations:
        schedule = replace(schedule, iterations=iterations, test_interval=max(1, iterations // 64))
    if subset:
        schedule = replace(schedule, subset=subset)
    if iterations or subset:
        name += ", changed"
    sweep = Sweep(output, data, schedule, str(choose_device(gpu, cpu)), threads)
    command = _command(context)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop is a Ctrl-C
    try:
        finished = sum(sweep.result(cell) is not None for cell in cells)
        with _Cells(len(cells), finished, schedule.iterations) as display:
            results = run_sweep(sweep, cells, jobs=jobs, command=command, progress=display.advance)
    except KeyboardInterrupt:
        finished = sum(sweep.result(cell) is not None for cell in cells)
        typer.echo(f"Stopped with {finished} of {len(cells)} cells done. Go on with: {command}")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    rows = rows_of(results)
    print_table(
        ["net", "noise, %", "loss", *COLUMNS],
        [[f"ResNet-{row.depth}", str(row.noise), row.loss, *map(row.text, QUANTITIES)] for row in rows],
        right=[1],
    )
    typer.echo(orderings(rows)[0])
    for path in write_report(number, sweep, results, schedule_name=name):
        typer.echo(path)


class _Cells:
    """Shows how many cells are done and, on a terminal, how far those are that run. A context manager."""

    def __init__(self, total: int, finished: int, iterations: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._total, self._done, self._iterations = total, finished, iterations
        self._bars: dict[str, tuple[TaskID, int, float]] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._all = self._progress.add_task("cells", total=total, completed=finished, rate="")

    def __enter__(self) -> "_Cells":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, cell: str, iteration: int, finished: bool) -> None:
        """Show a cell's iteration, or that it has its result; called on any thread."""
        now = time.monotonic()
        if cell not in self._bars:
            bar = self._progress.add_task(cell, total=self._iterations, completed=iteration, rate="")
            self._bars[cell] = bar, iteration, now
        bar, first, since = self._bars[cell]
        speed = (iteration - first) / (now - since) if now > since else 0
        self._progress.update(bar, completed=iteration, rate=f"{speed:.4g} it/s" if speed else "")
        if finished:
            self._progress.update(bar, visible=False)
            self._progress.update(self._all, advance=1)
            self._done += 1
            if self._progress.disable:
                print(f"{cell} is done, {self._done} of {self._total}", file=sys.stderr)


def _command(context: typer.Context) -> str:
    """The command line that these options stand for."""
    words = ["imae", "reproduce", context.info_name or ""]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if value in (None, False, [], ()) or (value == option.default and option.name != "schedule"):
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            words += [option.opts[0]] if item is True else [option.opts[0], str(item)]
    return shlex.join(words)
