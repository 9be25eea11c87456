"""ProposalTarget, region by region as py-faster-rcnn's proposal_target_layer.py has it."""

import pytest
import torch
from detection_cases import fixed, offsets, overlap
from layer_cases import Case
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.random_streams import permutation
from imae.prototxt_like.errors import InputError

BOXES = [[3, 4, 30, 40, 2], [40, 10, 70, 60, 1]]
REGIONS = [[0, 5, 6, 32, 41], [0, 41, 12, 69, 55], [0, 0, 0, 10, 10], [0, 50, 30, 79, 63], [0, 8, 20, 40, 50]]
TOPS = 'top: "a" top: "b" top: "c" top: "d" top: "e"'


def chosen(classes: int, batch: int, low: float, order: list[int]) -> list[Tensor]:
    """All five tops, of candidates drawn in this order."""
    candidates = [region[1:] for region in REGIONS] + [box[:4] for box in BOXES]
    values = [[overlap(region, box) for box in BOXES] for region in candidates]
    objects = [i for i in order if max(values[i]) >= 0.5][: round(0.25 * batch)]
    rest = [i for i in order if low <= max(values[i]) < 0.5][: batch - len(objects)]
    rows = []
    for i in objects + rest:
        label, to, weight = 0, [0.0] * 4 * classes, [0.0] * 4 * classes
        if i in objects:
            box = BOXES[values[i].index(max(values[i]))]
            label = int(box[4])
            at = 4 * min(label, classes - 1)  # of two classes the second is that of all objects
            for v, std in zip(offsets(candidates[i], box), (0.1, 0.1, 0.2, 0.2), strict=True):
                to[at], weight[at], at = v / std, 1.0, at + 1
        rows.append(([0, *candidates[i]], [label], to, weight, weight))
    return [torch.tensor(part, dtype=torch.float64)[..., None, None] for part in zip(*rows, strict=True)]


def case(classes: int, batch: int, low: float = 0) -> Case:
    settings = f"num_classes: {classes} batch_size: {batch} bg_overlap_low: {low}"
    order = permutation(7, 0, "ProposalTarget", 0).tolist()
    return Case(
        f'type: "ProposalTarget" {TOPS} proposal_target_param {{ {settings} }}',
        [fixed(REGIONS), fixed(BOXES)],
        lambda xs, blobs: chosen(classes, batch, low, order),
        without={"test_reshaped_is_as_built": "what it runs on meanwhile are no regions of one image"},
    )


CASES = [case(3, 128), case(4, 8), case(3, 4), case(2, 16, 0.1)]
SHAPES = [(5, 5), (2, 5)]
MISTAKES = [
    (f'type: "ProposalTarget" {TOPS}', SHAPES, "num_classes is 0, expected at least 2"),
    (
        f'type: "ProposalTarget" {TOPS} proposal_target_param {{ num_classes: 3 std: 1 }}',
        SHAPES,
        "mean and std take 4 numbers each",
    ),
    (
        f'type: "ProposalTarget" {TOPS} proposal_target_param {{ num_classes: 3 }}',
        [(5, 4), (2, 5)],
        "needs regions of P x 5 and boxes of G x 5, found 5x4 and 2x5",
    ),
]


@pytest.mark.parametrize(
    ("place", "column", "value", "said"),
    [(0, 0, 1, "takes regions of one image"), (1, 4, 3, "a box has class 3, expected 1 to 2"), (1, 4, 0, "class 0")],
)
def test_other_images_and_classes_are_errors(place: int, column: int, value: float, said: str) -> None:
    xs = [torch.tensor(rows, dtype=torch.float32) for rows in (REGIONS, BOXES)]
    xs[place][0, column] = value
    layer = build_layer(f'type: "ProposalTarget" {TOPS} proposal_target_param {{ num_classes: 3 }}', SHAPES)
    with pytest.raises(InputError, match=said):
        layer.forward(xs, {})
