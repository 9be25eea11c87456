"""`imae import-onnx`: an ONNX model as a prototxt and a caffemodel."""

from pathlib import Path
from typing import Annotated

import typer

from imae.cli.export import sizes_in
from imae.cli.options import argument, load_torch, option
from imae.prototxt_like.errors import counted


def import_onnx(
    model: Annotated[Path, argument("MODEL.onnx", "The model.")],
    out: Annotated[Path, argument("OUT", "OUT.prototxt and OUT.caffemodel are written.")],
    shape: Annotated[str, option("CxHxW", "The shape of an image, where the model leaves height and width open.")] = "",
) -> None:
    """Write an ONNX model, one of `imae export` or a plain CNN, as a prototxt and a caffemodel.

    A node that no layer of Caffe's does is named, with the reason, and the net is compared with the model in ONNX
    Runtime, before anything is written.

    [bold]imae import-onnx net.onnx net[/]
    """
    sizes = sizes_in("--shape", "CxHxW, such as 3x32x32", shape)
    load_torch()
    from imae.nets.onnx_import import import_onnx

    report = import_onnx(model, out, shape=sizes)
    typer.echo(
        f"Wrote {report.prototxt} and {report.caffemodel}: {counted(report.layers, 'layer')}, "
        f"{counted(report.numbers, 'weight')}"
    )
    for name, images in report.images.items():
        typer.echo(f'The input "{name}" takes {images}')
    but = f" but for {', '.join(report.undecided)}, where rounding decides" if report.undecided else ""
    typer.echo(
        "Largest difference from the model in ONNX Runtime, relative to an output's standard deviation, on random "
        f"input{but}: {report.difference:.1e}"
    )
