"""`imae export`: a net and its weights as an ONNX model."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imae.cli.options import LARGEST, AllowPython, Model, SkipBroken, Weights, load_torch
from imae.prototxt_like.errors import counted

if TYPE_CHECKING:
    from imae.nets.onnx_export import OnnxReport

_IMAGES = 4
"""How many random images the check compares."""


def export(
    model: Model,
    weights: Weights,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.onnx", help="The file to write.", show_default=False)
    ],
    shape: Annotated[
        str,
        typer.Option(metavar="CxHxW", help="The shape of an image, where the net's data is not at hand to tell it."),
    ] = "",
    outputs: Annotated[
        str, typer.Option(metavar="BLOB,...", help="The blobs to give out; without it, all that nothing reads.")
    ] = "",
    include_transform: Annotated[
        bool,
        typer.Option("--include-transform", help="Take pixels, 0 to 255: subtract the mean and scale in the model."),
    ] = False,
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="The version of ONNX's operators, from 13; the newest by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare the model in ONNX Runtime with the net, on random images.")
    ] = True,
    allow_python: AllowPython = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Write the net that predicts, in phase TEST without data and losses, as an ONNX model.

    [bold]imae export --model net.prototxt --weights net_iter_64000.caffemodel --output net.onnx[/]
    """
    sizes = _sizes(shape)
    blobs = [blob for blob in outputs.split(",") if blob]
    load_torch()
    from imae.nets.onnx_export import export_onnx

    report = export_onnx(
        model,
        weights,
        output,
        shape=sizes,
        outputs=blobs,
        include_transform=include_transform,
        opset=opset,
        allow_python=allow_python,
        skip_broken=skip_broken,
    )
    typer.echo(
        f"Wrote {report.path}: {counted(report.nodes, 'node')}, {counted(report.constants, 'constant')}, "
        f"opset {report.opset}"
    )
    for what, values in (("input", report.inputs), ("output", report.outputs)):
        for name, dimensions in values.items():
            typer.echo(f"{what} {name}: {'x'.join(map(str, dimensions))}")
    if check and include_transform:
        typer.echo("Not compared with the net, which takes no pixels; without --include-transform it is.")
    elif check:
        difference = _difference(model, weights, report, sizes, blobs, skip_broken)
        typer.echo(f"Largest difference from the net on {_IMAGES} random images, in ONNX Runtime: {difference:.1e}")


def _sizes(shape: str) -> list[int]:
    """The numbers of `CxHxW`, none of an empty text."""
    if shape and not re.fullmatch(r"[1-9]\d{0,9}([x,][1-9]\d{0,9})*", shape, re.ASCII):
        raise typer.BadParameter(f'--shape takes CxHxW, such as 3x32x32, not "{shape}"')
    sizes = [int(size) for size in re.split("[x,]", shape) if size]
    if math.prod(sizes) > LARGEST:
        raise typer.BadParameter(f"--shape {shape}: an image of more than {LARGEST:,} numbers, which no blob can hold")
    return sizes


def _difference(
    model: Path, weights: Path, report: "OnnxReport", shape: list[int], outputs: list[str], skip_broken: bool
) -> float:
    import torch

    from imae.nets.deploy import deploy
    from imae.nets.net import Net
    from imae.nets.onnx_export import compare_with_onnxruntime

    net = Net(deploy(model, shape=shape, outputs=outputs, skip_broken=skip_broken), backward=False)
    net.copy_weights(weights)
    generator = torch.Generator().manual_seed(0)
    sizes = {name: [_IMAGES if size == "N" else int(size) for size in given] for name, given in report.inputs.items()}
    inputs = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    return compare_with_onnxruntime(report.path, net, inputs)
