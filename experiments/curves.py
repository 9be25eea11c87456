"""Accuracy against iteration: the paper's Figures 3, 4, 6, 7 and 8, from the metrics files of a sweep."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imae.experiments.cell import METRICS, Cell, Quantity, Result, read_measured
from imae.experiments.page import mean_text
from imae.experiments.paper import FIGURE_6_NOISE, FIGURE_8_T, T_GRID
from imae.experiments.sweep import Sweep
from imae.experiments.sweep_page import Outcome, chosen, group_name, groups_of, over_seeds, spread, write_sweep_page
from imae.nets.paper import T_INTACT, T_NOISY
from imae.reports import pictures
from imae.reports.pages import Figure, Part, Table
from imae.reports.pictures import Picture, picture

FIGURES: dict[int, tuple[Quantity, str]] = {
    3: ("corrupted", "Accuracy on the corrupted training set against iteration"),
    4: ("accuracy", "Accuracy on the intact test set against iteration, labels corrupted"),
    6: ("accuracy", "Accuracy on the test set against iteration, for each T of IMAE"),
    7: ("corrupted", "Accuracy on the training set, by the labels trained on, against iteration, for each T of IMAE"),
    8: ("intact", "Accuracy on the training set by its intact labels against iteration, labels corrupted"),
}
"""What each figure shows, and its title."""


@dataclass(frozen=True)
class Curve:
    """A line of a panel: percentages by iteration, and how it is drawn."""

    label: str
    iterations: Sequence[int]
    percent: Sequence[float]
    style: dict[str, Any]

    @property
    def after_the_climb(self) -> list[float]:
        """The percentages from the first fifth of the iterations on."""
        first = self.iterations[-1] / 5
        return [value for iteration, value in zip(self.iterations, self.percent, strict=True) if iteration >= first]


def cells_by_T(number: int, seeds: int, values: Sequence[float] = ()) -> list[Cell]:
    """Return the cells of Figure 6, 7 or 8 for seeds 1 .. `seeds` and some values of T (none: all).

    A cell with the T of the paper's tables is the tables' own. Raises InputError for a T that the figure lacks.
    """
    values = chosen(f"Figure {number}", "--T", values, FIGURE_8_T if number == 8 else T_GRID)
    noises = FIGURE_6_NOISE[1:] if number == 8 else FIGURE_6_NOISE
    return [
        Cell(20, noise, "IMAE", seed, T=None if (T_NOISY if noise else T_INTACT) == T else T)
        for noise, T, seed in itertools.product(noises, values, range(1, seeds + 1))
    ]


def read_curve(sweep: Sweep, cell: Cell, quantity: Quantity) -> tuple[list[int], list[float]]:
    """Return the iterations at which a trained cell's `quantity` was measured, and its values, as percentages.

    Raises InputError as `read_measured`.
    """
    points = read_measured(sweep.folder(cell) / METRICS, quantity)
    return list(points), [100 * value for value in points.values()]


def plot(axes: "pictures.Axes", title: str, curves: Sequence[Curve]) -> None:
    """Draw titled curves into axes.

    The percentages shown are those from the first fifth of the iterations on; before, curves climb from chance.
    """
    for curve in curves:
        axes.plot(curve.iterations, curve.percent, label=curve.label, **curve.style)
    pictures.percent_axis(axes, [value for curve in curves for value in curve.after_the_climb])
    pictures.count_axis(axes)
    axes.set_title(title, size=pictures.FONT_SIZE)


def draw_panels(panels: Mapping[str, Sequence[Curve]], *, columns: int, y: str, legend: str = "") -> Picture:
    """Draw titled panels, up to `columns` in a row, and a legend, which may have a title."""

    def draw(width: float) -> "pictures.Figure":
        height = 3.4 if len(panels) == 1 else 2.8
        figure, every = pictures.new_figure(
            len(panels), columns=columns, width=width, height=height, x="iteration", y=y
        )
        for axes, (title, curves) in zip(every, panels.items(), strict=True):
            plot(axes, title, curves)
        pictures.legend(every[0], legend)
        return figure

    return picture(draw)


def draw_test_accuracy(results: Sequence[Result], *, columns: int) -> Picture:
    """Draw the mean test accuracy of each loss, in a panel for each net and labels."""
    panels: dict[str, list[Curve]] = {}
    for alike in over_seeds(results):
        cell = alike[0].cell
        mean = [100 * statistics.fmean(values) for values in zip(*(result.test for result in alike), strict=True)]
        curve = Curve(cell.loss, alike[0].iterations, mean, pictures.LOSS_STYLES[cell.loss])
        panels.setdefault(group_name(cell), []).append(curve)
    return draw_panels(panels, columns=columns, y="test accuracy, %")


def write_figure(number: int, outcome: Outcome) -> list[Path]:
    """Write `figureN`, one of FIGURES, .html, .md, .png and .svg, into the sweep's folder; return the pages' paths.

    Raises InputError if a cell's metrics file cannot be read.
    """
    sweep, results = outcome.sweep, outcome.results
    quantity, title = FIGURES[number]
    of_T = number in (6, 7, 8)
    panels: dict[str, list[Curve]] = {}
    rows = []
    for group in groups_of(results, outcome.diverged):
        cell = group.cell
        label, style = cell.loss, pictures.LOSS_STYLES[cell.loss]
        if of_T:
            T = (T_NOISY if cell.noise else T_INTACT) if cell.T is None else cell.T
            label, style = f"{T:g}", _T_style(T)
        curves = [read_curve(sweep, result.cell, quantity) for result in group.results]
        ends = [mean_text([at(curve[1]) for curve in curves]) for at in (max, lambda values: values[-1])]
        rows.append([group_name(cell), group.named(f"IMAE, T = {label}" if of_T else label), *ends])
        if not curves:
            continue
        percent = [statistics.fmean(values) for values in zip(*(curve[1] for curve in curves), strict=True)]
        panels.setdefault(group_name(cell), []).append(Curve(label, curves[0][0], percent, style))
    columns = len({(result.cell.noise, result.cell.labels) for result in results})
    name, y = f"figure{number}", "test accuracy, %" if quantity == "accuracy" else "training accuracy, %"
    drawn = draw_panels(panels, columns=columns, y=y, legend="IMAE, $T$" if of_T else "")
    parts: list[Part] = [
        Figure(name, drawn, f"{title}: %, mean over the seeds."),
        Table(["net and labels", "loss", "highest", "at the end"], rows, f"The same, %: {spread(results)}."),
    ]
    return write_sweep_page(name, f"Figure {number}: {title}", parts, outcome)


def _T_style(T: float) -> dict[str, Any]:
    """The same T has the same style in each figure."""
    return pictures.SERIES[T_GRID.index(T)]
