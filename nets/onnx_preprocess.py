"""What an exported model does to images before the net: resize, channel order, crop, mean, scale."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imae.layers.data.image_set import ImageSetData, mean_image
from imae.layers.data.transform import Transform
from imae.layers.layer import Context, Layer, Shape, describe
from imae.layers.onnx_graph import OnnxGraph, Size
from imae.layers.registry import create_layer
from imae.nets.deploy import data_layer
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter

BGR_READERS = ("ImageData", "MarsData", "WindowData")
"""Data layers that decode images as OpenCV does, which Caffe reads them with: blue, green, red."""
_RESIZERS = {"ImageData": "image_data_param", "MarsData": "mars_data_param"}
"""Data layers that bring images to `new_height` x `new_width`."""


@dataclass(frozen=True)
class ImageOptions:
    """What a user says of the images that a model takes, beyond the data layer's `transform_param`, or in its place."""

    resize: tuple[int, int] | None = None
    """Height and width that any image is brought to, before a crop; without, those that the data layer brings it to."""
    channels: str = ""
    """The net's order: RGB or BGR; without, what its data layer reads, and as the images come where that is unknown."""
    mean: str = ""
    """A binaryproto, or a number for all channels or for each, separated by commas."""
    scale: float | None = None


class Images:
    """What happens to the images of one input, whose `window` (C, H, W) the net sees.

    With `raw` the model takes uint8 images as files have them, N x H x W x C, red, green, blue where they have color;
    it resizes them bilinearly, without rounding to whole levels; changes the order of the channels where the net has
    another; takes the window in the centre; removes the mean, and scales. Else it takes floats 0 to 255 of the window.
    """

    def __init__(self, transform: Transform, window: Shape, read: str, *, raw: bool, options: ImageOptions) -> None:
        self.raw, self.window, self.transform = raw, window, transform
        order = options.channels or read
        self.swap, self._read_swapped = (raw and x == "BGR" and window[0] == 3 for x in (order, read or order))
        mean, self.scale = transform.mean_of(window), transform.scale
        self.mean = None if mean is None else mean.cpu()
        whole = transform.mean.shape[1:] if transform.mean is not None else (1, 1)
        self.channels = "gray" if window[0] == 1 else "RGB" if order and window[0] == 3 else "as the net's"
        self.resize = options.resize
        self.whole: Shape | None = self.resize or (tuple(whole) if whole != (1, 1) else None)
        """Height and width from which the window is cut; None for any, or for the window's own."""
        if self.resize and whole not in ((1, 1), self.resize):
            raise InputError(f"a mean of {describe(whole)} does not fit images resized to {describe(self.resize)}")
        if self.whole and min(a - b for a, b in zip(self.whole, window[1:], strict=True)) < 0:
            raise InputError(f"images of {describe(self.whole)} are smaller than the net's, {describe(window[1:])}")
        self.cuts = transform.crop > 0

    @property
    def fixes_window(self) -> bool:
        """Whether height and width of what the net sees follow from the settings."""
        return self.raw and (self.whole is not None or self.cuts)

    def describe(self) -> dict[str, object]:
        """Return what a caller has to know: layout, type and range, and for color images the order of the channels."""
        if not self.raw:
            return {"layout": "NCHW", "type": "float32", "channels": "as the net's"}
        cut = {"cut": True} if self.cuts and not self.whole else {}
        window = list(self.window[1:])
        return {"layout": "NHWC", "type": "uint8", "channels": self.channels, "window": window, **cut}

    def shape(self, given: tuple[Size, ...]) -> tuple[Size, ...]:
        """Return the shape of the model's input, for an input of the net of this one."""
        if not self.raw:
            return given
        batch, channels, *window = given
        if self.resize or (self.whole is None and self.cuts):
            window = ["H", "W"]
        return (batch, *(self.whole if self.whole and not self.resize else window), channels)

    def of_any(self, given: Shape) -> Shape:
        """Return a shape of the model's input for that of the net's: of other images, where any can be."""
        if not self.raw:
            return given
        batch, channels, *window = given
        size = self.whole or window
        if self.resize or (self.whole is None and self.cuts):
            size = (size[0] + 3, size[1] + 5)
        return (batch, *size, channels)

    def to_onnx(self, graph: OnnxGraph, images: str) -> str:
        """Add the nodes; return the name of the value that the net's input becomes."""
        value = images
        if self.raw:
            value = graph.cast(graph.add("Transpose", [images], perm=[0, 3, 1, 2]), "FLOAT")
            if self.resize:
                new = graph.constant(f"{images}/size", list(self.resize))
                sizes = graph.add("Concat", [graph.sizes(value, 0, 2), new], axis=0)
                how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
                value = graph.add("Resize", [value, "", "", sizes], **how)
            if self.swap:
                value = graph.add("Gather", [value, graph.constant(f"{images}/order", [2, 1, 0])], axis=1)
            if self.fixes_window:
                value = self._crop(graph, value)
        if self.mean is not None:
            value = graph.add("Sub", [value, graph.constant(f"{images}/mean", self.mean)])
        if self.scale != 1:
            value = graph.add("Mul", [value, graph.constant(f"{images}/scale", self.scale)])
        return value

    def _crop(self, graph: OnnxGraph, value: str) -> str:
        """The window in the centre of images of any size, or of the size that all have."""
        window = graph.constant(f"{value}/window", list(self.window[1:]))
        axes = graph.constant(f"{value}/axes", [2, 3])
        if self.whole:
            starts = graph.constant(f"{value}/start", self._start(self.whole))
        else:
            slack = graph.add("Sub", [graph.sizes(value, 2, 4), window])
            starts = graph.add("Div", [slack, graph.constant(f"{value}/two", [2])])
        return graph.add("Slice", [value, starts, graph.add("Add", [starts, window]), axes])

    def _start(self, whole: Shape) -> list[int]:
        return [(size - part) // 2 for size, part in zip(whole, self.window[1:], strict=True)]

    def seen(self, images: Tensor) -> Tensor:
        """Return what the net sees of images that the model takes: the same, by PyTorch."""
        x = images
        if self.raw:
            x = x.permute(0, 3, 1, 2).float()
            if self.resize:
                x = F.interpolate(x, self.resize, mode="bilinear", align_corners=False)
            if self.swap:
                x = x.flip(1)
            if self.fixes_window:
                top, left = self._start(tuple(x.shape[2:]))
                x = x[:, :, top : top + self.window[1], left : left + self.window[2]]
        return (x - self.mean if self.mean is not None else x) * self.scale

    def taken(self, seen: Tensor) -> Tensor | None:
        """Return images of which the net sees this, where there are such."""
        pixels = seen / self.scale + (self.mean if self.mean is not None else 0)
        if not self.raw:
            return pixels
        whole = pixels.round()
        if (whole - pixels).abs().max() > 0.01 or whole.min() < 0 or whole.max() > 255:
            return None
        if self.whole:
            (top, left), size = self._start(self.whole), whole.shape[2:]
            below, right = self.whole[0] - top - size[0], self.whole[1] - left - size[1]
            whole = F.pad(whole, (left, right, top, below), mode="replicate")
        return (whole.flip(1) if self._read_swapped else whole).permute(0, 2, 3, 1).to(torch.uint8).contiguous()


def images_of(
    source: Net | NetParameter | str | Path,
    name: str,
    window: Shape,
    folder: Path | None,
    *,
    raw: bool,
    options: ImageOptions,
) -> Images | None:
    """Return what happens to the images of the input `name`, (C, H, W) `window`; None for one that has no images.

    It is what the data layer does in the TEST phase, but for what the options say otherwise.
    """
    layer = data_layer(source, name, folder)
    if layer is None and not raw:
        return None
    if (layer is not None and layer.param.top[0] != name) or len(window) != 3:
        return None
    kind = "" if layer is None else layer.param.type
    if layer is not None and raw and not options.resize and kind in _RESIZERS:
        own = getattr(layer.param, _RESIZERS[kind])
        options = replace(options, resize=(own.new_height, own.new_width) if own.new_height else None)
    given = _with_options(layer, name, source, folder, options)
    transform = given.param.transform_param
    mean = None
    if isinstance(layer, ImageSetData) and not transform.mean_value and not transform.HasField("mean_file"):
        mean = mean_image(layer.load(True)[0])
    read = "BGR" if kind in BGR_READERS else "RGB" if kind == "Cifar10Data" else ""
    found = Transform(given, random_crop=False, mirror=False, default_mean=mean)
    return Images(found, window, read, raw=raw, options=options)


def _with_options(
    layer: Layer | None, name: str, source: Net | NetParameter | str | Path, folder: Path | None, options: ImageOptions
) -> Layer:
    """The layer, or one that feeds `name`, with the transform that the options say."""
    if layer is not None and not options.mean and options.scale is None:
        return layer
    param = LayerParameter(name=name, type="Input", top=[name])
    if layer is not None:
        param.transform_param.CopyFrom(layer.param.transform_param)
    own = param.transform_param
    if options.mean:
        own.ClearField("mean_file")
        own.ClearField("mean_value")
        try:
            own.mean_value.extend(float(value) for value in options.mean.split(","))
        except ValueError:
            own.mean_file = options.mean
    if options.scale is not None:
        own.scale = options.scale
    if not own.scale or not math.isfinite(own.scale):
        raise InputError(f'the scale of the images "{name}" must be a number other than 0, not {own.scale:g}')
    beside = None if isinstance(source, Net | NetParameter) else Path(source).parent
    folders = (Path(), *filter(None, [folder or beside]))
    return create_layer(param, layer.context if layer is not None else Context(folders=folders))
