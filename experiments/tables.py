"""The paper's Tables 1 and 2 from the results of a sweep, beside what the paper prints."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from imae.examples.write_examples import DEPTHS, NOISE, T_INTACT, T_NOISY
from imae.experiments import plot_style
from imae.experiments.paper import LOSSES, TABLE_1, TABLE_2
from imae.experiments.report import Code, Figure, Heading, Items, Part, Table, write_page
from imae.experiments.sweep import Cell, Result, Sweep, commands
from imae.prototxt_like.errors import InputError

T = TypeVar("T")
Number = Literal[1, 2]
QUANTITIES = ("best", "final", "corrupted", "intact")
COLUMNS = ("test, best", "test, final", "training, corrupted labels", "training, intact labels")


@dataclass(frozen=True)
class Row:
    """A net, noise and loss: each quantity's values over the seeds, in %, and what the paper prints, where it does."""

    depth: int
    noise: int
    loss: str
    values: dict[str, list[float]]
    printed: dict[str, float]

    @property
    def group(self) -> str:
        """What is compared over losses."""
        return _group(self.depth, self.noise)

    def mean(self, quantity: str) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values[quantity])

    def text(self, quantity: str) -> str:
        """Mean, standard deviation (of a sample, from two seeds on), and the paper's value with the difference."""
        values = self.values[quantity]
        measured = f"{self.mean(quantity):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
        if quantity not in self.printed:
            return measured
        printed = self.printed[quantity]
        return f"{measured} (paper {printed:.1f}, {self.mean(quantity) - printed:+.1f})"


def select_cells(
    number: Number, seeds: int, *, depths: Sequence[int] = (), noises: Sequence[int] = (), losses: Sequence[str] = ()
) -> list[Cell]:
    """Return the cells of a table for seeds 1 .. `seeds`, those of the given nets, noises and losses (none: all).

    Raises InputError for a net, noise or loss that the table does not have.
    """
    depths = _chosen(number, "net", depths, DEPTHS if number == 1 else DEPTHS[:2])
    noises = _chosen(number, "noise", noises, (0,) if number == 1 else [percent for percent in NOISE if percent])
    losses = _chosen(number, "loss", [loss.upper() for loss in losses], LOSSES)
    seed_numbers = range(1, seeds + 1)
    return [Cell(*parts) for parts in itertools.product(depths, noises, losses, seed_numbers)]


def _chosen(number: Number, name: str, asked: Sequence[T], has: Sequence[T]) -> list[T]:
    for value in asked:
        if value not in has:
            expected = ", ".join(map(str, has))
            raise InputError(f"--{name} {value}: Table {number} has no such cell, expected one of {expected}")
    return [value for value in has if value in (asked or has)]


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Return a row for each net, noise and loss, in the order of the results."""
    by_key: dict[tuple[int, int, str], list[Result]] = {}
    for result in results:
        by_key.setdefault((result.cell.depth, result.cell.noise, result.cell.loss), []).append(result)
    return [
        Row(*key, {name: [100 * getattr(result, name) for result in alike] for name in QUANTITIES}, _printed(*key))
        for key, alike in by_key.items()
    ]


def orderings(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """Return how the losses' final test accuracies are ordered: in one sentence, and by net and noise."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    lines, compared, same = [], 0, 0
    for group, members in groups.items():
        measured = sorted(members, key=lambda row: -row.mean("final"))
        line = f"{group}: " + " > ".join(f"{row.loss} {row.mean('final'):.1f}" for row in measured)
        known = sorted((row for row in members if "final" in row.printed), key=lambda row: -row.printed["final"])
        if len(known) > 1:
            # The paper's is a strict order: no two losses of a net and noise have the same final accuracy in it.
            agrees = all(above.mean("final") > below.mean("final") for above, below in itertools.pairwise(known))
            compared, same = compared + 1, same + agrees
            paper = " > ".join(f"{row.loss} {row.printed['final']:.1f}" for row in known)
            line += f"; the paper: {paper}; {'the same order' if agrees else 'another order'}"
        lines.append(line)
    if not compared:
        return "Too few losses were trained to compare their order with the paper's.", lines
    return f"By final test accuracy the losses are in the paper's order in {same} of {compared} cases.", lines


