"""Prediction on the CPU: imae's net against ONNX Runtime on the file that `imae export` writes of it.

    python -m benchmarks.inference [--depth 20] [--batch 1 32 256] [--rounds 30]

Both run in this process with as many threads as PyTorch takes, in turns; ONNX Runtime with its other settings as they
come. `difference` is the largest between the two's probabilities. The floor counts one pass, as `benchmarks.floor`.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks import floor, imae_resnet
from benchmarks.measuring import Benchmark, Row, Side, median_ratio, positive, take_turns
from imae.nets.memory import keep_freed_memory
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx

if TYPE_CHECKING:
    import onnxruntime


def ours(net: Net, images: torch.Tensor) -> Callable[[], dict[str, torch.Tensor]]:
    """Return a prediction of the net."""
    return lambda: net.forward(data=images)


def theirs(session: "onnxruntime.InferenceSession", images: torch.Tensor) -> Callable[[], object]:
    """Return a prediction of ONNX Runtime."""
    feed = {"data": images.numpy()}
    return lambda: session.run(None, feed)


def start_session(path: Path) -> "onnxruntime.InferenceSession":
    """Return a session on the CPU with PyTorch's number of threads."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def compare(depth: int, batch: int, session: "onnxruntime.InferenceSession", rounds: int) -> tuple[Row, list[str]]:
    """Return the row of a batch size, and the rates behind its floor."""
    net, images = imae_resnet.predictor(depth, batch), torch.randn(batch, *imae_resnet.IMAGE)
    (probabilities,) = net.forward(data=images).values()
    difference = (probabilities - torch.from_numpy(session.run(None, {"data": images.numpy()})[0])).abs().max()
    size = floor.largest_value(net)
    sides = {"ours": Side(ours, (net, images)), "onnxruntime": Side(theirs, (session, images))}
    turns = take_turns(sides | floor.yardsticks(size), rounds, label=f"batch {batch}")
    rates = floor.rates(turns, size)
    row: Row = {
        "batch": batch,
        "floor_ms": 1e3 * sum(work.seconds for work in floor.count(net, rates, backward=False).values()),
        "ours_ms": turns["ours"].ms,
        "onnxruntime_ms": turns["onnxruntime"].ms,
        "ratio": median_ratio(turns["ours"], turns["onnxruntime"]),
        "difference": float(difference),
    }
    return row, [f"Batch {batch}: {floor.describe_rates(rates)}"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which net, and how often."""
    parser.add_argument("--depth", type=positive, default=20)
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 32, 256])
    parser.add_argument("--rounds", type=positive, default=30)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each batch size."""
    keep_freed_memory()
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export_onnx(imae_resnet.predictor(options.depth, 1), None, path)
        session = start_session(path)
        for batch in options.batch:
            row, said = compare(options.depth, batch, session, options.rounds)
            rows.append(row)
            notes += said
    return rows, notes


BENCHMARK = Benchmark(
    "inference",
    "Prediction against ONNX Runtime",
    {
        "batch": "batch",
        "floor_ms": "floor ms",
        "ours_ms": "ours ms",
        "onnxruntime_ms": "ONNX Runtime ms",
        "ratio": "ours / ONNX Runtime",
        "difference": "difference",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
