"""Choosing T of IMAE, and q of GCE, on training images held out, by their own labels and by noisy ones.

Their own labels are those that the data has. Whether they are right is not known here: the data may be anybody's.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from imae.experiments.cell import Cell, Divergence, Result
from imae.experiments.page import mean_text
from imae.experiments.paper import T_GRID
from imae.experiments.sweep_page import Group, Outcome, chosen, group_name, groups_of, spread, write_sweep_page
from imae.nets.paper import DEPTHS, NOISE
from imae.prototxt_like.errors import InputError
from imae.reports import pictures
from imae.reports.pages import Figure, Heading, Items, Part, Table
from imae.reports.pictures import picture

Q_GRID = (0.1, 0.3, 0.5, 0.7, 0.9)  # the q of GCE, from near CCE (0) to near MAE (1)
NOISY, GIVEN, OWN = "noisy labels", "given labels", "own labels"
"""Labels of the images held out: with drawn noise, from a file, and those of the data."""


@dataclass(frozen=True)
class Candidate:
    """A value of T or q: final accuracies over the seeds, in %; none where all seeds diverged."""

    parameter: str  # T or q
    value: float
    held_out: dict[str, list[float]]
    """On the images held out, by kind of labels: with the noise trained on and, where these differ, their own."""
    test: list[float]
    remark: str = ""  # how many of the seeds diverged, where some did

    @property
    def name(self) -> str:
        """The loss with its value."""
        return f"{'IMAE' if self.parameter == 'T' else 'GCE'}, {self.parameter} = {self.value:g}{self.remark}"


@dataclass(frozen=True)
class Pick:
    """The candidate that is best on the images held out by some labels."""

    candidate: Candidate
    labels: str
    cost: float  # by how many percentage points the test accuracy of the best candidate is higher

    @property
    def text(self) -> str:
        """What was picked, by what, and what it costs, in a sentence."""
        measured = f"test accuracy {statistics.fmean(self.candidate.test):.1f} %"
        cost = f"{self.cost:.1f} points below the best of the grid" if self.cost else "the best of the grid"
        return f"By the {self.labels} of the images held out: {self.candidate.name}, {measured}, {cost}"


def tuning_cells(
    *,
    depth: int,
    noise: int,
    labels: str,
    held_out: int,
    seeds: int,
    T: Sequence[float] = T_GRID,
    q: Sequence[float] = Q_GRID,
) -> list[Cell]:
    """Return the cells of IMAE with each of `T` and of GCE with each of `q`, for seeds 1 .. `seeds`.

    Trained on labels of which `noise` percent are replaced at random, or on those with the name `labels`. Raises
    InputError for a depth or noise that the examples lack, or a T or q that its loss does not take.
    """
    chosen("tune-t", "--net", [depth], DEPTHS)
    chosen("tune-t", "--noise", [noise], NOISE)
    for value in T:
        if not 0 <= value < math.inf:
            raise InputError(f"--T {value:g}: expected a finite number of at least 0")
    for value in q:
        if not 0 < value <= 1:
            raise InputError(f"--q {value:g}: expected 0 < q <= 1")
    general = Cell(depth, noise, "IMAE", 1, labels=labels, held_out=held_out)
    grid = [replace(general, T=value) for value in sorted({*T})]
    grid += [replace(general, loss="GCE", q=value) for value in sorted({*q})]
    return [replace(cell, seed=seed) for cell in grid for seed in range(1, seeds + 1)]


def candidates_of(results: Sequence[Result], diverged: Sequence[Divergence] = ()) -> list[Candidate]:
    """Return a candidate for each T and q, in the order of the results, and last those of which all seeds diverged."""
    return [_candidate(group) for group in groups_of(results, diverged)]


def _candidate(group: Group) -> Candidate:
    cell = group.cell
    parameter, value = ("q", cell.q) if cell.T is None else ("T", cell.T)
    assert value is not None, "each cell has its T or q"
    noisy, own = (group.values(f"held_out_{labels}") for labels in ("noisy", "intact"))
    trained_on = GIVEN if cell.labels else NOISY if cell.noise else OWN
    return Candidate(parameter, value, {trained_on: noisy, OWN: own}, group.values("final"), group.named(""))


def picks(candidates: Sequence[Candidate]) -> list[Pick]:
    """Return, for T and for q, what each kind of labels picks by the mean over seeds: of equals the first."""
    found = []
    candidates = [candidate for candidate in candidates if candidate.test]
    for parameter in dict.fromkeys(candidate.parameter for candidate in candidates):
        grid = [candidate for candidate in candidates if candidate.parameter == parameter]
        best = max(statistics.fmean(candidate.test) for candidate in grid)
        for labels in grid[0].held_out:
            accuracies = [statistics.fmean(candidate.held_out[labels]) for candidate in grid]
            pick = grid[accuracies.index(max(accuracies))]
            found.append(Pick(pick, labels, best - statistics.fmean(pick.test)))
    return found


def columns_of(candidates: Sequence[Candidate]) -> list[str]:
    """Return the names of the columns of `rows_of`."""
    return ["loss", *(f"held out, {labels}" for labels in candidates[0].held_out), "test, final"]


def rows_of(candidates: Sequence[Candidate]) -> list[list[str]]:
    """Return a row for each candidate: its name, and its accuracies, %."""
    return [[c.name, *map(mean_text, (*c.held_out.values(), c.test))] for c in candidates]


def write_tuning(outcome: Outcome) -> list[Path]:
    """Write a page and its figure, named after the net and the labels, into the sweep's folder; return both pages."""
    candidates, cell = candidates_of(outcome.results, outcome.diverged), outcome.results[0].cell
    name = f"tuning_{cell.task}"
    about = group_name(cell) if cell.noise or cell.labels else f"ResNet-{cell.depth}, {OWN}"
    deviation = 50 / cell.held_out**0.5
    parts: list[Part] = [
        f"{about}; the last {cell.held_out:,} training images are held out.",
        Items([pick.text for pick in picks(candidates)]),
        Table(columns_of(candidates), rows_of(candidates), f"Final accuracy, %: {spread(outcome.results)}."),
        f"Picked by the mean over seeds. An accuracy on {cell.held_out:,} images has a standard error of up to "
        f"{deviation:.1f} points, so that candidates closer than that are as good as equal.",
        Heading("Accuracy against the parameter"),
        Figure(
            name,
            picture(partial(_draw, candidates)),
            "Final accuracy, %, mean over the seeds, of each T of IMAE and each q of GCE.",
        ),
    ]
    return write_sweep_page(name, f"Choosing T and q on images held out: {about}", parts, outcome)


def _draw(candidates: Sequence[Candidate], width: float) -> "pictures.Figure":
    candidates = [candidate for candidate in candidates if candidate.test]
    parameters = list(dict.fromkeys(candidate.parameter for candidate in candidates))
    figure, panels = pictures.new_figure(len(parameters), columns=2, width=width, height=3, y="final accuracy, %")
    for axes, parameter in zip(panels, parameters, strict=True):
        grid = [candidate for candidate in candidates if candidate.parameter == parameter]
        means = {"test": [statistics.fmean(c.test) for c in grid]}
        for labels in reversed(grid[0].held_out):
            means[f"held out, {labels}"] = [statistics.fmean(c.held_out[labels]) for c in grid]
        for (label, values), style in zip(means.items(), pictures.SERIES[1::2], strict=False):
            axes.plot(range(len(grid)), values, label=label, **{**style, "markevery": 1})
        axes.set_xticks(range(len(grid)), [f"{candidate.value:g}" for candidate in grid])
        axes.set_xlabel("$T$ of IMAE" if parameter == "T" else "$q$ of GCE")
        pictures.percent_axis(axes, [value for values in means.values() for value in values])
    pictures.legend(panels[0])
    return figure
