"""The paper's Figure 2, the pipeline from image to loss, drawn from a net that was built."""

import shlex
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imae import __version__
from imae.experiments.page import write_page
from imae.layers.common.inner_product import InnerProduct
from imae.layers.data.input import Input
from imae.layers.layer import TRAIN, Shape, describe
from imae.layers.loss.sample_loss import SampleLoss
from imae.layers.utility.softmax import Softmax
from imae.layers.vision.convolution import Convolution
from imae.layers.vision.pooling import Pooling
from imae.nets.net import Net
from imae.nets.resnet_cifar import TRAIN_BATCH, resnet_cifar
from imae.nets.step import Step
from imae.prototxt_like.files import create_folder
from imae.prototxt_like.schema import LayerParameter, NetParameter
from imae.reports import pictures
from imae.reports.pages import Code, Figure, Items, Part, Table
from imae.reports.pictures import picture

_IMAGE = (3, 32, 32)
_NAMES = {Input: "input", Pooling: "pooling", InnerProduct: "FC", Softmax: "softmax", SampleLoss: "loss"}
_LEARNS = "#DCE9F3"
"""Fills the blocks that have parameters."""


@dataclass
class Block:
    """Layers one after the other that give values of the same shape."""

    name: str
    shape: Shape  # of what it gives for one image
    layers: list[str]
    convolutions: int = 0
    parameters: int = 0  # learned values; BatchNorm's running statistics are none


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
    create_folder(output)
    stem = output / "figure2"
    total = sum(block.parameters for block in blocks)
    rows = [[b.name, ", ".join(_ends(b.layers)), describe(b.shape), f"{b.parameters:,}"] for b in blocks]
    about = f"{net.name} with IMAE; shapes are of one image's values, below them the parameters."
    caption = f"The layers in order, what they give for one image, and their parameters: {total:,} in all."
    built = f"Built with batches of {TRAIN_BATCH} images; nothing is trained"
    command = shlex.join(["imae", "reproduce", "figure2", "--net", str(depth), "--output", str(output)])
    parts: list[Part] = [
        Figure(stem.name, picture(partial(_draw, blocks)), about),
        Table(["block", "layers", "shape", "parameters"], rows, caption),
        Items([built, f"Versions: imae {__version__}, torch {version('torch')}"]),
        Code([command]),
    ]
    return write_page(stem, f"Figure 2: the pipeline of {net.name}", parts)


def _name(step: Step) -> str:
    """What the paper calls the layer, if it is a block of its own."""
    return next((name for kind, name in _NAMES.items() if isinstance(step.layer, kind)), "")


def _ends(layers: list[str]) -> list[str]:
    return layers if len(layers) < 3 else [f"{layers[0]} to {layers[-1]} ({len(layers)} layers)"]


def _draw(blocks: list[Block], width: float) -> "pictures.Figure":
    """Draw the blocks as boxes in a row, or below each other, with the paper's names of what passes between them."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    gap, high = 0.32, 0.72  # inches, as all lengths here
    down = width < pictures.WIDE
    wide = 1.6 if down else (width - gap) / len(blocks) - gap
    height = len(blocks) * (high + gap) + gap if down else 1.4
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    ink = pictures.INK
    corners = [  # the lower left ones of the boxes
        (0.8, height - (index + 1) * (high + gap)) if down else (gap + index * (wide + gap), 0.16)
        for index in range(len(blocks))
    ]

    def box(left: float, below: float, wide: float, high: float, **style: Any) -> None:
        shape = FancyBboxPatch((left, below), wide, high, boxstyle="round,pad=0,rounding_size=0.06", **style)
        axes.add_patch(shape)

    def write(x: float, y: float, text: str, ha: str = "center", weight: str = "normal") -> None:
        axes.text(x, y, text, size=pictures.SMALL_FONT_SIZE, color=ink, ha=ha, va="center", weight=weight)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        style = {"arrowstyle": "-|>", "color": ink, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=style)

    for block, (left, below) in zip(blocks, corners, strict=True):
        fill = _LEARNS if block.parameters else pictures.PAPER
        box(left, below, wide, high, facecolor=fill, edgecolor=ink, linewidth=0.8)
        centre = left + wide / 2
        write(centre, below + 0.78 * high, block.name, weight="bold")
        write(centre, below + 0.48 * high, describe(block.shape))
        write(centre, below + 0.2 * high, f"{block.parameters:,}" if block.parameters else "")
    symbols = {"input": "$x$", "pooling": "$f$", "FC": "$z$", "softmax": "$p$"}
    for block, (left, below) in zip(blocks[:-1], corners[:-1], strict=True):
        centre, middle = left + wide / 2, below + high / 2
        if down:
            arrow((centre, below), (centre, below - gap))
            write(centre + 0.15, below - gap / 2, symbols.get(block.name, ""))
        else:
            arrow((left + wide, middle), (left + wide + gap, middle))
            write(left + wide + gap / 2 - 0.02, middle + 0.11, symbols.get(block.name, ""))
    left, below = corners[-1]
    if down:
        arrow((left + wide + 0.4, below + high / 2), (left + wide, below + high / 2))
        write(left + wide + 0.5, below + high / 2, "$y$")
    else:
        arrow((left + wide / 2, below + high + 0.2), (left + wide / 2, below + high))
        write(left + wide / 2, below + high + 0.28, "$y$")
    names = [block.name for block in blocks]
    first, last = names.index("input") + 1, names.index("pooling")
    (x0, y0), (x1, y1) = corners[first], corners[last]
    border, extra = 0.07, 0.27 if not down else 0.0
    left, below = min(x0, x1) - border, min(y0, y1) - border
    across, up = abs(x1 - x0) + wide + 2 * border, abs(y1 - y0) + high + 2 * border + extra
    box(left, below, across, up, facecolor="none", edgecolor=ink, linewidth=0.8, linestyle=(0, (4, 3)))
    inside = f"{sum(block.parameters for block in blocks[first : last + 1]):,} parameters"
    if down:
        write(left + across + 0.1, below + up / 2, f"embedding\nnetwork,\n{inside}", ha="left")
    else:
        write(left + across / 2, below + up - 0.13, f"embedding network, {inside}")
    return figure
