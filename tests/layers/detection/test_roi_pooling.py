"""ROIPooling, as Fast R-CNN's Caffe has it: cell by cell in plain Python beside it."""

import math

import torch
from layer_cases import Case, Draw, normal
from torch import Tensor

REGIONS = [[0, 0, 0, 7, 5], [1, 2, 1, 5, 4], [0, 3, 3, 3, 3], [1, 10, 10, 14, 14], [0, -3, 1, 4, 30], [1, 5, 4, 2, 2]]


def pooled(xs: list[Tensor], height: int, width: int, scale: float) -> list[Tensor]:
    x, regions = xs[0], xs[1].tolist()
    rows, columns = x.shape[2:]
    tops = []
    for image, *corners in regions:
        x0, y0, x1, y1 = (math.floor(abs(c * scale) + 0.5) * (1 if c >= 0 else -1) for c in corners)
        cell_h, cell_w = max(y1 - y0 + 1, 1) / height, max(x1 - x0 + 1, 1) / width
        cells = []
        for i in range(height):
            for j in range(width):
                top, bottom = (min(max(v + y0, 0), rows) for v in (math.floor(i * cell_h), math.ceil((i + 1) * cell_h)))
                left, right = (
                    min(max(v + x0, 0), columns) for v in (math.floor(j * cell_w), math.ceil((j + 1) * cell_w))
                )
                part = x[int(image), :, top:bottom, left:right].flatten(1)
                cells.append(part.amax(1) if part.numel() else x.new_zeros(x.shape[1]))
        tops.append(torch.stack(cells, 1).view(x.shape[1], height, width))
    return [torch.stack(tops)]


def regions(draw: Draw) -> Tensor:
    return torch.tensor(REGIONS, dtype=torch.float64)


def case(height: int, width: int, scale: float) -> Case:
    return Case(
        f'type: "ROIPooling" roi_pooling_param {{ pooled_h: {height} pooled_w: {width} spatial_scale: {scale} }}',
        [normal(2, 3, 6, 8), regions],
        lambda xs, blobs: pooled(xs, height, width, scale),
    )


CASES = [case(2, 3, 1), case(3, 3, 0.5), case(1, 1, 1)]
SHAPES = [(2, 3, 6, 8), (4, 5)]
MISTAKES = [
    ('type: "ROIPooling"', SHAPES, "needs pooled_h and pooled_w above 0"),
    ('type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 spatial_scale: 0 }', SHAPES, "must be above 0"),
    (
        'type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }',
        [SHAPES[0], (4, 4)],
        "regions of R x 5, found",
    ),
]
