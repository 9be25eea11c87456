"""AnchorTarget, anchor by anchor as py-faster-rcnn's anchor_target_layer.py has it."""

import pytest
import torch
from detection_cases import fixed, offsets, overlap
from layer_cases import Case, normal
from torch import Tensor

from imae.layers.detection.proposal import anchors
from imae.layers.gradient_check import build_layer

ROWS, COLUMNS = 4, 5
SETTINGS = "ratio: 0.5 ratio: 1 scale: 1 scale: 2"
INFO = [64.0, 80.0, 1.0]
BOXES = [[3, 4, 30, 40, 2], [40, 10, 70, 60, 1], [20.5, 20, 35, 36, 7]]
TOPS = 'top: "a" top: "b" top: "c" top: "d"'


def targets(boxes: list[list[float]], border: float = 0, high: float = 0.7, low: float = 0.3) -> list[Tensor]:
    """All four tops, with none left out at random."""
    base = anchors(16, [0.5, 1], [1, 2]).tolist()
    label = torch.full((len(base), ROWS, COLUMNS), -1.0)
    to, inside, outside = (torch.zeros(len(base), 4, ROWS, COLUMNS) for _ in range(3))
    found = {}
    for y in range(ROWS):
        for x in range(COLUMNS):
            for a, corners in enumerate(base):
                place = [c + 16 * (x if i % 2 == 0 else y) for i, c in enumerate(corners)]
                if min(place[:2]) >= -border and place[2] < INFO[1] + border and place[3] < INFO[0] + border:
                    found[a, y, x] = [overlap(place, box) for box in boxes], place
    best = [max(values[i] for values, _ in found.values()) for i in range(len(boxes))]
    for at, (values, place) in found.items():
        a, y, x = at
        if max(values) < low:
            label[at] = 0
        if max(values) >= high or any(v == b for v, b in zip(values, best, strict=True)):
            label[at] = 1
        to[a, :, y, x] = torch.tensor(offsets(place, boxes[values.index(max(values))]))
    inside[label[:, None].expand_as(inside) == 1] = 1
    outside[label[:, None].expand_as(inside) >= 0] = 1 / float((label >= 0).sum())
    return [label.view(1, 1, -1, COLUMNS), *(x.view(1, -1, ROWS, COLUMNS) for x in (to, inside, outside))]


def case(settings: str, **options: float) -> Case:
    text = f'type: "AnchorTarget" {TOPS} anchor_target_param {{ {SETTINGS} {settings} }}'
    bottoms = [normal(1, 8, ROWS, COLUMNS), fixed(BOXES), fixed([INFO])]
    return Case(text, bottoms, lambda xs, blobs: [x.double() for x in targets(BOXES, **options)])


CASES = [case(""), case("allowed_border: 10 positive_overlap: 0.5 negative_overlap: 0.1", border=10, high=0.5, low=0.1)]
SHAPES = [(1, 8, ROWS, COLUMNS), (3, 5), (1, 3)]
MISTAKES = [
    (f'type: "AnchorTarget" {TOPS} anchor_target_param {{ ratio: 0 }}', SHAPES, "ratio, scale, feat_stride and base"),
    (f'type: "AnchorTarget" {TOPS} anchor_target_param {{ fg_fraction: 2 }}', SHAPES, "fg_fraction must lie between"),
    (f'type: "AnchorTarget" {TOPS}', [(2, 8, 4, 5), *SHAPES[1:]], "needs a map of one image, boxes of G x 5 and"),
]


@pytest.mark.parametrize("number", [0, 1])
def test_as_many_as_the_batch_are_left_at_random(number: int) -> None:
    text = f'type: "AnchorTarget" {TOPS} anchor_target_param {{ {SETTINGS} allowed_border: 20 batch_size: 12 }}'
    xs = [torch.zeros(SHAPES[0]), torch.tensor(BOXES), torch.tensor([INFO])]
    drawn = []
    for passes in (number, 1 - number):
        labels, _, inside, outside = build_layer(text, SHAPES, forwards=passes).forward(xs, {})
        assert ((labels == 1).sum(), (labels == 0).sum()) == (6, 6) or (labels >= 0).sum() == 12
        assert (labels == 1).sum() <= 6 and inside.sum() == 4 * (labels == 1).sum()
        assert float(outside.sum()) == pytest.approx(4)
        drawn.append(labels)
    assert not torch.equal(*drawn)


def test_without_boxes_all_anchors_inside_are_background() -> None:
    text = f'type: "AnchorTarget" {TOPS} anchor_target_param {{ {SETTINGS} }}'
    layer = build_layer(text, [SHAPES[0], (0, 5), (1, 3)])
    labels, offset, inside, _ = layer.forward(
        [torch.zeros(SHAPES[0]), torch.zeros(0, 5), torch.tensor([[640, 640, 1.0]])], {}
    )
    assert set(labels.unique().tolist()) == {-1, 0} and not offset.any() and not inside.any()
