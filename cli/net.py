"""`imae net`: well-known nets as prototxt."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import argument, flag, number, option


def _names() -> list[str]:
    from imae.nets.zoo import NETS

    return [*NETS]


def net(
    name: Annotated[str, argument("NAME", "One of --list.", autocompletion=_names)] = "",
    out: Annotated[Path | None, argument("OUT.prototxt", "The file to write; without it, the screen.")] = None,
    classes: Annotated[int | None, number("How many classes; without it as many as published.", 1)] = None,
    batch: Annotated[int | None, number("Images of a batch; 1 with --deploy.", 1)] = None,
    source: Annotated[
        str,
        option(
            "FOLDER", "The folder with train_lmdb and val_lmdb, to train on; without it the net begins with an Input."
        ),
    ] = "",
    deploy: Annotated[bool, flag("--deploy", "Write the net that predicts, without data, labels and losses.")] = False,
    listed: Annotated[bool, flag("--list", "List the nets, their parameters and papers.")] = False,
) -> None:
    """Write a well-known net, with the parameters that were published.

    [bold]imae net resnet50 resnet50.prototxt --classes 20 --source data[/]

    It becomes yours to edit; docs/zoo.md says what it takes and gives.
    """
    from imae.nets import zoo

    if listed:
        for known, published in zoo.NETS.items():
            typer.echo(f"{known:<20} {published.parameters:>11,}  {published.paper}")
        return
    if not name:
        raise typer.BadParameter("which net? --list names them")
    if deploy and source:
        raise typer.BadParameter("give --deploy or --source, not both: a net that predicts reads no data")
    from imae.prototxt_like.text import format_text, write_text

    given = {"classes": classes, "batch": batch or int(deploy)}
    written = zoo.build(name, source=source, **{setting: value for setting, value in given.items() if value})
    if deploy:
        from imae.cli.options import load_torch

        load_torch()
        from imae.nets.deploy import deploy as without_data

        written = without_data(written)
    if out is None:
        typer.echo(format_text(written), nl=False)
    else:
        write_text(written, out)
        typer.echo(f"Wrote {out}")
