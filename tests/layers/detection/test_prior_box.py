"""PriorBox, as SSD's Caffe has it."""

import math
from typing import Any

import torch
from layer_cases import Case, normal


def boxes(rows: int, columns: int, height: float, width: float, **settings: Any) -> torch.Tensor:
    """Box by box, as the layer's source goes."""
    smallest, largest = settings["min_size"], settings.get("max_size", [])
    ratios = settings.get("ratios", [])
    step_y, step_x = settings.get("step", (height / rows, width / columns))
    offset, found = settings.get("offset", 0.5), []
    for y in range(rows):
        for x in range(columns):
            centre_x, centre_y = (x + offset) * step_x, (y + offset) * step_y
            for i, size in enumerate(smallest):
                sides = [(size, size)]
                if largest:
                    sides += [(math.sqrt(size * largest[i]),) * 2]
                sides += [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for ratio in ratios]
                for w, h in sides:
                    found += [(centre_x - w / 2) / width, (centre_y - h / 2) / height]
                    found += [(centre_x + w / 2) / width, (centre_y + h / 2) / height]
    corners = torch.tensor(found, dtype=torch.float64)
    corners = corners.clamp(0, 1) if settings.get("clip") else corners
    variance = torch.tensor(settings.get("variance", [0.1]), dtype=torch.float64)
    return torch.stack([corners, variance.repeat(len(found) // len(variance))])[None]


def prior_box(
    text: str, image: tuple[int, int] = (30, 40), size: tuple[float, float] = (30, 40), **settings: Any
) -> Case:
    return Case(
        f'type: "PriorBox" prior_box_param {{ {text} }}',
        [normal(2, 3, 3, 4), normal(2, 3, 30, 40)],
        lambda xs, blobs: [boxes(3, 4, *size, **settings)],
    )


CASES = [
    prior_box("min_size: 5", min_size=[5]),
    prior_box("min_size: 5.9 max_size: 9.9", min_size=[5], max_size=[9]),
    prior_box(
        "min_size: 4 min_size: 8 max_size: 6 max_size: 12 aspect_ratio: 2 aspect_ratio: 1 aspect_ratio: 2 clip: true "
        "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2",
        min_size=[4, 8],
        max_size=[6, 12],
        ratios=[2, 0.5],
        clip=True,
        variance=[0.1, 0.1, 0.2, 0.2],
    ),
    prior_box(
        "min_size: 6 aspect_ratio: 3 aspect_ratio: 2 flip: false variance: 0.5",
        min_size=[6],
        ratios=[3, 2],
        variance=[0.5],
    ),
    prior_box("min_size: 6 step: 8 offset: 0.25 img_size: 64", size=(64, 64), min_size=[6], step=(8, 8), offset=0.25),
    prior_box("min_size: 6 step_h: 8 step_w: 4 img_h: 32 img_w: 16", size=(32, 16), min_size=[6], step=(8, 4)),
]
BOTTOMS = [(2, 3, 3, 4), (2, 3, 30, 40)]
MISTAKES = [
    ('type: "PriorBox"', BOTTOMS, "needs a min_size above 0"),
    ('type: "PriorBox" prior_box_param { min_size: 3 max_size: 3 }', BOTTOMS, "needs a max_size above each min_size"),
    (
        'type: "PriorBox" prior_box_param { min_size: 3 aspect_ratio: 0 }',
        BOTTOMS,
        "aspect_ratio must be above 0, not 0",
    ),
    ('type: "PriorBox" prior_box_param { min_size: 3 variance: [1, 2] }', BOTTOMS, "variance takes 1 or 4 numbers"),
    ('type: "PriorBox" prior_box_param { min_size: 3 step: 1 step_h: 2 }', BOTTOMS, "give either step or both step_h"),
    ('type: "PriorBox" prior_box_param { min_size: 3 img_size: 0 }', BOTTOMS, "img_size must be above 0"),
    ('type: "PriorBox" prior_box_param { min_size: 3 }', [(2, 3), (2, 3, 4, 4)], "needs a feature map and an image"),
]
