"""`imae plot`: pictures of what a training left."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.hints import Command, Group
from imae.cli.options import argument, option

plot = typer.Typer(cls=Group, help="Draw what a training left.", no_args_is_help=True)


@plot.callback()
def _plot() -> None:
    """Draw what a training left."""


@plot.command(cls=Command)
def samples(
    record: Annotated[Path, argument("PREFIX.samples.npz", "The record.")],
    output: Annotated[Path | None, option("STEM", "Writes STEM.png and .svg; by default beside the record.")] = None,
) -> None:
    """Draw how p_y and the weights of the training samples are distributed, from test to test.

    The record is what [bold]imae train --record-samples[/] keeps. Intact and corrupted labels stand apart.

    [bold]imae plot samples digits/imae.samples.npz[/]
    """
    from imae.experiments.sample_picture import draw_samples

    for path in draw_samples(record, output or record.with_suffix("")):
        typer.echo(f"Wrote {path}")
