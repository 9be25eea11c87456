"""The options of every command that trains a sweep of cells, and what those commands do alike."""

import functools
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imae.cli.messages import warn
from imae.cli.options import Cpu, Gpu, Precision, PrecisionOption, choice, choose_device, number, option, words_of
from imae.cli.progress import Display
from imae.prototxt_like.errors import InputError

if TYPE_CHECKING:
    from imae.experiments.cell import Cell, Divergence, Result
    from imae.experiments.sweep import Sweep
    from imae.experiments.sweep_page import Outcome
    from imae.layers.data.label_noise import Labels

of_cells = functools.partial(option, panel="Which cells (all, by default)")
_CHANGING = "What to change in the schedule"


class ScheduleName(StrEnum):
    """How long to train: as the paper, or a tenth of that on a tenth of the images."""

    paper = "paper"
    short = "short"


@dataclass(frozen=True)
class SweepOptions:
    """What the options stand for; each field is one of them."""

    context: typer.Context
    data: Annotated[Path | None, option("ROOT", "The folder with CIFAR-10, to train on it.")] = None
    schedule: Annotated[ScheduleName, choice("64,000 iterations on all images, or 6,400 on the first 5,000.")] = (
        ScheduleName.paper
    )
    seeds: Annotated[int | None, number("Train each cell with the seeds 1 to N, by default 1.", 1)] = None
    jobs: Annotated[int, number("How many cells to train at a time.", 1)] = 1
    threads: Annotated[int, number("CPU threads of each cell; results depend on it in rounding.", 1)] = 1
    output: Annotated[
        Path | None, option("FOLDER", 'Where all files go, by default "tables"; goes on with what is there.')
    ] = None
    gpu: Gpu = None
    cpu: Cpu = False
    precision: PrecisionOption = Precision.fp32
    iterations: Annotated[int | None, number("Stop at this iteration.", 4, panel=_CHANGING)] = None
    subset: Annotated[int | None, number("Train on the first N images.", 1, panel=_CHANGING)] = None
    diverged: "list[Divergence]" = field(default_factory=list, init=False)  # of the cells of `run`

    @property
    def root(self) -> Path:
        """The folder with CIFAR-10."""
        if self.data is None:
            raise typer.BadParameter("needs --data, the folder with CIFAR-10")
        return self.data

    @property
    def folder(self) -> Path:
        """Where the files of a sweep go."""
        return self.output or Path("tables")

    @property
    def seed_count(self) -> int:
        """With how many seeds to train each cell of a sweep."""
        return self.seeds or 1

    @property
    def given(self) -> set[str]:
        """The options that stand in the command line, without dashes."""
        asked, context = self.context.command.params, self.context
        return {
            option.opts[0].lstrip("-")
            for option in asked
            if option.name and getattr(context.get_parameter_source(option.name), "name", "") == "COMMANDLINE"
        }

    @property
    def schedule_name(self) -> str:
        """The schedule, in words."""
        return f"{self.schedule}, changed" if self.iterations or self.subset else str(self.schedule)

    @property
    def command(self) -> str:
        """The command line that these options, and the command's own, stand for."""
        words, known = self.context.command_path.split(), self.context.command.params
        words += [str(self.context.params[each.name or ""]) for each in known if each.param_type_name == "argument"]
        return shlex.join(words + words_of(self.context, always="schedule"))

    def end(self) -> None:
        """End the command: with status 1 where a cell diverged."""
        if self.diverged:
            raise typer.Exit(1)

    def sweep(self) -> "Sweep":
        """Return the sweep, whose cells are still to be named."""
        from imae.experiments.paper import SCHEDULES
        from imae.experiments.sweep import Sweep

        schedule = SCHEDULES[self.schedule]
        if self.iterations:
            interval = max(1, self.iterations // 64)
            schedule = replace(schedule, iterations=self.iterations, test_interval=interval)
        if self.subset:
            schedule = replace(schedule, subset=self.subset)
        device = str(choose_device(self.gpu, self.cpu))
        dtype = str(self.precision.dtype).removeprefix("torch.")
        tf32 = self.precision is Precision.tf32
        return Sweep(self.folder, self.root, schedule, device, self.threads, dtype=dtype, tf32=tf32)

    def run(
        self,
        sweep: "Sweep",
        cells: "Sequence[Cell]",
        write_pages: "Callable[[Outcome], list[Path]]",
        labels: "Mapping[str, Labels] | None" = None,
    ) -> "Outcome":
        """Train the cells that are not done yet, showing how far they are, and return all results.

        Whenever a cell is done and others are not, the pages are written with the results so far. Ctrl-C, or a batch
        system's SIGTERM, ends the command after a line that says how to go on. Raises InputError if all cells diverged.
        """
        from imae.experiments.sweep import run_sweep
        from imae.experiments.sweep_page import Outcome

        def outcome(results: "list[Result]") -> Outcome:
            self.diverged[:] = [found for cell in cells if (found := sweep.divergence(cell))]
            return Outcome(sweep, self.schedule_name, results, len(cells), tuple(self.diverged))

        try:
            done = sum(map(sweep.is_done, cells))
            with _Cells(len(cells), done, sweep.schedule.iterations) as display:
                results = run_sweep(
                    sweep,
                    cells,
                    jobs=self.jobs,
                    command=self.command,
                    progress=display.show_cell,
                    so_far=lambda results: results and write_pages(outcome(results)),
                    labels=labels,
                )
            whole = outcome(results)
            if not results and self.diverged:
                raise InputError(f"all cells diverged; {_told(sweep, self.diverged[0])}")
            for divergence in self.diverged:
                warn(_told(sweep, divergence))
            return whole
        except KeyboardInterrupt:
            done = sum(map(sweep.is_done, cells))
            typer.echo(f"Stopped with {done} of {len(cells)} cells done. Go on with: {self.command}")
            raise typer.Exit(130) from None


def _told(sweep: "Sweep", divergence: "Divergence") -> str:
    """A line that says that a cell diverged, why, and how to train it again."""
    path = sweep.folder(divergence.cell) / "diverged.json"
    return f"{divergence.cell.name}: {divergence.reason}; delete {path} to train it again"


class _Cells(Display):
    """Shows how many cells are done and, on a terminal, how far those are that run."""

    def __init__(self, total: int, finished: int, iterations: int) -> None:
        super().__init__()
        self._total, self._done, self._iterations, self._guard = total, finished, iterations, threading.Lock()
        self.advance("cells", finished, total)

    def show_cell(self, cell: str, iteration: int, finished: bool) -> None:
        """Show a cell's iteration, or that it has its result; called on any thread."""
        with self._guard:
            self.advance(cell, iteration, self._iterations)
            if finished:
                self._done += 1
                self.advance("cells", self._done, self._total)
                self.hide(cell, f"{cell} is done, {self._done} of {self._total}")
