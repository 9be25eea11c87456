"""`imae convert`: data sets into the LMDBs and mean images that Caffe reads."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.hints import Command, Group
from imae.cli.options import LARGEST, load_torch
from imae.cli.progress import Display

convert = typer.Typer(cls=Group, help="Convert a data set to what Caffe reads.", no_args_is_help=True)


@convert.command(cls=Command)
def cifar10(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="ROOT", help="The folder with cifar-10-batches-py or cifar-10-batches-bin.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.", show_default=False)],
    pad: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=LARGEST,
            help="Also write the training images with N zeros on each side, for random crops.",
        ),
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is in OUT.")] = False,
) -> None:
    """Write CIFAR-10 as LMDBs, and the mean of its training images.

    [bold]imae convert cifar10 data data/lmdb --pad 4[/]
    """
    load_torch()
    from imae.layers.data.convert import convert_cifar10

    with Display() as display:
        written = convert_cifar10(
            root, out, pad=pad, force=force, progress=lambda done, total: display.advance("images", done, total)
        )
    for path in written:
        typer.echo(path)
