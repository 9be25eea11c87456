"""`imae reproduce`: the paper's tables and figures."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.table import print_table

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
