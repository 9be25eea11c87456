"""`imae reproduce`: the paper's tables and figures, and what was measured beside them."""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imae.cli.digits_retrieval import digits_retrieval
from imae.cli.options import argument, option, taking
from imae.cli.sweep_options import SweepOptions, of_cells
from imae.cli.table import print_table
from imae.prototxt_like.files import create_folder

if TYPE_CHECKING:
    from imae.experiments.cell import Cell


class What(StrEnum):
    """What can be reproduced."""

    table1 = "table1"
    table2 = "table2"
    figure2 = "figure2"
    figure3 = "figure3"
    figure4 = "figure4"
    figure6 = "figure6"
    figure7 = "figure7"
    figure8 = "figure8"
    weights = "weights"
    cifar10n = "cifar10n"
    digits_retrieval = "digits-retrieval"


_SWEEP = frozenset({"data", "schedule", "seeds", "jobs", "threads", "gpu", "cpu", "precision", "iterations", "subset"})
_TAKES: dict[What, frozenset[str]] = {
    What.table1: _SWEEP | {"net", "loss"},
    **dict.fromkeys((What.table2, What.figure3, What.figure4), _SWEEP | {"net", "noise", "loss"}),
    **dict.fromkeys((What.figure6, What.figure7, What.figure8), _SWEEP | {"T"}),
    What.cifar10n: _SWEEP | {"labels", "set", "net", "loss"},
    What.digits_retrieval: frozenset({"noise", "loss", "seeds", "iterations"}),
    What.figure2: frozenset({"net"}),
    What.weights: frozenset(),
}
"""The options of each, besides --output."""


def _what(text: str) -> What:
    try:
        return What(text.lower().replace("_", "-"))
    except ValueError:
        raise typer.BadParameter(f"there is no {text}; expected one of {', '.join(What)}") from None


@taking(SweepOptions)
def reproduce(
    options: SweepOptions,
    what: Annotated[What, argument("WHAT", "As listed above.", parser=_what, autocompletion=lambda: [*What])],
    net: Annotated[list[int] | None, of_cells("DEPTH", "A ResNet: 20, 32, 56.")] = None,
    noise: Annotated[list[int] | None, of_cells("PERCENT", "Replace so many labels at random: 20, 50, 80.")] = None,
    loss: Annotated[list[str] | None, of_cells("LOSS", "CCE, MAE, GCE, IMAE.", "--loss")] = None,
    T: Annotated[list[float] | None, of_cells("T", "A T of the figure's: 0, 0.5, 1, ...", "--T")] = None,
    labels: Annotated[Path | None, option("FILE.npz", "The labels of CIFAR-10N.")] = None,
    set_: Annotated[list[str] | None, of_cells("NAME", "aggre_label, worse_label, ...", "--set")] = None,
) -> None:
    """Reproduce WHAT of the paper, or what was measured beside it.

    [bold]table1[/], [bold]table2[/]: each net and loss on CIFAR-10, on intact labels and at 20, 50 and 80 % noise.

    [bold]figure3[/], [bold]figure4[/]: accuracy on the corrupted training set, and on the test set, against iteration:
    the cells of Table 2.

    [bold]figure6[/], [bold]figure7[/], [bold]figure8[/]: ResNet-20 for each T of IMAE, on intact labels and at 50 %
    noise: test accuracy, accuracy by the labels trained on, and (T = 4, 8, 16 at 50 %) by the intact ones.

    [bold]cifar10n[/]: each loss on the five sets of human labels of CIFAR-10N.

    [bold]digits-retrieval[/]: digits 5 to 9 retrieved by features learned from digits 0 to 4 with wrong labels, by the
    MARS protocol; by default at 0 and 50 % noise, with 3 seeds and 200 iterations.

    [bold]figure2[/]: the pipeline, with the shapes and parameters of a net built.

    [bold]weights[/]: Figures 1 and 5, a sample's weight against its probability, and Table 4, the weights' variance.

    All but the last two train. What is finished stays on disk: the same command, given again, goes on where it was
    stopped or killed, and with one --output no cell is trained twice.

    [bold]imae reproduce table2 --data DATA --schedule short --jobs 2[/]
    """
    for name in options.given - _TAKES[what] - {"output", "what"}:
        takes = ", ".join(f"--{option}" for option in sorted(_TAKES[what] | {"output"}))
        raise typer.BadParameter(f"{what} takes no --{name}; it takes {takes}")
    asked: dict[str, Any] = {"depths": net or (), "noises": noise or (), "losses": loss or ()}
    match what:
        case What.table1 | What.table2:
            _table(int(what[-1]), options, asked)
        case What.figure3 | What.figure4:
            from imae.experiments.tables import select_cells

            _curves(int(what[-1]), options, select_cells(2, options.seed_count, **asked))
        case What.figure6 | What.figure7 | What.figure8:
            from imae.experiments.curves import cells_by_T

            number = int(what[-1])
            _curves(number, options, cells_by_T(number, options.seed_count, T or ()))
        case What.cifar10n:
            if labels is None:
                raise typer.BadParameter("cifar10n needs --labels, the file with the labels of CIFAR-10N")
            _cifar10n(options, labels, net or (), set_ or (), loss or ())
        case What.digits_retrieval:
            digits_retrieval(options, noise or (), loss or ())
        case What.figure2:
            if net and len(net) > 1:
                raise typer.BadParameter("figure2 takes one --net")
            from imae.experiments.pipeline_figure import write_pipeline

            _echo(write_pipeline(net[0] if net else 20, options.folder))
        case What.weights:
            _weights(options.output or Path("weights"))
    options.end()


