"""`imae features`: a blob of a net for each image of its data, or for each of some files."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from imae.cli.options import Model, NetOptions, argument, option, stages_in, taking
from imae.cli.predict import Batch, Channels, ImageNet, Mean, Resize, Scale, Shape, WeightsIfAny, end, predicted
from imae.cli.progress import Display
from imae.prototxt_like.errors import counted


@taking(NetOptions, "level")
def features(
    images: Annotated[
        list[str] | None, argument("IMAGES", "Files, folders and patterns, in place of the net's data.")
    ] = None,
    *,
    model: Model,
    weights: WeightsIfAny = None,
    blob: Annotated[str, option("BLOB", "The blob: a value of the net, by its name.", "--blob")],
    output: Annotated[Path, option("FILE", "The file to write: .npy, .npz or .parquet.", "--output", "-o")],
    data: Annotated[Path | None, option("PATH", "The data to read, in place of the prototxt's source.")] = None,
    shape: Shape = "",
    resize: Resize = "",
    channels: Channels = "",
    mean: Mean = "",
    scale: Scale = None,
    batch: Batch = 32,
    options: NetOptions,
) -> None:
    """Write a blob of a net, in phase TEST, for each image of its data: a row of float32 numbers each.

    What is done so far stays on the disk: interrupted or killed, the same command goes on from there. For IMAGES, by a
    prototxt or an ONNX model, it runs in ONNX Runtime as `imae predict` does; .npz and .parquet have their names, too.

    [bold]imae features --model net.prototxt --weights net.caffemodel --blob pool5/7x7_s1 --data MARS -o features.npy[/]
    """
    from imae.experiments.feature_files import check_format

    check_format(output)
    shared: dict[str, Any] = {"stage": options.stage, "cpu": options.cpu, "threads": options.threads}
    of_images = ImageNet(weights, shape, resize, channels, mean, scale, batch=batch, **shared)
    if images:
        if data is not None or options != NetOptions(**shared):
            raise typer.BadParameter("of the nets' options, images go with --cpu, --threads and --stage alone")
        _of_images(of_images, images, model, blob, output)
        return
    if of_images != ImageNet(weights, **shared):
        raise typer.BadParameter("--shape, --resize, --channels, --mean, --scale and --batch go with IMAGES")
    if model.suffix == ".onnx":
        raise typer.BadParameter(f"{model} has no data of its own: give IMAGES")
    if weights is None:
        raise typer.BadParameter("--weights FILE is missing")
    _of_data(model, weights, blob, output, data, options)


def _of_data(model: Path, weights: Path, blob: str, output: Path, data: Path | None, options: NetOptions) -> None:
    """The features of the net's own data."""
    device = options.start()
    import numpy as np

    from imae.experiments.feature_files import write_features
    from imae.experiments.features import extract_features

    since, converted = time.perf_counter(), output.suffix in (".npz", ".parquet")
    table = output.with_name(f"{output.name}.npy") if converted else output
    with Display() as display:
        report = extract_features(
            model,
            weights,
            blob,
            table,
            data=data,
            stages=stages_in(options.stage),
            device=device,
            show=display.show,
            on_progress=lambda done, total: display.advance("images", done, total),
            **options.settings,
        )
    if converted:
        write_features(output, np.load(table, mmap_mode="r"))
        table.unlink()
    seconds, images = time.perf_counter() - since, report.rows - report.found
    typer.echo(f"Wrote {output}: {counted(report.rows, 'row')} of {counted(report.features, 'feature')}")
    before = f", the first {report.found} by an earlier run" if report.found else ""
    typer.echo(f"{counted(images, 'image')} in {seconds:.1f} s ({images / seconds:.4g} images/s){before}")


def _of_images(net: ImageNet, given: list[str], model: Path, blob: str, output: Path) -> None:
    """The features of image files."""
    predictor = net.start(model, outputs=[blob])
    import numpy as np

    from imae.experiments.feature_table import FeaturesOfFiles, trace
    from imae.layers.data.image_sources import find_images

    files = [file for name in given for file in find_images(name)]
    sources = [model, net.weights or model.with_suffix(".caffemodel"), Path(f"{model}.data"), Path(net.mean or model)]
    table = FeaturesOfFiles(output, files, replace(net, threads=None), blob, [trace(path) for path in sources])
    for number in table.broken:
        typer.echo(f"imae: warning: {files[number]}: could not be read by an earlier run; passed over", err=True)
    with contextlib.closing(predicted(predictor, files, table.leave_out, table.rest)) as found:
        for number, row in found:
            table.append(number, np.asarray(row[blob], np.float32))
    table.finish()
    if table.table:
        before = f", the first {table.found} by an earlier run" if table.found else ""
        rows = counted(table.table.rows, "row")
        typer.echo(f"Wrote {output}: {rows} of {counted(table.features, 'feature')}{before}")
    end(files, table.broken)
