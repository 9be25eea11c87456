"""`imae init`: a net, a solver and data layers for a user's own images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import LARGEST_SEED, load_torch, number
from imae.prototxt_like.errors import counted


class Loss(StrEnum):
    """A loss to train by."""

    imae = "imae"
    gce = "gce"
    cce = "cce"
    mae = "mae"


def init(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|CSV",
            help="A folder with a subfolder for each class, a .csv or .tsv of paths and labels, or a list of a path "
            "and a label a line, as the cleaned.txt of imae audit.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    loss: Annotated[Loss, typer.Option(case_sensitive=False, help="What is trained by.")] = Loss.imae,
    parameter: Annotated[
        float | None, typer.Option(metavar="T|Q", help="T of IMAE, 8 without it, or q of GCE, 0.7.")
    ] = None,
    val: Annotated[
        float, typer.Option(metavar="PART", min=0.001, max=0.9, help="The part of each class that is held out.")
    ] = 0.1,
    root: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the paths begin; else beside the list, else here.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            metavar="PATH,LABEL", help="A table's columns, by name or number; else its header tells, or the first two."
        ),
    ] = "",
    gray: Annotated[bool, typer.Option("--gray", help="Read one channel, without colour.")] = False,
    seed: Annotated[int, number("Which images are held out follows from it.", 0, LARGEST_SEED)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is in OUT.")] = False,
) -> None:
    """Write a commented net, solver and lists to train and test on, for your own images; all is yours to change.

    [bold]imae init photos/ training && imae train --solver training/solver.prototxt[/]
    """
    pair = tuple(name.strip() for name in columns.split(",")) if columns else None
    if pair is not None and len(pair) != 2:
        raise typer.BadParameter(f'--columns takes PATH,LABEL, not "{columns}"')
    load_torch()
    from imae.nets.new_project import write_project

    written = write_project(
        source,
        out,
        loss=loss.value,
        parameter=parameter,
        val=val,
        root=root,
        columns=pair,
        gray=gray,
        seed=seed,
        force=force,
    )
    typer.echo(
        f"Wrote {out}: {counted(written.train, 'image')} of {counted(written.classes, 'class')} to train on, "
        f"{written.val} held out, of {written.side} x {written.side} pixels"
    )
    typer.echo(f"imae train --solver {written.solver}")