def _table(number: int, options: SweepOptions, asked: dict[str, Any]) -> None:
    from imae.experiments.tables import orderings, rows_of, select_cells, table_of, write_report

    cells = select_cells(number, options.seed_count, **asked)
    write_pages = partial(write_report, number)
    outcome = options.run(options.sweep(), cells, write_pages)
    rows = rows_of(outcome.results, outcome.diverged)
    table = table_of(rows)
    print_table(table.header, table.rows, right=[1, *range(3, len(table.header))])
    typer.echo(orderings(rows)[0])
    _echo(write_pages(outcome))


def _curves(number: int, options: SweepOptions, cells: "list[Cell]") -> None:
    from imae.experiments.curves import write_figure

    write_pages = partial(write_figure, number)
    _echo(write_pages(options.run(options.sweep(), cells, write_pages)))


def _cifar10n(
    options: SweepOptions, labels: Path, nets: Sequence[int], label_sets: Sequence[str], losses: Sequence[str]
) -> None:
    from imae.experiments.human_noise import HEADER, human_cells, read_label_sets, rows_of, write_human_noise

    cells = human_cells(options.seed_count, depths=nets, sets=label_sets, losses=losses)
    sweep, sets = options.sweep(), read_label_sets(labels, options.root)
    write_pages = partial(write_human_noise, sets)
    outcome = options.run(sweep, cells, write_pages, {cell.labels: sets[cell.labels] for cell in cells})
    rows = rows_of(sets, outcome.results, sweep.schedule.subset, outcome.diverged)
    print_table(HEADER, rows, right=[2])
    _echo(write_pages(outcome))


def _weights(output: Path) -> None:
    from imae.experiments import weighting

    create_folder(output)
    quadrature = weighting.variance_quadrature
    rows = [["MAE", "", f"{quadrature(weighting.weight_mae):.6f}", f"{weighting.MAE_VARIANCE:g}"]]
    for T, printed in weighting.TABLE_4.items():
        measured = quadrature(partial(weighting.weight_imae, T=T))
        rows.append([f"IMAE, T = {T:g}", f"{weighting.variance_closed_form(T):.6f}", f"{measured:.6f}", f"{printed:g}"])
    print_table(["loss", "closed form", "quadrature", "the paper"], rows, right=range(1, 4))
    _echo(weighting.plot_weights(output / "weights"))


def _echo(paths: list[Path]) -> None:
    for path in paths:
        typer.echo(path)
