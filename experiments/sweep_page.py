"""What the pages of all sweeps say alike: figures of several seeds, the settings, and the commands that made them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from imae.experiments.cell import CLASSES, Cell, Divergence, Result
from imae.experiments.page import write_page
from imae.experiments.sweep import Sweep, commands
from imae.nets.paper import T_INTACT, T_NOISY, Q
from imae.prototxt_like.errors import InputError
from imae.reports.pages import Code, Heading, Items, Part

Value = TypeVar("Value")
_PARAMETERS = (
    f"Where nothing else is said: T of IMAE {T_INTACT:g} on intact labels, {T_NOISY:g} on others; q of GCE {Q:g}"
)


@dataclass(frozen=True)
class Outcome:
    """What a page is about: a sweep, the name of its schedule, and the results that there are."""

    sweep: Sweep
    schedule_name: str
    results: Sequence[Result]
    cells: int  # how many cells were asked for: those neither in `results` nor in `diverged` are still to be trained
    diverged: Sequence[Divergence] = ()  # those that have no result, and why


@dataclass(frozen=True)
class Group:
    """Cells that differ in the seed alone: the results that there are, and how many diverged."""

    cell: Cell
    results: list[Result]
    diverged: int

    def named(self, name: str) -> str:
        """Return `name`, and how many of its seeds diverged, where some did."""
        total = len(self.results) + self.diverged
        return f"{name} ({self.diverged} of {total} seeds diverged)" if self.diverged and self.results else name

    def values(self, quantity: str) -> list[float]:
        """Return an accuracy of each result, in %."""
        return [100 * float(getattr(result, quantity)) for result in self.results]


def chosen(what: str, option: str, asked: Sequence[Value], has: Sequence[Value]) -> list[Value]:
    """Return those of `has` that are asked for (none: all). Raises InputError, naming the option, for any other."""
    for value in asked:
        if value not in has:
            expected = ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in has)
            raise InputError(f"{option} {value}: {what} has no such cell, expected one of {expected}")
    return [value for value in has if value in (asked or has)]


def over_seeds(results: Sequence[Result]) -> list[list[Result]]:
    """Return the results in groups that differ in the seed alone, in the order of each group's first."""
    groups: dict[Cell, list[Result]] = {}
    for result in results:
        groups.setdefault(replace(result.cell, seed=0), []).append(result)
    return list(groups.values())


def groups_of(results: Sequence[Result], diverged: Sequence[Divergence]) -> list[Group]:
    """Return groups as `over_seeds`, and last those of which all seeds diverged."""
    lost = Counter(replace(divergence.cell, seed=0) for divergence in diverged)
    groups = [Group(alike[0].cell, alike, lost.pop(replace(alike[0].cell, seed=0), 0)) for alike in over_seeds(results)]
    return [*groups, *(Group(cell, [], count) for cell, count in lost.items())]


def group_name(cell: Cell) -> str:
    """Return the net and the labels it is trained on, in words."""
    noise = cell.labels or (f"{cell.noise} % noise" if cell.noise else "intact labels")
    return f"ResNet-{cell.depth}, {noise}"


def spread(results: Sequence[Result]) -> str:
    """Return what a number on the page is, over the seeds."""
    seeds = len({result.cell.seed for result in results})
    return f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"


def write_sweep_page(name: str, title: str, parts: Sequence[Part], outcome: Outcome) -> list[Path]:
    """Write `name`.html and .md into the sweep's folder: `parts`, settings, commands; return the pages' paths."""
    done, folder = len(outcome.results) + len(outcome.diverged), outcome.sweep.output
    begin = [f"Not finished: this page tells of {done} of {outcome.cells} cells."] if done < outcome.cells else []
    diverged = [f"{divergence.cell.name}: {divergence.reason}" for divergence in outcome.diverged]
    lost: list[Part] = [Heading("Diverged, and in no mean"), Items(diverged)] if diverged else []
    end: list[Part] = [
        *lost,
        Heading("Settings"),
        Items(_settings(outcome)),
        Heading("Made by"),
        Code(commands(folder)),
    ]
    return write_page(folder / name, title, [*begin, *parts, *end])


def _settings(outcome: Outcome) -> list[str]:
    sweep, results = outcome.sweep, outcome.results
    schedule, (first, second) = sweep.schedule, sweep.schedule.steps
    about = [result.about for result in results]
    versions = sorted({", ".join(f"{name} {number}" for name, number in each.versions.items()) for each in about})
    seconds = [each.seconds for each in about]
    images = f"the first {schedule.subset:,} training images" if schedule.subset else "all training images"
    held_out = max(result.cell.held_out for result in results)
    if held_out and not schedule.subset:
        images += f" but the last {held_out:,}"
    seeds = sorted({result.cell.seed for result in results})
    drawn = sorted({result.cell.noise for result in results} - {0})
    wrong = ", ".join(f"at {noise} % about {noise * (CLASSES - 1) / CLASSES:g} % are wrong" for noise in drawn)
    noise = f"Noise: so many of the labels are replaced by a class at random, perhaps the same: {wrong}"
    return [
        f"Schedule: {outcome.schedule_name}: {schedule.iterations:,} iterations of {schedule.train_batch} images on "
        f"{images}; learning rate 0.1, divided by 10 at {first:,} and {second:,}; momentum 0.9, weight decay 0.0001",
        f"Tested every {schedule.test_interval} iterations and at the end, on the whole test set",
        *([_PARAMETERS] if any(result.cell.T is None and result.cell.q is None for result in results) else []),
        *([noise] if drawn else []),
        f"Seeds: {', '.join(map(str, seeds))}: of initial weights, order and augmentation; "
        "the wrong labels are the same for all losses and seeds",
        f"Device: {'; '.join(sorted({each.device for each in about}))}; "
        f"each cell is a process with {sweep.threads} CPU thread{'s' if sweep.threads > 1 else ''}, "
        "however many run at a time",
        f"Wall time: {sum(seconds) / 3600:.2f} hours over {len(seconds)} cells, "
        f"the longest {max(seconds) / 3600:.2f} hours",
        f"Versions: {'; '.join(versions)}",
        f"Written on {datetime.now(UTC):%Y-%m-%d}",
    ]
