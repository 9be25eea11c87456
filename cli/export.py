"""`imae export`: a net and its weights as an ONNX model."""

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from imae.cli.options import (
    LARGEST,
    AllowPython,
    Model,
    SkipBroken,
    StageOption,
    Weights,
    flag,
    load_torch,
    option,
    stages_in,
)
from imae.cli.progress import Display
from imae.prototxt_like.errors import InputError, counted

_SIZES = re.compile(r"[1-9]\d{0,9}([x,][1-9]\d{0,9})*", re.ASCII)


def export(
    model: Model,
    weights: Weights,
    output: Annotated[Path, option("FILE.onnx", "The file to write.", "--output", "-o")],
    shape: Annotated[
        list[str] | None,
        option(
            "[NAME=]CxHxW",
            "The shape of an image, where the net's data is not at hand to tell it, or of any input, by name.",
        ),
    ] = None,
    outputs: Annotated[str, option("BLOB,...", "The blobs to give out; without it, all that nothing reads.")] = "",
    stage: StageOption = "",
    dynamic: Annotated[
        str, option("SIZE,...", "The sizes that stay open: of batch, height and width, or none.")
    ] = "batch",
    fold: Annotated[
        bool, typer.Option(help="Make BatchNorm, Scale and Bias part of the convolution or inner product before them.")
    ] = True,
    preprocess: Annotated[
        bool,
        flag(
            "--preprocess",
            "Take images as files have them, uint8 NxHxWxC: resize, crop, remove the mean and scale in the model.",
        ),
    ] = False,
    resize: Annotated[str, option("HxW", "With --preprocess: bring images to this size, before a crop.")] = "",
    channels: Annotated[
        str,
        option(
            "RGB|BGR",
            "With --preprocess: the order that the net was trained on. The model takes RGB. Without: what its "
            "data layer reads; where that is unknown, the channels stay as they come.",
        ),
    ] = "",
    mean: Annotated[
        str, option("FILE|V,V,V", "With --preprocess: the mean, for a net that begins with an Input.")
    ] = "",
    scale: Annotated[float | None, option("S", "With --preprocess: the scale, for such a net.")] = None,
    include_transform: Annotated[
        bool, flag("--include-transform", "Take float pixels, 0 to 255, of the window that the net sees.")
    ] = False,
    labels: Annotated[Path | None, option("FILE", "The names of the classes, one a line, for the metadata.")] = None,
    continuous: Annotated[
        bool, flag("--continuous", "Recurrent layers: no sequence begins inside of a batch, cont is 1.")
    ] = False,
    opset: Annotated[
        int | None, option("N", "The version of ONNX's operators, from 13; the newest by default.")
    ] = None,
    precision: Annotated[str, option("fp32|fp16|int8", "In how many bits, by ONNX Runtime's own tools.")] = "fp32",
    calibration: Annotated[
        Path | None,
        option(
            "FOLDER",
            "With int8: images by whose ranges activations are quantized; without it that is done as they come.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            "--check/--no-check",
            help="Run the model in ONNX Runtime, and compare its outputs with the net's.",
        ),
    ] = True,
    allow_python: AllowPython = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Write the net that predicts, in phase TEST without data and losses, as an ONNX model.

    [bold]imae export --model net.prototxt --weights net_iter_64000.caffemodel --output net.onnx[/]
    """
    image, shapes = _shapes(shape or [])
    names = read_labels(labels)
    settings = {"--resize": resize, "--channels": channels, "--mean": mean, "--scale": scale}
    for name, value in settings.items():
        if value not in ("", None) and not preprocess:
            raise typer.BadParameter(f"{name} goes with --preprocess")
    if preprocess and include_transform:
        raise typer.BadParameter("--preprocess and --include-transform take different images: give one of them")
    if channels not in ("", "RGB", "BGR"):
        raise typer.BadParameter(f'--channels takes RGB or BGR, not "{channels}"')
    if precision not in ("fp32", "fp16", "int8"):
        raise typer.BadParameter(f'--precision takes fp32, fp16 or int8, not "{precision}"')
    if calibration is not None and precision != "int8":
        raise typer.BadParameter("--calibration goes with --precision int8")
    size = read_size(resize)
    load_torch()
    from imae.nets.onnx_export import export_onnx
    from imae.nets.onnx_precision import calibration_feeds, convert
    from imae.nets.onnx_preprocess import ImageOptions
    from imae.nets.onnx_verify import verify as compare

    images = _image_files(calibration) if calibration is not None else []
    options = ImageOptions(size, channels, mean, scale)
    report = export_onnx(
        model,
        weights,
        output,
        shape=image,
        shapes=shapes,
        outputs=[blob for blob in outputs.split(",") if blob],
        stages=stages_in(stage),
        include_transform=include_transform,
        preprocess=preprocess and options,
        opset=opset,
        dynamic=[size for size in dynamic.split(",") if size not in ("", "none")],
        fold_channels=fold,
        continuous=continuous,
        labels=names,
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
    for dimension, reason in report.sizes.closed.items():
        typer.echo(f"The {dimension} is fixed: {reason}")
    for reason in report.by_batch:
        typer.echo(f"Results depend on the batch: {reason}")
    for name, prepared in report.images.items():
        if prepared.raw:
            typer.echo(f"{name} takes uint8 images, channels {prepared.channels}")
    with Display() as display:
        seen = [compare(report, model, progress=lambda *runs: display.advance("verify", *runs))] if verify else []
    typer.echo("".join(f"{line}\n" for line in seen), nl=False)
    if precision != "fp32":
        convert(report.path, precision, calibration_feeds(report, model, images))
        typer.echo(f"Made it {precision}: {report.path.stat().st_size:,} bytes")
        if verify:
            typer.echo(compare(report, model, tolerance=math.inf, kinds=["random"]))


def _shapes(given: list[str]) -> tuple[list[int], dict[str, list[int]]]:
    """The shape of an image, and those of inputs by name."""
    image: list[int] = []
    shapes: dict[str, list[int]] = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")
        if equals:
            shapes[name] = sizes_in("--shape", "NAME=1x3x32x32", sizes)
        else:
            image = sizes_in("--shape", "CxHxW, such as 3x32x32", sizes)
    return image, shapes


def sizes_in(option: str, what: str, text: str) -> list[int]:
    """The numbers of a text such as 3x32x32, none of an empty one."""
    if text and not _SIZES.fullmatch(text):
        raise typer.BadParameter(f'{option} takes {what}, not "{text}"')
    sizes = [int(size) for size in re.split("[x,]", text) if size]
    if math.prod(sizes) > LARGEST:
        raise typer.BadParameter(f"{option} {text}: an image of more than {LARGEST:,} numbers, which no blob can hold")
    return sizes


def read_size(resize: str) -> tuple[int, int] | None:
    """Return the height and width that --resize gives, None for an empty one."""
    size = sizes_in("--resize", "HxW, such as 256x256", resize)
    if len(size) not in (0, 2):
        raise typer.BadParameter(f"--resize takes HxW, such as 256x256, not {resize}")
    return (size[0], size[1]) if size else None


def read_labels(path: Path | None) -> list[str]:
    """Return the names of the classes, none without a file; raises InputError for one that lacks some."""
    if path is None:
        return []
    from imae.prototxt_like.files import read_bytes

    try:
        names = read_bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8: {error}") from None
    if not names or not all(name.strip() for name in names):
        raise InputError(f"{path}: needs the name of a class on each line")
    return [name.strip() for name in names]


def _image_files(folder: Path) -> list[Path]:
    """All files below a folder, in the order of their names."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder, expected one of images to calibrate by")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise InputError(f"{folder}: has no images to calibrate by")
    return files
