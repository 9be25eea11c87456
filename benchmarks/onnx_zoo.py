"""Every net of `imae net --list` and of examples/ as ONNX: how far ONNX Runtime and OpenCV's reader are from the net.

    python -m benchmarks.onnx_zoo [--nets NAME ...] [--batch 1 7]

Each is exported, and compared as `imae export --verify` does, at these batch sizes, on pixels as its data layer gives
them; then OpenCV reads the same file, where it can. Weights are drawn as Mishkin and Matas 2016 do ("All you need is a
good init"): normal, divided by the standard deviation of what the layer makes of pixels; each BatchNorm has the
statistics of what it reads. So values neither vanish nor grow with depth. Differences are the largest of any output,
over its standard deviation; `rounding` is that of the net from itself in float64. Takes 6 GB of memory.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import ROOT, Benchmark, Row, positive
from imae.cli.progress import Display
from imae.layers.layer import Layer, Saved, Tensors
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_verify import in_float64, relative_difference, standard_deviation, verify
from imae.nets.zoo import MEAN, NETS, build
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import read_net

EXAMPLES = {
    path.stem: path for path in sorted((ROOT / "examples").glob("*/*.prototxt")) if not path.stem.endswith("solver")
}
SHAPES = {"cifar10": (3, 32, 32), "digits": (1, 8, 8), "mars": (3, 224, 224)}
"""Of an image, by the folder of examples."""
OPSET = 17
"""One that OpenCV reads."""


def net_of(name: str) -> tuple[NetParameter, Net]:
    """Return a net with its data layers, and the one that predicts, with weights."""
    if name in NETS:
        trained, param = build(name, batch=1, source="data"), deploy(build(name, batch=1))
    else:
        trained = read_net(EXAMPLES[name])
        param = deploy(trained, shape=SHAPES[EXAMPLES[name].parent.name])
    net = Net(param, backward=False)
    for step in net.steps:
        if step.layer.type in ("BatchNorm", "Convolution", "ConvolutionDepthwise", "InnerProduct"):
            step.layer.forward = settling(step.layer, step.layer.forward)  # type: ignore[method-assign]
    net.forward(**pixels(net, 2))
    for step in net.steps:
        vars(step.layer).pop("forward", None)
    return trained, net


def settling(layer: Layer, forward: Callable[[Tensors, Saved], Tensors]) -> Callable[..., Tensors]:
    """Return a layer's forward that sets its blobs by what it reads."""

    def settle(bottoms: Tensors, saved: Saved) -> Tensors:
        x, blobs = bottoms[0], [blob.data for blob in layer.blobs]
        if layer.type == "BatchNorm":
            by_channel = x.transpose(0, 1).flatten(1)
            for blob, value in zip(blobs, (by_channel.mean(1), by_channel.var(1), 1.0), strict=True):
                blob.copy_(torch.as_tensor(value))
        else:
            blobs[0].normal_(generator=layer.context.generator)
            blobs[0].div_(forward(bottoms, saved)[0].std())
        return forward(bottoms, saved)

    return settle


def pixels(net: Net, batch: int) -> dict[str, Any]:
    """Return inputs of this batch: photographs less their mean, digits 0 to 1, and zeros and ones for sentences."""
    generator = torch.Generator().manual_seed(batch)
    given: dict[str, Any] = {}
    for name, index in net.input_values.items():
        shape = net.shapes[index]
        images = len(shape) == 4
        values = torch.rand((batch if images else shape[0], *shape[1:]), generator=generator)
        given[name] = values if images else values.round()
        if images and shape[1] == 3:
            given[name] = 255 * values - torch.tensor(MEAN).view(3, 1, 1)
    return given


def compare(name: str, batches: list[int]) -> Row:
    """Return a net's row."""
    trained, net = net_of(name)
    row: Row = {"net": name, "layers": len(net.steps)}
    with tempfile.TemporaryDirectory() as folder:
        report = export_onnx(net, None, Path(folder) / "net.onnx", opset=OPSET)
        found = verify(report, trained, kinds=["random", "large"], batches=batches)
        row |= {"nodes": report.nodes, "runs": str(found), "onnxruntime": found.difference}
        exact = in_float64(net)
        differences = []
        for batch in batches:
            given = pixels(net, batch)
            net.reshape(**{name: x.shape for name, x in given.items()})
            exact.reshape(**{name: x.shape for name, x in given.items()})
            ours, precise = net.forward(**given), exact.forward(**given)
            differences.append(largest({name: x.numpy() for name, x in ours.items()}, precise))
            row[f"opencv_{batch}"] = by_opencv(report.path, given, ours)
        row["rounding"] = max(differences)
    return row


def largest(actual: dict[str, np.ndarray], expected: dict[str, Tensor]) -> float:
    """Return the largest difference of any output, over the output's standard deviation."""
    values = {name: x.double().numpy() for name, x in expected.items()}
    return max(relative_difference(actual[name], x, standard_deviation(x)) for name, x in values.items())


def by_opencv(path: Path, given: dict[str, Tensor], expected: dict[str, Tensor]) -> float | str:
    """Return how far OpenCV's own engine is from these outputs, or why it gives none."""
    import cv2

    try:
        read = cv2.dnn.readNetFromONNX(str(path))
        for name, value in given.items():
            read.setInput(value.numpy(), name)
        return largest(dict(zip(expected, read.forward(list(expected)), strict=True)), expected)
    except cv2.error as error:
        return " ".join(error.err.split())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which nets, in which batches."""
    names = [*EXAMPLES, *NETS]
    parser.add_argument("--nets", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--batch", type=positive, nargs=2, default=[1, 7])


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each net."""
    rows = []
    with Display() as display:
        for done, name in enumerate(options.nets):
            display.advance("nets", done, len(options.nets))
            rows.append(compare(name, options.batch))
            display.show(f"{name}: {rows[-1]}")
    return rows, []


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
        "rounding": "rounding",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
