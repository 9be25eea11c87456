"""`imae reproduce`: the paper's tables and figures."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imae.cli.sweep_options import CELLS, Loss, Net, Noise, SweepOptions, takes_sweep_options
from imae.cli.table import print_table

if TYPE_CHECKING:
    from imae.experiments.cell import Cell

Temperatures = Annotated[
    list[float] | None,
    typer.Option("--T", metavar="T", help="A T of the figure's: 0, 0.5, 1, ...", rich_help_panel=CELLS),
]

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


@reproduce.command()
@takes_sweep_options
def table1(options: SweepOptions, net: Net = None, loss: Loss = None) -> None:
    """Table 1: ResNet-20, 32 and 56 on CIFAR-10's intact labels, with each loss.

    What is finished stays on disk: the same command, given again, goes on where it was stopped or killed.

    [bold]imae reproduce table1 --data DATA --schedule short --jobs 2[/]
    """
    _table(1, options, net, None, loss)


@reproduce.command()
@takes_sweep_options
def table2(options: SweepOptions, net: Net = None, noise: Noise = None, loss: Loss = None) -> None:
    """Table 2: ResNet-20 and 32 on CIFAR-10 with 20, 50 and 80 % of the training labels drawn anew, with each loss.

    What is finished stays on disk: the same command, given again, goes on where it was stopped or killed.

    [bold]imae reproduce table2 --data DATA --schedule short --jobs 2[/]
    """
    _table(2, options, net, noise, loss)


@reproduce.command()
def figure2(
    net: Annotated[int, typer.Option(metavar="DEPTH", help="The ResNet: 20, 32, 56, ...")] = 20,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the figure and its page go.")] = Path("tables"),
) -> None:
    """Figure 2: the pipeline of embedding net, FC, softmax and loss, with the shapes and parameters of a net built.

    [bold]imae reproduce figure2 --net 20[/]
    """
    from imae.experiments.pipeline_figure import write_pipeline

    for path in write_pipeline(net, output):
        typer.echo(path)


@reproduce.command()
@takes_sweep_options
def figure3(options: SweepOptions, net: Net = None, noise: Noise = None, loss: Loss = None) -> None:
    """Figure 3: accuracy on the corrupted training set against iteration, by net, noise and loss: the cells of Table 2.

    With the --output of Table 2 its cells are not trained again. Goes on where it was stopped or killed.

    [bold]imae reproduce figure3 --data DATA --schedule short --jobs 2[/]
    """
    _curves_of_losses(3, options, net, noise, loss)


@reproduce.command()
@takes_sweep_options
def figure4(options: SweepOptions, net: Net = None, noise: Noise = None, loss: Loss = None) -> None:
    """Figure 4: accuracy on the intact test set against iteration, by net, noise and loss: the cells of Table 2.

    With the --output of Table 2 its cells are not trained again. Goes on where it was stopped or killed.

    [bold]imae reproduce figure4 --data DATA --schedule short --jobs 2[/]
    """
    _curves_of_losses(4, options, net, noise, loss)


@reproduce.command()
@takes_sweep_options
def figure6(options: SweepOptions, T: Temperatures = None) -> None:
    """Figure 6: test accuracy against iteration for each T of IMAE: ResNet-20 on intact labels and at 50 % noise.

    Figures 6, 7 and 8 share cells, with one --output also with the tables. Goes on where it was stopped or killed.

    [bold]imae reproduce figure6 --data DATA --schedule short --jobs 2[/]
    """
    _curves_of_T(6, options, T)


@reproduce.command()
@takes_sweep_options
def figure7(options: SweepOptions, T: Temperatures = None) -> None:
    """Figure 7: as Figure 6, the accuracy on the training set, by the labels trained on.

    Figures 6, 7 and 8 share cells, with one --output also with the tables. Goes on where it was stopped or killed.

    [bold]imae reproduce figure7 --data DATA --schedule short --jobs 2[/]
    """
    _curves_of_T(7, options, T)


@reproduce.command()
@takes_sweep_options
def figure8(options: SweepOptions, T: Temperatures = None) -> None:
    """Figure 8: accuracy on the training set by its intact labels, for T = 4, 8 and 16 at 50 % noise.

    Figures 6, 7 and 8 share cells, with one --output also with the tables. Goes on where it was stopped or killed.

    [bold]imae reproduce figure8 --data DATA --schedule short --jobs 2[/]
    """
    _curves_of_T(8, options, T)


@reproduce.command()
@takes_sweep_options
def cifar10n(
    options: SweepOptions,
    labels: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The labels of CIFAR-10N: the published .pt, or an .npz.", show_default=False
        ),
    ],
    net: Annotated[
        list[int] | None, typer.Option(metavar="DEPTH", help="A ResNet: 20 (default), 32, 56.", rich_help_panel=CELLS)
    ] = None,
    label_set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME", help="aggre_label, worse_label, ...", rich_help_panel=CELLS),
    ] = None,
    loss: Loss = None,
) -> None:
    """Human label noise: a ResNet on each of the five label sets of CIFAR-10N, with each loss.

    What is finished stays on disk: the same command, given again, goes on where it was stopped or killed.

    [bold]imae reproduce cifar10n --data DATA --labels cifar10n.npz --schedule short --set worse_label[/]
    """
    from imae.experiments.human_noise import HEADER, human_cells, read_label_sets, rows_of, write_human_noise

    cells = human_cells(options.seeds, depths=net or (), sets=label_set or (), losses=loss or ())
    sweep, sets = options.sweep(), read_label_sets(labels, options.data)
    write_pages = partial(write_human_noise, sets)
    outcome = options.run(sweep, cells, write_pages, {cell.labels: sets[cell.labels] for cell in cells})
    print_table(HEADER, rows_of(sets, outcome.results, sweep.schedule.subset), right=[2])
    for path in write_pages(outcome):
        typer.echo(path)


def _table(
    number: Literal[1, 2],
    options: SweepOptions,
    nets: list[int] | None,
    noises: list[int] | None,
    losses: list[str] | None,
) -> None:
    from imae.experiments.tables import orderings, rows_of, select_cells, table_of, write_report

    cells = select_cells(number, options.seeds, depths=nets or (), noises=noises or (), losses=losses or ())
    write_pages = partial(write_report, number)
    outcome = options.run(options.sweep(), cells, write_pages)
    rows = rows_of(outcome.results)
    table = table_of(rows)
    print_table(table.header, table.rows, right=[1, *range(3, len(table.header))])
    typer.echo(orderings(rows)[0])
    for path in write_pages(outcome):
        typer.echo(path)


def _curves_of_losses(
    number: Literal[3, 4],
    options: SweepOptions,
    nets: list[int] | None,
    noises: list[int] | None,
    losses: list[str] | None,
) -> None:
    from imae.experiments.tables import select_cells

    cells = select_cells(2, options.seeds, depths=nets or (), noises=noises or (), losses=losses or ())
    _curves(number, options, cells)


def _curves_of_T(number: Literal[6, 7, 8], options: SweepOptions, values: list[float] | None) -> None:
    from imae.experiments.curves import cells_by_T

    _curves(number, options, cells_by_T(number, options.seeds, values or ()))


def _curves(number: Literal[3, 4, 6, 7, 8], options: SweepOptions, cells: "list[Cell]") -> None:
    from imae.experiments.curves import write_figure

    write_pages = partial(write_figure, number)
    for path in write_pages(options.run(options.sweep(), cells, write_pages)):
        typer.echo(path)
