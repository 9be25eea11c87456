"""`imae init`: a net, a solver and data layers for a user's own images."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import (
    LARGEST_SEED,
    Columns,
    Loss,
    argument,
    choice,
    column_pair,
    flag,
    load_torch,
    number,
    option,
)
from imae.prototxt_like.errors import counted


def init(
    source: Annotated[
        Path,
        argument(
            "FOLDER|CSV",
            "A folder with a subfolder for each class, a .csv or .tsv of paths and labels, or a list of a path "
            "and a label a line, as the cleaned.txt of imae audit.",
        ),
    ],
    out: Annotated[Path, argument("OUT", "The folder to write to.")],
    loss: Annotated[Loss, choice("What is trained by.")] = Loss.IMAE,
    parameter: Annotated[float | None, option("T|Q", "T of IMAE, 8 without it, or q of GCE, 0.7.")] = None,
    val: Annotated[float, option("PART", "The part of each class that is held out.", min=0.001, max=0.9)] = 0.1,
    root: Annotated[Path | None, option("FOLDER", "Where the paths begin; else beside the list, else here.")] = None,
    columns: Columns = "",
    gray: Annotated[bool, flag("--gray", "Read one channel, without colour.")] = False,
    seed: Annotated[int, number("Which images are held out follows from it.", 0, LARGEST_SEED)] = 0,
    force: Annotated[bool, flag("--force", "Overwrite what is in OUT.")] = False,
) -> None:
    """Write a commented net, solver and lists to train and test on, for your own images; all is yours to change.

    [bold]imae init photos/ training && imae train --solver training/solver.prototxt[/]
    """
    pair = column_pair(columns)
    load_torch()
    from imae.nets.new_project import write_project

    written = write_project(
        source,
        out,
        loss=loss.lower(),
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
