"""The paper's Figure 2, the pipeline from image to loss, drawn from a net that was built."""

import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imae.experiments import plot_style
from imae.experiments.report import Code, Figure, Items, Table, write_page
from imae.layers.convolution import Convolution
from imae.layers.inner_product import InnerProduct
from imae.layers.input import Input
from imae.layers.layer import TRAIN, Shape, describe
from imae.layers.loss.sample_loss import SampleLoss
from imae.layers.pooling import Pooling
from imae.layers.softmax import Softmax
from imae.nets.net import Net, Step
from imae.nets.resnet_cifar import TRAIN_BATCH, resnet_cifar
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter

_IMAGE = (3, 32, 32)
_NAMES = {Input: "input", Pooling: "pooling", InnerProduct: "FC", Softmax: "softmax", SampleLoss: "loss"}
_LEARNS = "#DCE9F3"
"""Fills the blocks that have parameters."""


@dataclass
class Block:
    """Layers one after the other that give values of the same shape."""

    name: str
    shape: Shape
    """Of what it gives for one image."""
    layers: list[str]
    convolutions: int = 0
    parameters: int = 0
    """Learned values; BatchNorm's running statistics are none."""


def pipeline_net(depth: int) -> Net:
    """Return the paper's ResNet as its Figure 2 has it: fed by an Input, with IMAE apart from the softmax.

    Raises InputError if `depth` is not 6n + 2.
    """
    trained = resnet_cifar(depth, "imae")
    net = NetParameter(name=trained.name)
    feed = net.layer.add(name="input", type="Input", top=["data", "label"])
    for shape in ((TRAIN_BATCH, *_IMAGE), (TRAIN_BATCH,)):
        feed.input_param.shape.add(dim=shape)
    for layer in trained.layer:
        if layer.type == "SoftmaxWithIMAELoss":
            scores, label = layer.bottom
            net.layer.append(LayerParameter(name="prob", type="Softmax", bottom=[scores], top=["prob"]))
            net.layer.append(LayerParameter(name="loss", type="IMAELoss", bottom=["prob", label], top=["loss"]))
        elif layer.type != "Cifar10Data":
            net.layer.append(layer)
    return Net(net, TRAIN)


def blocks_of(net: Net) -> list[Block]:
    """Return the blocks of a net that is a chain: its layers, convolutions and what follows them joined by shape."""
    blocks: list[Block] = []
    for step in net.steps:
        shape, name = net.shapes[step.tops[0]][1:], _name(step)
        if name or not blocks or blocks[-1].shape != shape or not blocks[-1].convolutions:
            blocks.append(Block(name, shape, []))
        block = blocks[-1]
        block.layers.append(step.layer.name)
        block.convolutions += isinstance(step.layer, Convolution)
        block.parameters += sum(blob.data.numel() for blob in step.layer.blobs if blob.lr_mult)
    for block in blocks:
        block.name = block.name or f"{block.convolutions} conv"
    return blocks


def write_pipeline(depth: int, output: Path) -> list[Path]:
    """Write `figure2`, .html, .md, .png and .svg, into the folder `output`; return the paths of the pages.

    Raises InputError if `depth` is not 6n + 2 or the folder cannot be written.
    """
    net = pipeline_net(depth)
    blocks = blocks_of(net)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be created: {error.strerror}") from error
    stem = output / "figure2"
    _draw(blocks, stem)
    total = sum(block.parameters for block in blocks)
    rows = [
        [block.name, ", ".join(_ends(block.layers)), describe(block.shape), f"{block.parameters:,}"] for block in blocks
    ]
    caption = f"The layers in order, what they give for one image, and their parameters: {total:,} in all."
    versions = ", ".join(f"{package} {version(package)}" for package in ("imae", "torch"))
    return write_page(
        stem,
        f"Figure 2: the pipeline of {net.name}",
        [
            Figure(stem, f"{net.name} with IMAE; shapes are of one image's values, below them the parameters."),
            Table(["block", "layers", "shape", "parameters"], rows, caption),
            Items([f"Built with batches of {TRAIN_BATCH} images; nothing is trained", f"Versions: {versions}"]),
            Code([shlex.join(["imae", "reproduce", "figure2", "--net", str(depth), "--output", str(output)])]),
        ],
    )


def _name(step: Step) -> str:
    """What the paper calls the layer, if it is a block of its own."""
    return next((name for kind, name in _NAMES.items() if isinstance(step.layer, kind)), "")


def _ends(layers: list[str]) -> list[str]:
    return layers if len(layers) < 3 else [f"{layers[0]} to {layers[-1]} ({len(layers)} layers)"]


def _draw(blocks: list[Block], stem: Path) -> None:
    """Draw the blocks as boxes in a row, with the paper's names of what passes between them."""
    from matplotlib.figure import Figure as Drawing
    from matplotlib.patches import FancyBboxPatch

    width, height, gap, bottom = 0.8, 0.72, 0.32, 0.16  # inches, as all lengths here
    figure = Drawing(figsize=(len(blocks) * (width + gap) + gap, 1.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(0, figure.get_figheight()))
    axes.set_axis_off()
    lefts = [gap + number * (width + gap) for number in range(len(blocks))]
    middle = bottom + height / 2

    def box(left: float, below: float, wide: float, high: float, **style: Any) -> None:
        shape = FancyBboxPatch((left, below), wide, high, boxstyle="round,pad=0,rounding_size=0.06", **style)
        axes.add_patch(shape)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(x, y, text, size=plot_style.SMALL_FONT_SIZE, color=plot_style.INK, ha="center", va="center", **style)

    for left, block in zip(lefts, blocks, strict=True):
        fill = _LEARNS if block.parameters else "white"
        box(left, bottom, width, height, facecolor=fill, edgecolor=plot_style.INK, linewidth=0.8)
        centre = left + width / 2
        write(centre, bottom + 0.78 * height, block.name, weight="bold")
        write(centre, bottom + 0.48 * height, describe(block.shape))
        write(centre, bottom + 0.2 * height, f"{block.parameters:,}" if block.parameters else "")
    arrow = {"arrowstyle": "-|>", "color": plot_style.INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    for left in lefts[1:]:
        axes.annotate("", (left, middle), (left - gap, middle), arrowprops=arrow)
    top, centre = bottom + height, lefts[-1] + width / 2
    axes.annotate("", (centre, top), (centre, top + 0.2), arrowprops=arrow)
    write(centre, top + 0.28, "$y$")
    number = {block.name: index for index, block in enumerate(blocks)}
    for name, symbol in (("input", "$x$"), ("pooling", "$f$"), ("FC", "$z$"), ("softmax", "$p$")):
        write(lefts[number[name]] + width + gap / 2 - 0.02, middle + 0.11, symbol)
    first, last = number["input"] + 1, number["pooling"]
    inside, border = sum(block.parameters for block in blocks[first : last + 1]), 0.07
    frame = {"facecolor": "none", "edgecolor": plot_style.INK, "linewidth": 0.8, "linestyle": (0, (4, 3))}
    box(lefts[first] - border, bottom - border, lefts[last] - lefts[first] + width + 2 * border, 1.13, **frame)
    title = (lefts[first] + lefts[last] + width) / 2
    write(title, top + 0.14, f"embedding network, {inside:,} parameters")
    plot_style.save(figure, stem)
