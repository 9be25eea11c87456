"""The paper's Tables 1 and 2 from the results of a sweep, beside what the paper prints."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imae.experiments.cell import Cell, Divergence, Result
from imae.experiments.curves import draw_test_accuracy
from imae.experiments.page import mean_text
from imae.experiments.paper import LOSSES, TABLE_1, TABLE_2
from imae.experiments.sweep_page import Outcome, chosen, group_name, groups_of, spread, write_sweep_page
from imae.nets.paper import DEPTHS, NOISE
from imae.reports.pages import Figure, Heading, Items, Part, Table

QUANTITIES = ("best", "final", "corrupted", "intact")
COLUMNS = ("test, best", "test, final", "training, corrupted labels", "training, intact labels")


@dataclass(frozen=True)
class Row:
    """A net, noise and loss: each quantity's values over the seeds, in %, and what the paper prints, where it does.

    There are no values where all seeds diverged.
    """

    depth: int
    noise: int
    loss: str
    values: dict[str, list[float]]
    printed: dict[str, float]
    name: str = ""  # the loss, and how many of its seeds diverged, where some did

    @property
    def group(self) -> str:
        """What is compared over losses."""
        return group_name(Cell(self.depth, self.noise, self.loss, 0))

    def mean(self, quantity: str) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values[quantity])

    def cells(self, with_paper: Sequence[str]) -> list[str]:
        """What is in the columns of `table_of`: means with deviations and, of some quantities, the paper's value."""
        cells = [f"ResNet-{self.depth}", str(self.noise), self.name or self.loss]
        for quantity, values in self.values.items():
            cells.append(mean_text(values))
            if quantity in with_paper:
                cells.append(f"{self.printed[quantity]:.1f}" if quantity in self.printed else "")
        return cells


def select_cells(
    number: int, seeds: int, *, depths: Sequence[int] = (), noises: Sequence[int] = (), losses: Sequence[str] = ()
) -> list[Cell]:
    """Return the cells of Table 1 or 2 for seeds 1 .. `seeds`, those of the given nets, noises and losses (none: all).

    Raises InputError for a net, noise or loss that the table does not have.
    """
    table = f"Table {number}"
    depths = chosen(table, "--net", depths, DEPTHS if number == 1 else DEPTHS[:2])
    noises = chosen(table, "--noise", noises, (0,) if number == 1 else [percent for percent in NOISE if percent])
    losses = chosen(table, "--loss", [loss.upper() for loss in losses], LOSSES)
    seed_numbers = range(1, seeds + 1)
    return [Cell(*parts) for parts in itertools.product(depths, noises, losses, seed_numbers)]


def rows_of(results: Sequence[Result], diverged: Sequence[Divergence] = ()) -> list[Row]:
    """Return a row for each net, noise and loss, in the order of the results."""
    rows = []
    for group in groups_of(results, diverged):
        cell = group.cell
        key = cell.depth, cell.noise, cell.loss
        values = {name: group.values(name) for name in QUANTITIES}
        rows.append(Row(*key, values, _printed(*key), group.named(cell.loss)))
    return rows


def table_of(rows: Sequence[Row], caption: str = "") -> Table:
    """Return a table of the rows; the paper's values have columns of their own, where it prints some."""
    printed = [quantity for quantity in QUANTITIES if any(quantity in row.printed for row in rows)]
    header = ["net", "noise, %", "loss"]
    for quantity, title in zip(QUANTITIES, COLUMNS, strict=True):
        header += [title, "paper"] if quantity in printed else [title]
    return Table(header, [row.cells(printed) for row in rows], caption)


def orderings(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """Return how the losses' final test accuracies are ordered: in one sentence, and by net and noise."""
    groups: dict[str, list[Row]] = {}
    for row in (row for row in rows if row.values["final"]):
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


def write_report(number: int, outcome: Outcome) -> list[Path]:
    """Write `table1` or `table2`, .html and .md, with its figure, into the sweep's folder; return the pages' paths."""
    rows = rows_of(outcome.results, outcome.diverged)
    summary, order = orderings(rows)
    drawn = draw_test_accuracy(outcome.results, columns=len({row.noise for row in rows}))
    caption = f"Accuracy, %: {spread(outcome.results)}; beside it the paper's, where it prints one."
    if number == 1:
        caption += " The paper's Table 1 has one test accuracy, which is compared with the final one."
    parts: list[Part] = [
        summary,
        table_of(rows, caption),
        Heading("Order of the losses by final test accuracy, %"),
        Items(order),
        Heading("Test accuracy against iteration"),
        Figure(f"table{number}_test_accuracy", drawn, "Test accuracy, %, mean over the seeds."),
    ]
    title = f"Table {number}: CIFAR-10, {'intact' if number == 1 else 'corrupted'} labels"
    return write_sweep_page(f"table{number}", title, parts, outcome)


def _printed(depth: int, noise: int, loss: str) -> dict[str, float]:
    """What the paper prints of a cell, by quantity."""
    if noise:
        return dict(zip(QUANTITIES, TABLE_2.get((depth, noise, loss), ()), strict=False))
    return {"final": TABLE_1[depth, loss]} if (depth, loss) in TABLE_1 else {}
