"""The cost of training against batch size and depth, ours and PyTorch's, as a table and as a figure.

    python -m benchmarks.cost [--batches 8 32 128 256] [--depths 20 56 110] [--rounds 3] [--figure docs/training-cost]

Measured as `benchmarks.train_step` does: ResNet-20 at each batch size, and each depth at batch 128.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import train_step
from benchmarks.measuring import ROOT, Benchmark, Row, positive
from imae.prototxt_like.files import write_each
from imae.reports import pictures
from imae.reports.pictures import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {"ours": "imae", "eager": "PyTorch eager", "floor": "floor"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which nets and batches, and where the figure goes."""
    parser.add_argument("--batches", type=positive, nargs="+", default=[8, 32, 128, 256])
    parser.add_argument("--batch", type=positive, default=128, help="That of each depth.")
    parser.add_argument("--depths", type=positive, nargs="+", default=[20, 56, 110])
    parser.add_argument("--depth", type=positive, default=20, help="That of each batch size.")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "training-cost", help="Without .png and .svg.")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each batch size and each depth; draws the figure."""
    wanted = [(options.depth, batch) for batch in options.batches]
    wanted += [(depth, options.batch) for depth in options.depths]
    rows: list[Row] = []
    for depth, batch in dict.fromkeys(wanted):
        row, _ = train_step.compare(depth, batch, options.rounds)
        rows.append(row | {"image_ms": row["ours_ms"] / batch})
    write_each(options.figure, picture(partial(draw, rows, options)).files)
    return rows, []


def draw(rows: Sequence[Row], options: argparse.Namespace, width: float) -> "Figure":
    """Draw the figure: milliseconds an image against batch size, milliseconds an iteration against depth."""
    figure, (by_batch, by_depth) = pictures.new_figure(2, columns=2, width=width)
    for side, name in CURVES.items():
        style: dict[str, Any] = {"label": name, "marker": "" if side == "floor" else "o", "markersize": 4}
        same_depth = (row for row in rows if row["depth"] == options.depth)
        points = sorted((row["batch"], row[f"{side}_ms"] / row["batch"]) for row in same_depth)
        by_batch.plot(*zip(*points, strict=True), **style)
        points = sorted((row["depth"], row[f"{side}_ms"]) for row in rows if row["batch"] == options.batch)
        by_depth.plot(*zip(*points, strict=True), **style)
    by_batch.set_xscale("log", base=2)
    by_batch.set_xticks(batches := sorted({row["batch"] for row in rows}), map(str, batches))
    for axes, title, x, y in (
        (by_batch, f"ResNet-{options.depth}", "batch size", "ms an image"),
        (by_depth, f"batch {options.batch}", "depth", "ms an iteration"),
    ):
        axes.set_title(title, size=pictures.FONT_SIZE)
        axes.set_xlabel(x, size=pictures.FONT_SIZE)
        axes.set_ylabel(y, size=pictures.FONT_SIZE)
        axes.set_ylim(bottom=0)
    pictures.legend(by_depth)
    return figure


BENCHMARK = Benchmark(
    "cost",
    "Training cost against batch size and depth",
    {
        "net": "net",
        "batch": "batch",
        "floor_ms": "floor ms",
        "ours_ms": "ours ms",
        "eager_ms": "eager ms",
        "eager_ratio": "ours / eager",
        "image_ms": "ours ms an image",
        "ours_mib": "ours MiB",
        "eager_mib": "eager MiB",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
