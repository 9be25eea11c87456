"""Every net of `imae net --list` and of examples/ as ONNX: how far ONNX Runtime and OpenCV's reader are from the net.

    python -m benchmarks.onnx_zoo [--nets NAME ...]

Each is exported, and compared as `imae export --verify` does, at batch 1 and 7, on pixels as its data layer gives
them; then OpenCV reads the same file; of LRCN, whose Scan it refuses, the CNN. Weights are drawn as Mishkin and Matas
2016 do ("All you need is a good init"): normal, over the standard deviation of what the layer makes of pixels. A
BatchNorm has means of a tenth and variances of half to three halves of what it reads, of all channels: with each
channel's own, a hundred layers leave hardly more of an image than of its rounding. Differences are the largest of any
output, over its standard deviation; `exact` is that of the model in ONNX Runtime, and `rounding` that of the net, from
the net in float64, at batch 1.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import ROOT, Benchmark, Row
from imae.cli.progress import Display
from imae.layers.layer import Layer, Saved, Tensors
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_export import OnnxReport, export_onnx
from imae.nets.onnx_session import run, start_session
from imae.nets.onnx_verify import draw_pixels, in_float64, relative_difference, standard_deviation, verify
from imae.nets.zoo import MEAN, NETS, build
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import read_net

EXAMPLES = {
    path.stem: path for path in sorted((ROOT / "examples").glob("*/*.prototxt")) if not path.stem.endswith("solver")
}
SHAPES = {"cifar10": (3, 32, 32), "digits": (1, 8, 8), "mars": (3, 224, 224)}
"""Of an image, by the folder of examples."""
BATCHES = (1, 7)
OPSET = 17
"""One that OpenCV reads."""
OUTPUTS = {"ssd300": ["mbox_loc", "mbox_conf_flatten", "detection_out"]}
"""Of nets with more to compare than what they give: of SSD what its boxes come from, whose labels spread wide."""
CNNS = {"lrcn": ["fc8"]}
"""The outputs of what OpenCV reads of a net, where that is not all."""


def net_of(name: str) -> tuple[NetParameter, Net]:
    """Return a net with its data layers, and the one that predicts, with weights."""
    if name in NETS:
        trained, param = build(name, batch=1, source="data"), deploy(build(name, batch=1))
    else:
        trained = read_net(EXAMPLES[name])
        param = deploy(trained, shape=SHAPES[EXAMPLES[name].parent.name])
    net = Net(param, backward=False)
    net.keep_blobs = False
    for step in net.steps:
        if step.layer.type in ("BatchNorm", "Convolution", "ConvolutionDepthwise", "InnerProduct"):
            step.layer.forward = settling(step.layer, step.layer.forward)  # type: ignore[method-assign]
    given = pixels(net, 4)
    net.reshape(**{name: x.shape for name, x in given.items()})
    net.forward(**given)
    for step in net.steps:
        vars(step.layer).pop("forward", None)
    return trained, net


def settling(layer: Layer, forward: Callable[[Tensors, Saved], Tensors]) -> Callable[..., Tensors]:
    """Return a layer's forward that sets its blobs by what it reads."""

    def settle(bottoms: Tensors, saved: Saved) -> Tensors:
        x, blobs, generator = bottoms[0], [blob.data for blob in layer.blobs], layer.context.generator
        if layer.type == "BatchNorm":
            square = x.square().mean()
            mean = square.sqrt() / 10 * torch.randn(x.shape[1], generator=generator)
            variance = square * (0.5 + torch.rand(x.shape[1], generator=generator))
            for blob, value in zip(blobs, (mean, variance, torch.ones(1)), strict=True):
                blob.copy_(value)
        else:
            blobs[0].normal_(generator=generator)
            blobs[0].div_(forward(bottoms, saved)[0].std())
        return forward(bottoms, saved)

    return settle


