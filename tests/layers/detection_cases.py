"""What the tests of layers for regions share."""

import math
from collections.abc import Sequence

import torch
from layer_cases import Maker

Box = Sequence[float]
"""x1, y1, x2, y2, all within."""


def fixed(values: Sequence[Box]) -> Maker:
    """A bottom of these rows."""
    return lambda draw: torch.tensor(values, dtype=torch.float64)


def overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(0, width) * max(0, height)
    return both / (sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)) - both)


def offsets(anchor: Box, box: Box) -> list[float]:
    (x, y, w, h), (bx, by, bw, bh) = (
        (c[0] + (c[2] - c[0] + 1) / 2, c[1] + (c[3] - c[1] + 1) / 2, c[2] - c[0] + 1, c[3] - c[1] + 1)
        for c in (anchor, box)
    )
    return [(bx - x) / w, (by - y) / h, math.log(bw / w), math.log(bh / h)]
