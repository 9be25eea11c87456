"""ImageData against plain Pillow: how many JPEG files a second become batches.

    python -m benchmarks.image_data [--images 256] [--batch 64] [--size 500 375] [--rounds 15]

The layer resizes to 256 x 256, crops 227 x 227 at random, mirrors, and gives float32 planes less a mean. Beside it
a pool of as many threads has Pillow and NumPy make the same batches, as it is written by hand. Images alone are read,
decoded and, where that is said, resized, and nothing is made of them: by Pillow, `Image.open(file).convert("RGB")`; by
the layer just as it does it in training, but for the writing of the batch, whose floats are 0.6 MB an image. The floor
is `Image.open(file).load()`, which makes no copy. All files are in the system's cache. A turn is one epoch of the
files, and the sides take turns.
"""

import argparse
import itertools
import random
import tempfile
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_path import data_layer, next_batch
from benchmarks.measuring import Benchmark, Row, Side, median_ratio, positive, take_turns
from imae.layers.data.data_layer import readers
from imae.nets.memory import keep_freed_memory

SIZE, CROP, MEAN = 256, 227, (104, 117, 123)
"""Caffe's for ImageNet."""
KINDS = {"resized, cropped": {"new_height": SIZE, "new_width": SIZE}, "cropped": {}}


def write_images(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Write `count` JPEG files of `size` (width, height), smooth as photographs are, and `list.txt`; return them."""
    generator = np.random.default_rng(1)
    files = [folder / f"{i:05d}.jpg" for i in range(count)]
    for file in files:
        coarse = generator.integers(256, size=(size[1] // 12, size[0] // 12, 3), dtype=np.uint8)
        grain = generator.integers(-8, 9, size=(size[1], size[0], 3))
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) + grain
        Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    (folder / "list.txt").write_text("".join(f"{file.name} {i % 10}\n" for i, file in enumerate(files)))
    return files


def decoding(files: list[Path]) -> Callable[[], object]:
    """Return what has a pool of threads decode all files with Pillow, and no more."""
    pool = readers("decoding")
    return lambda: list(pool.map(lambda file: bool(Image.open(file).load()), files))


def pillow(files: list[Path], resized: bool) -> Callable[[], object]:
    """Return what has a pool of threads decode all files and, if so asked, resize them."""
    pool = readers("pillow")

    def read(file: Path) -> Image.Image:
        image = Image.open(file).convert("RGB")
        return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR) if resized else image

    return lambda: [image.size for image in pool.map(read, files)]


def by_hand(files: list[Path], batch: int, resized: bool) -> Callable[[], object]:
    """Return what has a pool of threads make the layer's batches with Pillow and NumPy, with windows of its own."""
    pool, generator, mean = readers("by hand"), random.Random(1), np.array(MEAN, np.float32).reshape(3, 1, 1)

    def read(file: Path, out: NDArray[np.float32]) -> None:
        image = Image.open(file).convert("RGB")
        if resized:
            image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        x, y = (generator.randrange(size - CROP + 1) for size in image.size)
        image = image.crop((x, y, x + CROP, y + CROP))
        if generator.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        np.subtract(np.asarray(image)[:, :, ::-1].transpose(2, 0, 1), mean, out=out)

    def epoch() -> None:
        batches = [torch.empty(batch, 3, CROP, CROP).numpy() for _ in range(len(files) // batch)]
        for image in [pool.submit(read, *work) for work in zip(files, itertools.chain(*batches), strict=True)]:
            image.result()

    return epoch


def ours(folder: Path, batch: int, batches: int, own: dict[str, Any], written: bool) -> Callable[[], object]:
    """Return what takes an epoch of batches from the layer, reading ahead meanwhile; unless `written`, empty ones."""
    source = {"source": str(folder / "list.txt"), "root_folder": f"{folder}/"}
    transform = {"crop_size": CROP, "mirror": True, "mean_value": list(MEAN)}
    layer: Any = data_layer("ImageData", batch_size=batch, shuffle=True, **source, **own, transform_param=transform)
    if not written:
        layer._transform.write = lambda window, place, out: None

    def epoch() -> None:
        for _ in range(batches):
            next_batch(layer)
        # What is read ahead is this turn's work, as it was the last one's before, and does not disturb other sides'.
        wait(layer._ahead.values())
        wait(image for *_, images in layer._reading.values() for image in images)

    return epoch


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many files of which size."""
    parser.add_argument("--images", type=positive, default=256)
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--size", type=positive, nargs=2, default=[500, 375], help="Width and height.")
    parser.add_argument("--rounds", type=positive, default=15)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each way to make images alike."""
    keep_freed_memory()
    batches = max(1, options.images // options.batch)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        files = write_images(Path(temporary), batches * options.batch, tuple(options.size))
        for kind, own in KINDS.items():
            sides = {
                "floor": Side(decoding, (files,)),
                "pillow": Side(pillow, (files, bool(own))),
                "images": Side(ours, (Path(temporary), options.batch, batches, own, False)),
                "by_hand": Side(by_hand, (files, options.batch, bool(own))),
                "ours": Side(ours, (Path(temporary), options.batch, batches, own, True)),
            }
            turns = take_turns(sides, options.rounds, label=kind)
            rate = {name: 1e3 * len(files) / (side.ms or 1) for name, side in turns.items()}
            pairs = {"images": ("images", "pillow"), "batches": ("ours", "by_hand"), "both": ("ours", "pillow")}
            ratios = {f"ratio_{name}": median_ratio(turns[b], turns[a]) for name, (a, b) in pairs.items()}
            rows.append({"what": kind, **rate, **ratios})
    return rows, []


BENCHMARK = Benchmark(
    "image_data",
    "ImageData, in images a second",
    {
        "what": "images",
        "floor": "Pillow's decoder alone",
        "pillow": "Pillow, images alone",
        "images": "ours, images alone",
        "by_hand": "Pillow, batches",
        "ours": "ours, batches",
        "ratio_images": "images alone, ours / Pillow",
        "ratio_batches": "batches, ours / Pillow",
        "ratio_both": "our batches / Pillow's images alone",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