def pixels(net: Net, batch: int) -> dict[str, Any]:
    """Return inputs of this batch: photographs less their mean, digits 0 to 1, and zeros and ones for sentences."""
    generator = torch.Generator().manual_seed(batch)
    given: dict[str, Any] = {}
    for name, index in net.input_values.items():
        first, *rest = net.shapes[index]
        if len(rest) < 3:
            given[name] = torch.randint(0, 2, (first, batch), generator=generator).float()
        else:
            levels = draw_pixels((batch, *rest), generator)
            given[name] = levels - torch.tensor(MEAN).view(3, 1, 1) if rest[0] == 3 else levels / 256
    return given


def compare(name: str) -> Row:
    """Return a net's row."""
    trained, net = net_of(name)
    row: Row = {"net": name, "layers": len(net.steps)}
    with tempfile.TemporaryDirectory() as folder:
        report = export_onnx(net, None, Path(folder) / "net.onnx", opset=OPSET, outputs=OUTPUTS.get(name, ()))
        found = verify(report, trained, kinds=["random"], batches=BATCHES)
        row |= {"nodes": report.nodes, "onnxruntime": found.difference, "undecided": found.undecided}
        read = report
        if name in CNNS:
            read = export_onnx(net, None, Path(folder) / "cnn.onnx", opset=OPSET, outputs=CNNS[name])
        names = [name for name in read.outputs if name not in read.states]
        for batch in BATCHES:
            given = pixels(read.net, batch)
            row[f"opencv_{batch}"] = by_opencv(read.path, given, values(read.net, given, names))
        row |= rounding(report)
    return row


def values(net: Net, given: dict[str, Any], names: list[str]) -> dict[str, Tensor]:
    """Return these blobs of a pass."""
    net.keep_blobs = not set(names) <= set(net.outputs)
    net.reshape(**{name: x.shape for name, x in given.items()})
    made = net.forward(**given)
    return {name: made[name] if name in made else net.blobs[name] for name in names}


def rounding(report: OnnxReport) -> Row:
    """Return how far the model in ONNX Runtime and the net are from the net in float64."""
    given, names = pixels(report.net, 1), [name for name in report.outputs if name not in report.states]
    expected = values(in_float64(report.net), given, names)
    ours = {name: x.numpy() for name, x in values(report.net, given, names).items()}
    begun = {name: np.zeros([1, 1, int(report.inputs[name][2])], np.float32) for name, _ in report.states.values()}
    feeds = begun | {name: x.numpy() for name, x in given.items()}
    theirs = dict(zip(names, run(start_session(report.path), report.path, feeds, names), strict=True))
    return {"exact": largest(theirs, expected), "rounding": largest(ours, expected)}


def largest(actual: dict[str, np.ndarray], expected: dict[str, Tensor]) -> float:
    """Return the largest difference of any output, over the output's standard deviation."""
    values = {name: x.double().numpy() for name, x in expected.items()}
    return max(relative_difference(actual[name], x, standard_deviation(x)) for name, x in values.items())


def by_opencv(path: Path, given: dict[str, Tensor], expected: dict[str, Tensor]) -> float | str:
    """Return how far OpenCV's own engine is from these outputs, or why it gives none."""
    try:
        import cv2
    except ImportError:
        return "not installed"
    try:
        read = cv2.dnn.readNetFromONNX(str(path))
        for name, value in given.items():
            read.setInput(value.numpy(), name)
        return largest(dict(zip(expected, read.forward(list(expected)), strict=True)), expected)
    except cv2.error:
        return "refused"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which nets."""
    names = [*EXAMPLES, *NETS]
    parser.add_argument("--nets", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each net."""
    rows = []
    with Display() as display:
        for done, name in enumerate(options.nets):
            display.advance("nets", done, len(options.nets))
            rows.append(compare(name))
    left = [
        f"{row['net']}: without an output that is {max(row['undecided'].values()):.1e} off, which rounding decides."
        for row in rows
        if row["undecided"]
    ]
    return rows, left


BENCHMARK = Benchmark(
    "onnx_zoo",
    "All nets as ONNX",
    {
        "net": "net",
        "layers": "layers",
        "nodes": "nodes",
        "onnxruntime": "ONNX Runtime",
        "opencv_1": "OpenCV, batch 1",
        "opencv_7": "OpenCV, batch 7",
        "exact": "exact",
        "rounding": "rounding",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
