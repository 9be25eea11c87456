"""Back from ONNX: what a model does to the images that it takes, as `imae export --preprocess` writes it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from imae.layers.layer import Shape

Array = NDArray[Any]
_ORDER = ("Resize", "Gather", "Slice", "Sub", "Mul")


@dataclass
class Prepared:
    """How uint8 images, N x H x W x C, become the value `seen`, an input of the net; `made` are the values between."""

    seen: str
    made: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    """Height and width that images have, or are brought to, before the window is cut out of their centre."""
    cut: tuple[int, int] | None = None
    """That of a window that is cut out of images of any size."""
    swaps: bool = False
    mean: Array | None = None
    """C x H x W, or with axes of 1."""
    scale: float = 1.0

    def describe(self, channels: str, mean_file: Path) -> str:
        """Return what a user does to have images prepared alike.

        `channels` are those of the model's metadata. A mean of an image is that of `mean_file`, which is to be written.
        """
        given = {"resize": "x".join(map(str, self.size or ())), "mean": str(mean_file) if self.has_mean_image else ""}
        given["channels"] = "BGR" if self.swaps else "RGB" if channels == "RGB" else ""
        if self.mean is not None and not self.has_mean_image:
            given["mean"] = ",".join(_number(value) for value in self.mean.ravel())
        if self.scale != 1:
            given["scale"] = _number(self.scale)
        options = " ".join(f"--{name} {value}" for name, value in given.items() if value)
        cut = f", cut to {self.cut[0]}x{self.cut[1]} in their centre" if self.cut else ""
        by = f", as `imae predict` and `imae export --preprocess` prepare them by {options}" if options else ""
        return f"images{cut or ' as they are' if not by else cut}{by}"

    @property
    def has_mean_image(self) -> bool:
        """Whether the mean is not one number, or one for each channel."""
        return self.mean is not None and self.mean.size != 1 and self.mean.shape[-2:] != (1, 1)

    def whole_mean(self, window: Shape) -> Array:
        """Return the mean of the images of which a window of this shape, C x H x W, is seen: beyond it, its border."""
        assert self.mean is not None
        sizes = zip(self.size or window[1:], window[1:], strict=True)
        pads = [((whole - part) // 2, whole - part - (whole - part) // 2) for whole, part in sizes]
        return np.pad(np.broadcast_to(self.mean, window), [(0, 0), *pads], mode="edge")


def prepared(
    images: str,
    readers: Mapping[str, Sequence[NodeProto]],
    values: Mapping[str, Array],
    constants: Collection[str],
    outputs: Collection[str],
) -> Prepared | None:
    """Return what becomes of the images of an input; None unless channels go to the front, and numbers become float32.

    `values` are all of the model's.
    """
    follow, node = _follower(readers, outputs), None
    found = Prepared(images)
    for kind in ("Transpose", "Cast"):
        node = follow(found.seen)
        if node is None or node.op_type != kind:
            return None
        settings = _settings(node)
        found.seen = node.output[0]
        found.made.append(found.seen)
        if settings.get("perm", (0, 3, 1, 2)) != [0, 3, 1, 2] if kind == "Transpose" else settings["to"] != 1:
            return None
    rank = 0
    while (node := follow(found.seen)) is not None and node.op_type in _ORDER[rank:]:
        if node.input[0] != found.seen or not _take(found, node, values, constants):
            break
        rank = _ORDER.index(node.op_type) + 1
        found.seen = node.output[0]
        found.made.append(found.seen)
    return found


def _follower(
    readers: Mapping[str, Sequence[NodeProto]], outputs: Collection[str]
) -> Callable[[str], NodeProto | None]:
    def follow(value: str) -> NodeProto | None:
        """The one node that reads a value's numbers."""
        nodes = [node for node in readers.get(value, ()) if node.op_type != "Shape"]
        return nodes[0] if len(nodes) == 1 and value not in outputs else None

    return follow


def _number(value: float) -> str:
    return np.format_float_positional(np.float32(value), trim="-")


def _settings(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _take(found: Prepared, node: NodeProto, values: Mapping[str, Array], constants: Collection[str]) -> bool:
    """Note what a node does, if it is what `--preprocess` writes."""
    before, after, settings = values[node.input[0]].shape, values[node.output[0]].shape, _settings(node)
    others = [values[name] for name in node.input[1:] if name]
    is_fixed = set(node.input[1:]) <= set(constants)
    if node.op_type == "Resize":
        how = {"mode": b"linear", "coordinate_transformation_mode": b"half_pixel"}
        if before[:2] != after[:2] or any(settings.get(name) != way for name, way in how.items()):
            return False
        found.size = after[2], after[3]
    elif node.op_type == "Gather":
        if not is_fixed or settings.get("axis") != 1 or others[0].tolist() != [2, 1, 0]:
            return False
        found.swaps = True
    elif node.op_type == "Slice":
        starts = [(whole - part) // 2 for whole, part in zip(before, after, strict=True)]
        if [part.tolist() for part in (others[0], *others[2:])] != [starts[2:], [2, 3]] or any(starts[:2]):
            return False
        if node.input[1] in constants:
            found.size = before[2], before[3]
        else:
            found.cut = after[2], after[3]
    elif not is_fixed or before != after or others[0].ndim > 3 or (node.op_type == "Mul" and others[0].size != 1):
        return False
    elif node.op_type == "Sub":
        found.mean = others[0]
    else:
        found.scale = float(others[0].ravel()[0])
    return True
