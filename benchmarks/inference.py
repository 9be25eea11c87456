"""Prediction on the CPU: ONNX Runtime on the files that `imae export` writes, imae.Predictor on them, and imae's net.

    python -m benchmarks.inference [--nets resnet20 resnet50] [--batch 1 32 256] [--rounds 30] [--deep-rounds 3]
                                   [--sides ours predictor folded unfolded]

All run in this process with as many threads as PyTorch takes, in turns; ONNX Runtime with its other settings as they
come: on the file with BatchNorm and Scale folded into the convolutions, and on the one without. Predictor takes uint8
images, which it prepares in the model. ResNet-50 takes `--deep-rounds`, as 256 of its images take a CPU long, and each
side 3 GB; `--batch` leaves them out, `--sides` takes some. `difference` is the largest between the probabilities of 32
images at most. The floor counts one pass of ours, as
`benchmarks.floor`.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import floor, imae_resnet
from benchmarks.measuring import WARM_UP, Benchmark, Row, Side, Turns, median_ratio, positive, take_turns
from imae.layers.normalization.batch_norm import BatchNorm
from imae.nets.deploy import deploy
from imae.nets.memory import keep_freed_memory
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_session import start_session
from imae.nets.predictor import Predictor
from imae.nets.zoo import build
from imae.prototxt_like.schema import TEST

DEEP = "resnet50"
FEW = 32
"""Images whose probabilities are compared, and up to which a deep net's side is warmed up."""
SIDES = ("ours", "predictor", "folded", "unfolded")


def ours(net: Net, images: torch.Tensor) -> Callable[[], dict[str, torch.Tensor]]:
    """Return a prediction of the net."""
    return lambda: net.forward(data=images)


def theirs(session: Any, images: torch.Tensor) -> Callable[[], object]:
    """Return a prediction of ONNX Runtime."""
    feed = {"data": images.numpy()}
    return lambda: session.run(None, feed)


def predicting(predictor: Predictor, images: torch.Tensor) -> Callable[[], object]:
    """Return a prediction of as many uint8 images."""
    count, channels, *size = images.shape
    pixels = np.random.default_rng(0).integers(0, 256, (count, *size, channels), np.uint8)
    return lambda: predictor(pixels)


def net_of(name: str, batch: int) -> Net:
    """Return the net that predicts, `resnetDEPTH` for CIFAR-10 or the zoo's ResNet-50."""
    if name != DEEP:
        return imae_resnet.predictor(int(name.removeprefix("resnet")), batch)
    net = Net(deploy(build(name, batch=batch)), TEST, backward=False, plan="fused")
    net.keep_blobs = False
    for step in net.steps:
        if isinstance(step.layer, BatchNorm):
            _, var, weight = step.layer.blobs
            var.data.fill_(2.0)  # of 1 the values would grow with depth, until one class had all the probability
            weight.data.fill_(1.0)
    return net


def compare(name: str, batch: int, sessions: dict[str, Any], options: argparse.Namespace) -> tuple[Row, list[str]]:
    """Return the row of a batch size, and the rates behind its floor."""
    net = net_of(name, batch)
    net.share_weights(sessions["net"])
    images = torch.randn(net.shape("data"))
    few = images[:FEW]
    (probabilities,) = net.forward(data=few).values()
    found = [
        torch.from_numpy(sessions[form].run(None, {"data": few.numpy()})[0])
        for form in ("folded", "unfolded")
        if form in options.sides
    ]
    net.reshape(data=images.shape)
    size = floor.largest_value(net)
    sides = {"ours": Side(ours, (net, images)), "predictor": Side(predicting, (sessions.get("predictor"), images))}
    sides |= {form: Side(theirs, (sessions.get(form), images)) for form in ("folded", "unfolded")}
    sides = {side: how for side, how in sides.items() if side in options.sides}
    rounds, warm_up = (options.deep_rounds, int(batch <= FEW)) if name == DEEP else (options.rounds, WARM_UP)
    turns = take_turns(sides | floor.yardsticks(size), rounds, label=f"{name}, batch {batch}", warm_up=warm_up)
    rates = floor.rates(turns, size)
    row: Row = {
        "net": name,
        "batch": batch,
        "floor_ms": 1e3 * sum(work.seconds for work in floor.count(net, rates, backward=False).values()),
        **{f"{side}_ms": turns[side].ms for side in sides},
        "ratio": median_ratio(turns.get("ours", Turns()), turns.get("folded", Turns())),
        "difference": max((float((probabilities - one).abs().max()) for one in found), default=None),
    }
    return row, [f"{name}, batch {batch}: {floor.describe_rates(rates)}"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which nets, and how often."""
    parser.add_argument("--nets", nargs="+", default=["resnet20", DEEP])
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 32, 256])
    parser.add_argument("--rounds", type=positive, default=30)
    parser.add_argument("--deep-rounds", type=positive, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each net and batch size."""
    keep_freed_memory()
    threads = torch.get_num_threads()
    rows, notes = [], []
    for name in options.nets:
        with tempfile.TemporaryDirectory() as folder:
            net, path = net_of(name, 1), Path(folder) / "net.onnx"
            sessions: dict[str, Any] = {"net": net}
            for form in {"unfolded", "folded"} & {*options.sides}:
                export_onnx(net, None, path, fold_channels=form == "folded")
                sessions[form] = start_session(path, threads=threads)
            if "predictor" in options.sides:
                export_onnx(net, None, path, preprocess=True)
                sessions["predictor"] = Predictor(path, batch=max(options.batch), cpu=True, threads=threads)
        for batch in options.batch:
            row, said = compare(name, batch, sessions, options)
            rows.append(row)
            notes += said
    return rows, notes


BENCHMARK = Benchmark(
    "inference",
    "Prediction against ONNX Runtime",
    {
        "net": "net",
        "batch": "batch",
        "floor_ms": "floor ms",
        "ours_ms": "ours ms",
        "folded_ms": "ONNX Runtime ms",
        "unfolded_ms": "not folded ms",
        "predictor_ms": "Predictor ms",
        "ratio": "ours / ONNX Runtime",
        "difference": "difference",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
