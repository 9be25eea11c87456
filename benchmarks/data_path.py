"""The data path alone and beside training: how fast the data layers deliver augmented batches.

    python -m benchmarks.data_path [--batch 128] [--images 10000] [--depth 20] [--rounds 7]

Both layers crop 32 x 32 at random from 40 x 40 and mirror; `Data` reads an LMDB, `Cifar10Data` its own files, both of
noise. Measured are the images a second that a layer prepares in the foreground, then on its own thread while a ResNet
trains on this one, and what an iteration takes with the layer's batches against one batch kept in memory. The floor is
one read of the bytes and one write of the floats, at the rate of a copy.
"""

import argparse
import math
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import floor, imae_resnet, synthetic
from benchmarks.measuring import Benchmark, Row, Side, median_ratio, positive, take_turns
from imae.layers.data.data_layer import DataLayer
from imae.layers.layer import TRAIN, Context
from imae.layers.registry import create_layer
from imae.nets.memory import keep_freed_memory
from imae.prototxt_like.net_spec import L, to_proto
from imae.solvers.solver import Solver

CROP = {"crop_size": 32, "mirror": True, "mean_value": 128}


class Feeder(threading.Thread):
    """Takes batches from a layer, which prepares them on its own thread, until told to stop."""

    def __init__(self, layer: DataLayer) -> None:
        super().__init__(daemon=True)
        self.layer, self.batches, self.stopped = layer, 0, threading.Event()

    def run(self) -> None:
        """Count batches."""
        while not self.stopped.is_set():
            next_batch(self.layer)
            self.batches += 1


def next_batch(layer: DataLayer) -> list[torch.Tensor]:
    """Return the layer's next batch, as the net's forward pass does."""
    tops = layer.forward([], {})
    layer.context.passes.number += 1
    return tops


def data_layer(type: str, **settings: Any) -> DataLayer:
    """Return the data layer, set up for the phase TRAIN."""
    (param,) = to_proto(*getattr(L, type)(ntop=2, **{"transform_param": CROP, **settings})).layer
    layer = create_layer(param, Context(phase=TRAIN))
    assert isinstance(layer, DataLayer)
    layer.setup([])
    return layer


def fed(solver: Solver, layer: DataLayer) -> Callable[[], None]:
    """Return a training iteration on the layer's batches."""
    net = solver.net

    def iterate() -> None:
        data, label = next_batch(layer)
        net.clear_diffs()
        net.forward(data=data, label=label)
        net.backward()
        solver.update.apply(0.1)

    return iterate


def compare(layer: DataLayer, pixels: int, options: argparse.Namespace) -> Row:
    """Return a layer's row; `pixels` are the bytes it reads for an image."""
    images: int = options.batch
    solver = imae_resnet.solver(options.depth, images)
    alone = imae_resnet.iteration(solver)
    size = floor.largest_value(solver.net)
    sides = {
        "foreground": Side(lambda: lambda: layer.batch(0)),
        "alone": Side(lambda: alone),
        "fed": Side(fed, (solver, layer)),
        **floor.copy_yardstick(size),
    }
    turns = take_turns(sides, options.rounds, label=layer.param.type)
    feeder = Feeder(layer)
    feeder.start()
    start = time.perf_counter()
    for _ in range(options.rounds):
        alone()
    feeder.stopped.set()
    seconds = time.perf_counter() - start
    feeder.join()
    moved = pixels + 4 * math.prod(imae_resnet.IMAGE)
    return {
        "layer": layer.param.type,
        "floor": floor.copy_rate(turns, size) / moved,
        "foreground": images / turns["foreground"].fastest,
        "beside": images * feeder.batches / seconds,
        "needed": images / turns["alone"].fastest,
        "alone_ms": turns["alone"].ms,
        "fed_ms": turns["fed"].ms,
        "fed_ratio": median_ratio(turns["fed"], turns["alone"]),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """How much data, and which net beside it."""
    parser.add_argument("--batch", type=positive, default=128)
    parser.add_argument("--images", type=positive, default=10000)
    parser.add_argument("--depth", type=positive, default=20)
    parser.add_argument("--rounds", type=positive, default=7)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each layer."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        records = synthetic.write_lmdb(Path(folder) / "lmdb", options.images)
        files = synthetic.write_cifar10(Path(folder) / "cifar10", options.images)
        lmdb = data_layer("Data", source=str(records), backend="LMDB", batch_size=options.batch)
        cifar10 = data_layer("Cifar10Data", source=str(files), pad=4, batch_size=options.batch)
        rows = [compare(lmdb, math.prod(synthetic.PADDED), options)]
        rows.append(compare(cifar10, synthetic.CIFAR10_IMAGE, options))
    return rows, []


BENCHMARK = Benchmark(
    "data_path",
    "The data path, in images a second",
    {
        "layer": "layer",
        "floor": "at the rate of a copy",
        "foreground": "foreground",
        "beside": "beside training",
        "needed": "training needs",
        "alone_ms": "iteration on one batch ms",
        "fed_ms": "on the layer's ms",
        "fed_ratio": "ratio",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
