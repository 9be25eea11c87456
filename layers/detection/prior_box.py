"""PriorBox, of SSD's Caffe: the default boxes at each position of a feature map."""

import math

import torch
from torch import Tensor

from imae.layers.layer import Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe

_ALIKE = 1e-6
"""Within which two aspect ratios are one."""


class PriorBox(Layer):
    """Boxes (1 x 2 x 4 P) as fractions of the image: corners (xmin, ymin, xmax, ymax) first, then their variances.

    At each position of bottom 0, row by row, the centre being (i + `offset`) `step`: for each `min_size` s (whole
    pixels, rounded down) a square of s, with `max_size` one of sqrt(s max_size), and for each `aspect_ratio` r (with
    `flip` 1/r too) a box of s sqrt(r) x s / sqrt(r). The image is bottom 1, or `img_size`; a step that is not given is
    its size over the map's. `clip` cuts boxes to the image. Liu et al. 2016, Section 2.2.
    """

    type = "PriorBox"
    bottoms = (2, 2)
    no_gradient_to = held_fixed = frozenset({0, 1})
    no_gradient_from = frozenset({0})
    in_place = False
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings, and list width and height of the boxes of a position."""
        param = self.param.prior_box_param
        smallest, largest = list(param.min_size), list(param.max_size)
        if not smallest or not all(0 < size < math.inf for size in smallest):
            raise self.error("needs a min_size above 0")
        fits = len(largest) == len(smallest) and all(a < b < math.inf for a, b in zip(smallest, largest, strict=True))
        if largest and not fits:
            raise self.error("needs a max_size above each min_size")
        ratios: list[float] = [1.0]
        for ratio in param.aspect_ratio:
            if not 0 < ratio < math.inf:
                raise self.error(f"aspect_ratio must be above 0, not {ratio:g}")
            if all(abs(ratio - other) >= _ALIKE for other in ratios):
                ratios += [ratio, 1 / ratio] if param.flip else [ratio]
        self.sizes: list[tuple[float, float]] = []
        for i, size in enumerate(map(int, smallest)):
            self.sizes.append((size, size))
            if largest:
                self.sizes.append((math.sqrt(size * int(largest[i])),) * 2)
            self.sizes += [(size * math.sqrt(r), size / math.sqrt(r)) for r in ratios if abs(r - 1) >= _ALIKE]
        self.variance = list(param.variance) or [0.1]
        if len(self.variance) not in (1, 4) or not all(0 < number < math.inf for number in self.variance):
            raise self.error("variance takes 1 or 4 numbers above 0")
        for whole, parts in (("img_size", ("img_h", "img_w")), ("step", ("step_h", "step_w"))):
            given = [param.HasField(part) for part in parts]
            if (param.HasField(whole) and any(given)) or any(given) != all(given):
                raise self.error(f"give either {whole} or both {parts[0]} and {parts[1]}")
            if not all(0 < getattr(param, name) < math.inf for name in (whole, *parts) if param.HasField(name)):
                raise self.error(f"{whole} must be above 0")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the map's height and width, and the image's."""
        if any(len(shape) != 4 for shape in bottoms) or not all(bottoms[0][2:] + bottoms[1][2:]):
            raise self.error(f"needs a feature map and an image, found {' and '.join(map(describe, bottoms))}")
        self.geometry = bottoms[0][2:], bottoms[1][2:]
        return [(1, 2, math.prod(bottoms[0][2:]) * len(self.sizes) * 4)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return the boxes."""
        return [self._boxes().to(bottoms[0])]

    def _boxes(self) -> Tensor:
        param, ((rows, columns), image) = self.param.prior_box_param, self.geometry
        sizes = (param.img_h, param.img_w) if param.HasField("img_h") else (param.img_size,) * 2
        height, width = sizes if sizes[0] else image
        steps = (param.step_h, param.step_w) if param.HasField("step_h") else (param.step,) * 2
        steps = steps if steps[0] else (height / rows, width / columns)
        y, x = (
            (torch.arange(count, dtype=torch.float64) + param.offset) * step
            for count, step in zip((rows, columns), steps, strict=True)
        )
        half = torch.tensor(self.sizes, dtype=torch.float64) / 2
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[:, :, None]
        corners = torch.cat([centre - half, centre + half], -1) / torch.tensor([width, height] * 2)
        corners = (corners.clamp(0, 1) if param.clip else corners).flatten()
        variances = torch.tensor(self.variance, dtype=torch.float64).repeat(len(corners) // len(self.variance))
        return torch.stack([corners, variances])[None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Constant."""
        graph.node("Identity", [graph.constant(f"{self.name}/boxes", self._boxes())], tops)
