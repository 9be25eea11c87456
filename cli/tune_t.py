"""`imae tune-t`: choose T of IMAE, and q of GCE, on training images held out."""

import re
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import number, option, taking
from imae.cli.sweep_options import SweepOptions, of_cells
from imae.cli.table import print_table


@taking(SweepOptions)
def tune_t(
    options: SweepOptions,
    noise: Annotated[
        int | None, option("PERCENT", "Replace so many labels at random: 0, 20, 50 (default) or 80.")
    ] = None,
    labels: Annotated[
        str | None,
        option("FILE[:KEY]", "Train on these labels: .npy, an array of an .npz or .pt, or text with one a line."),
    ] = None,
    net: Annotated[int, option("DEPTH", "The ResNet: 20, 32 or 56.")] = 20,
    held_out: Annotated[int, number("Hold the last N training images out.", 1)] = 5000,
    T: Annotated[list[float] | None, of_cells("T", "0, 0.5, 1, ..., 16.", "--T")] = None,
    q: Annotated[list[float] | None, of_cells("Q", "0.1, 0.3, ..., 0.9.", "--q")] = None,
) -> None:
    """Choose T of IMAE, and q of GCE, by training with each value and comparing on training images held out.

    The best is picked by labels such as those trained on and, where these are drawn or given, also by the images' own
    labels, as the data has them; the report says what each pick costs in test accuracy. What is finished stays on disk:
    the same command, given again, goes on where it was stopped or killed.

    --labels takes one label for each training image. Own images can stand in for CIFAR-10's in the layout of its binary
    version (cifar-10-batches-bin), with their labels as they are and --noise 0: there is one pick then.

    [bold]imae tune-t --data DATA --schedule short --noise 50 --T 4 --T 8 --jobs 2[/]
    """
    from imae.experiments.cell import CLASSES
    from imae.experiments.paper import T_GRID
    from imae.experiments.tuning import Q_GRID, candidates_of, columns_of, picks, rows_of, tuning_cells, write_tuning
    from imae.layers.data.cifar10_data import load_cifar10
    from imae.layers.data.label_noise import load_labels

    if labels and noise is not None:
        raise typer.BadParameter("give --noise or --labels, not both")
    name = re.sub(r"[^\w.-]", "-", Path(labels).name) if labels else ""
    cells = tuning_cells(
        depth=net,
        noise=0 if labels else 50 if noise is None else noise,
        labels=name,
        held_out=held_out,
        seeds=options.seed_count,
        T=T or T_GRID,
        q=q or Q_GRID,
    )
    sweep = options.sweep()
    own = {}
    if labels:
        given = load_cifar10(options.root, True)[1].numpy()
        own[name] = load_labels(labels, len(given), CLASSES, intact=given)
    outcome = options.run(sweep, cells, write_tuning, own)
    candidates = candidates_of(outcome.results, outcome.diverged)
    print_table(columns_of(candidates), rows_of(candidates), right=[1, 2, 3])
    for pick in picks(candidates):
        typer.echo(pick.text)
    for path in write_tuning(outcome):
        typer.echo(path)
    options.end()