def write_report(number: Number, sweep: Sweep, results: Sequence[Result], *, schedule_name: str) -> list[Path]:
    """Write `table1` or `table2`, .html and .md, with its figure, into the sweep's folder; return the pages' paths."""
    rows = rows_of(results)
    summary, order = orderings(rows)
    stem = sweep.output / f"table{number}"
    figure = sweep.output / f"table{number}_test_accuracy"
    _plot(results, figure)
    seeds = len({result.cell.seed for result in results})
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    caption = f"Accuracy, %: {spread}; in brackets the paper's value and the difference to it."
    if number == 1:
        caption += " The paper's Table 1 has one test accuracy, which is compared with the final one."
    parts: list[Part] = [
        summary,
        Table(
            ["net", "noise, %", "loss", *COLUMNS],
            [[f"ResNet-{row.depth}", str(row.noise), row.loss, *map(row.text, QUANTITIES)] for row in rows],
            caption,
        ),
        Heading("Order of the losses by final test accuracy, %"),
        Items(order),
        Heading("Test accuracy against iteration"),
        Figure(figure, "Test accuracy, %, mean over the seeds."),
        Heading("Settings"),
        Items(_settings(sweep, results, schedule_name)),
        Heading("Made by"),
        Code(commands(sweep.output)),
    ]
    labels = "intact labels" if number == 1 else "corrupted labels"
    return write_page(stem, f"Table {number}: CIFAR-10, {labels}", parts)


def _settings(sweep: Sweep, results: Sequence[Result], schedule_name: str) -> list[str]:
    schedule, (first, second) = sweep.schedule, sweep.schedule.steps
    about = [result.about for result in results]
    versions = sorted({", ".join(f"{name} {number}" for name, number in each["versions"].items()) for each in about})
    seconds = [each["seconds"] for each in about]
    images = f"the first {schedule.subset:,} training images" if schedule.subset else "all training images"
    seeds = sorted({result.cell.seed for result in results})
    return [
        f"Schedule: {schedule_name}: {schedule.iterations:,} iterations of {schedule.train_batch} images on {images}; "
        f"learning rate 0.1, divided by 10 at {first:,} and {second:,}; momentum 0.9, weight decay 0.0001",
        f"Tested every {schedule.test_interval} iterations and at the end, on the whole test set",
        f"T of IMAE: {T_INTACT:g} on intact labels, {T_NOISY:g} on corrupted ones; GCE: q = 0.7",
        f"Seeds: {', '.join(map(str, seeds))}: of initial weights, order and augmentation; "
        "the wrong labels are the same for all losses and seeds",
        f"Device: {'; '.join(sorted({each['device'] for each in about}))}; "
        f"each cell is a process with {sweep.threads} CPU thread{'s' if sweep.threads > 1 else ''}, "
        "however many run at a time",
        f"Wall time: {sum(seconds) / 3600:.2f} hours over {len(seconds)} cells, "
        f"the longest {max(seconds) / 3600:.2f} hours",
        f"Versions: {'; '.join(versions)}",
    ]


def _plot(results: Sequence[Result], stem: Path) -> None:
    """Draw test accuracy against iteration: a row of panels for each net, a column for each noise."""
    depths = list(dict.fromkeys(result.cell.depth for result in results))
    noises = list(dict.fromkeys(result.cell.noise for result in results))
    figure, panels = plot_style.new_figure(
        len(depths), len(noises), width=3.6, height=2.6, x="iteration", y="test accuracy, %"
    )
    for axes, (depth, noise) in zip(panels, [(d, n) for d in depths for n in noises], strict=True):
        for loss in LOSSES:
            alike = [r for r in results if (r.cell.depth, r.cell.noise, r.cell.loss) == (depth, noise, loss)]
            if alike:
                mean = [100 * statistics.fmean(values) for values in zip(*(r.test for r in alike), strict=True)]
                axes.plot(alike[0].iterations, mean, label=loss, **plot_style.LOSS_STYLES[loss])
        axes.set_ylim(0, 100)
        axes.set_title(_group(depth, noise), size=plot_style.FONT_SIZE)
    plot_style.legend(panels[0])
    plot_style.save(figure, stem)


def _group(depth: int, noise: int) -> str:
    return f"ResNet-{depth}, {f'{noise} % noise' if noise else 'intact labels'}"


def _printed(depth: int, noise: int, loss: str) -> dict[str, float]:
    """What the paper prints of a cell, by quantity."""
    if noise:
        return dict(zip(QUANTITIES, TABLE_2.get((depth, noise, loss), ()), strict=False))
    return {"final": TABLE_1[depth, loss]} if (depth, loss) in TABLE_1 else {}
