"""`imae predict`: what images show, by a net."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imae.cli.export import read_labels, read_size, sizes_in
from imae.cli.options import Cpu, StageOption, Threads, argument, flag, load_torch, number, option, stages_in, taking
from imae.cli.progress import Display
from imae.cli.table import print_table
from imae.prototxt_like.errors import InputError, counted

if TYPE_CHECKING:
    from imae.nets.predictor import Predictor


WeightsIfAny = Annotated[Path | None, option("FILE", "A prototxt's weights; for images, by default, NET.caffemodel's.")]
Shape = Annotated[str, option("CxHxW", "The shape of an image, where a prototxt's data is not at hand to tell it.")]
Resize = Annotated[str, option("HxW", "Bring images to this size, of which the net sees the centre.")]
Channels = Annotated[str, option("RGB|BGR", "The order that the net was trained on. Without: what is known, or BGR.")]
Mean = Annotated[str, option("FILE|V,V,V", "The mean, where neither prototxt nor model has it.")]
Scale = Annotated[float | None, option("S", "The scale, likewise.")]
Batch = Annotated[int, number("How many images at a time, where the model takes any number.", 1)]


@dataclass(frozen=True)
class ImageNet:
    """Which net images are put to, and how; each field is an option."""

    weights: WeightsIfAny = None
    shape: Shape = ""
    resize: Resize = ""
    channels: Channels = ""
    mean: Mean = ""
    scale: Scale = None
    stage: StageOption = ""
    batch: Batch = 32
    cpu: Cpu = False
    threads: Threads = None

    def start(self, model: Path, **choice: Any) -> "Predictor":
        """Load the model, and say what runs it."""
        shape, size = sizes_in("--shape", "CxHxW, such as 3x32x32", self.shape), read_size(self.resize)
        if self.channels not in ("", "RGB", "BGR"):
            raise typer.BadParameter(f"--channels takes RGB or BGR, not {self.channels}")
        load_torch(self.threads)
        from imae.nets.onnx_preprocess import ImageOptions
        from imae.nets.predictor import Predictor

        predictor = Predictor(
            model,
            self.weights,
            options=ImageOptions(size, self.channels, self.mean, self.scale),
            shape=shape,
            stages=stages_in(self.stage),
            batch=self.batch,
            cpu=self.cpu,
            threads=self.threads,
            **choice,
        )
        typer.echo(predictor, err=True)
        return predictor


def predicted(
    predictor: "Predictor", files: Sequence[Path], leave_out: Callable[[int], None], numbers: Sequence[int]
) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Yield the number of each file and the outputs for it, with progress; one that cannot be read is named, and told.

    `numbers` are those of the files that are asked for, the last ones.
    """
    since, done, before = time.perf_counter(), 0, len(files) - len(numbers)
    with Display() as display:

        def on_broken(place: int, error: InputError) -> None:
            leave_out(numbers[place])
            display.show(f"imae: warning: {error}; passed over")

        for place, row in predictor.each((files[number] for number in numbers), on_broken):
            yield numbers[place], row
            done += 1
            display.advance("images", before + place + 1, len(files))
    seconds = time.perf_counter() - since
    typer.echo(f"{counted(done, 'image')} in {seconds:.1f} s ({done / seconds:.4g} images/s)", err=True)


def end(files: Sequence[Path], left_out: Sequence[int]) -> None:
    """Exit with status 1 if files were left out."""
    if left_out:
        raise InputError(f"{counted(len(left_out), 'image')} could not be read, the first {files[min(left_out)]}")


@taking(ImageNet)
def predict(
    model: Annotated[Path, argument("MODEL", "The net: .onnx or .prototxt.")],
    images: Annotated[list[str], argument("IMAGES", "Files, folders, and patterns such as 'a/*.jpg'.")],
    *,
    labels: Annotated[
        Path | None, option("FILE", "The names of the classes, one a line, where the model does not have them.")
    ] = None,
    top: Annotated[int, number("How many classes of each image.", 1)] = 5,
    blob: Annotated[
        str, option("BLOB", "The value that has a number for each class; the output, by default.", "--blob")
    ] = "",
    csv: Annotated[bool, flag("--csv", "Print comma-separated values.")] = False,
    json_: Annotated[bool, flag("--json", "Print JSON.")] = False,
    options: ImageNet,
) -> None:
    """Say which classes images are of, by an ONNX model or a prototxt and its weights, run in ONNX Runtime.

    An image that cannot be read is named and passed over; the exit status is 1 then.

    [bold]imae predict deploy.prototxt cat.jpg photos/ --weights net.caffemodel --mean 104,117,123 --labels words.txt[/]
    """
    if csv and json_:
        raise typer.BadParameter("give --csv or --json, not both")
    predictor = options.start(model, labels=read_labels(labels), outputs=[blob] if blob else [])
    from imae.layers.data.image_sources import find_images
    from imae.nets.predictor import largest

    files, left_out = [file for name in images for file in find_images(name)], list[int]()
    name = predictor.scores()
    header = ["image", "rank", "class", "label", "score"]
    found: list[tuple[str, list[tuple[int, str, float]]]] = []
    try:
        if csv:
            _print_csv(header)
        with contextlib.closing(predicted(predictor, files, left_out.append, range(len(files)))) as rows:
            for number, row in rows:
                classes = [(i, predictor.label(i), score) for i, score in largest(row[name], top)]
                if csv:
                    _print_csv(*_cells(str(files[number]), classes))
                else:
                    found.append((str(files[number]), classes))
    finally:  # what is done so far, too
        if json_:
            known = [
                {
                    "image": file,
                    "top": [
                        {"class": i, "label": label, "score": score if math.isfinite(score) else None}
                        for i, label, score in classes
                    ],
                }
                for file, classes in found
            ]
            typer.echo(json.dumps(known, indent=1))
        elif found:
            print_table(header, [cells for one in found for cells in _cells(*one)], right=[1, 2, 4])
    end(files, left_out)


def _cells(file: str, classes: list[tuple[int, str, float]]) -> list[list[str]]:
    return [[file, str(rank), str(i), label, f"{score:.6g}"] for rank, (i, label, score) in enumerate(classes, 1)]


def _print_csv(*rows: list[str]) -> None:
    import sys

    from imae.prototxt_like.csv_file import csv_lines

    sys.stdout.write("".join(csv_lines(rows)))
