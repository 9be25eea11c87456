"""`imae features`: a blob of a net for each image of its data."""

import time
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import Model, NetOptions, Weights, taking
from imae.cli.progress import Display
from imae.prototxt_like.errors import counted


@taking(NetOptions, "level", "stage")
def features(
    model: Model,
    weights: Weights,
    blob: Annotated[
        str, typer.Option(metavar="BLOB", help="The blob: a value of the net, by its name.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.npy", help="The file to write.", show_default=False)
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The data to read, in place of the prototxt's source.", show_default=False),
    ] = None,
    options: NetOptions,
) -> None:
    """Write a blob of a net, in phase TEST, for each image of its data: a row of float32 numbers each.

    What is done so far stays on the disk: interrupted or killed, the same command goes on from there.

    [bold]imae features --model net.prototxt --weights net.caffemodel --blob pool5/7x7_s1 --data MARS -o features.npy[/]
    """
    device = options.start()
    from imae.experiments.features import extract_features

    since = time.perf_counter()
    with Display() as display:
        report = extract_features(
            model,
            weights,
            blob,
            output,
            data=data,
            device=device,
            show=display.show,
            on_progress=lambda done, total: display.advance("images", done, total),
            **options.settings,
        )
    seconds, images = time.perf_counter() - since, report.rows - report.found
    typer.echo(f"Wrote {output}: {counted(report.rows, 'row')} of {counted(report.features, 'feature')}")
    before = f", the first {report.found} by an earlier run" if report.found else ""
    typer.echo(f"{counted(images, 'image')} in {seconds:.1f} s ({images / seconds:.4g} images/s){before}")
