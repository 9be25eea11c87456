"""MultiBoxLoss, as SSD's Caffe has it: by hand, and against the source's loops written again."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from layer_cases import Case, Draw, run
from torch import Tensor
from torch.nn import functional

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Layer, Tensors
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

IMAGES, PRIORS, CLASSES = 2, 5, 3
VARIANCES = torch.tensor([0.1, 0.1, 0.2, 0.2], dtype=torch.float64)


def priors(draw: Draw) -> Tensor:
    """Boxes of a third of the image to a half, some of which reach beyond it, and their variances."""
    low, size = draw.uniform(PRIORS, 2) * 0.7 - 0.05, draw.uniform(PRIORS, 2) / 6 + 1 / 3
    return torch.stack([torch.cat([low, low + size], 1), VARIANCES.repeat(PRIORS, 1)]).view(1, 2, -1)


def annotated(draw: Draw) -> Tensor:
    """Two boxes of the first image, one of them difficult, one of the second, and a row that is none."""
    low, size = draw.uniform(4, 2) / 2, draw.uniform(4, 2) / 5 + 0.3
    rows = torch.zeros(4, 8, dtype=torch.float64)
    rows[:, 0], rows[:, 1] = torch.tensor([0, 0, 1, -1]), torch.tensor([1, 2, 2, 0])
    rows[:, 3:5], rows[:, 5:7], rows[1, 7] = low, low + size, 1
    return rows[None, None]


def overlap(a: Tensor, b: Tensor) -> float:
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    both = float((high - low).clamp_min(0).prod().detach())
    area = [float((x[2:] - x[:2]).clamp_min(0).prod().detach()) for x in (a, b)]
    return both / (area[0] + area[1] - both) if both else 0.0


def offsets_of(code: str, box: Tensor, prior: Tensor, variance: Tensor) -> Tensor:
    size = prior[2:] - prior[:2]
    if code == "CORNER":
        return (box - prior) / variance
    if code == "CORNER_SIZE":
        return (box - prior) / size.repeat(2) / variance
    centre = (box[:2] + box[2:] - prior[:2] - prior[2:]) / 2 / size
    return torch.cat([centre, ((box[2:] - box[:2]) / size).log()]) / variance


def reference(
    code: str = "CORNER",
    *,
    smooth: bool = True,
    logistic: bool = False,
    per_prediction: bool = True,
    threshold: float = 0.5,
    mining: str = "MAX_NEGATIVE",
    ratio: float = 3,
    negative_below: float = 0.5,
    sample: int = 64,
    difficult: bool = True,
    inside: bool = False,
    share: bool = True,
    by_images: bool = False,
    weight: float = 1,
) -> Callable[[Tensors, Tensors], list[Tensor]]:
    """The loss by loops over images, boxes and priors."""

    def loss_of(score: Tensor, label: int) -> Tensor:
        if not logistic:
            return -score.log_softmax(0)[label]
        target = functional.one_hot(torch.tensor(label), CLASSES).to(score)
        if mining == "NONE" and label == 0:
            target = torch.zeros_like(target)
        return functional.binary_cross_entropy_with_logits(score, target, reduction="sum")

    def pull(residual: Tensor) -> Tensor:
        if not smooth:
            return (residual**2).sum() / 2
        return functional.smooth_l1_loss(residual, torch.zeros_like(residual), reduction="sum")

    def compute(xs: Tensors, blobs: Tensors) -> list[Tensor]:
        offsets = xs[0].view(IMAGES, PRIORS, -1, 4)
        scores, boxes = xs[1].view(IMAGES, PRIORS, CLASSES), xs[2].view(2, PRIORS, 4)[0]
        location, confidence, matched = [xs[0].sum() * 0], [xs[1].sum() * 0], 0
        for i in range(IMAGES):
            rows = [row for row in xs[3][0, 0] if int(row[0]) == i and (difficult or not row[7])]
            found = [[overlap(boxes[p], row[3:7]) for row in rows] for p in range(PRIORS)]
            match: dict[int, int] = {}
            for _ in rows:
                free = [
                    (found[p][j], -p, -j)
                    for p in range(PRIORS)
                    for j in range(len(rows))
                    if p not in match and j not in match.values() and found[p][j] > 1e-6
                ]
                if free:
                    _, p, j = max(free)
                    match[-p] = -j
            for p in range(PRIORS) if per_prediction and rows else ():
                best = max(range(len(rows)), key=lambda j: found[p][j])
                if p not in match and found[p][best] >= threshold:
                    match[p] = best
            place = {p: 0 if share else int(rows[j][1]) for p, j in match.items()}
            pulls = {}
            for p, j in match.items():
                residual = offsets[i, p, place[p]] - offsets_of(code, rows[j][3:7], boxes[p], VARIANCES)
                pulls[p] = pull(residual * ((boxes[p] >= 0) & (boxes[p] <= 1)) if inside else residual)
            labels = {p: int(rows[j][1]) for p, j in match.items()}
            costs = {p: loss_of(scores[i, p], labels.get(p, 0)) for p in range(PRIORS)}
            rest = [p for p in range(PRIORS) if p not in match]
            if mining == "MAX_NEGATIVE":
                rest = [p for p in rest if max(found[p], default=0) < negative_below]
                rest = sorted(rest, key=lambda p: -float(costs[p].detach()))[: int(len(match) * ratio)]
            elif mining == "HARD_EXAMPLE":
                whole = {p: float((costs[p] + pulls.get(p, 0)).detach()) for p in range(PRIORS)}
                hard = sorted(whole, key=lambda p: -whole[p])[: sample if rows else 0]
                match, rest = {p: j for p, j in match.items() if p in hard}, [p for p in rest if p in hard]
            location += [pulls[p] for p in match]
            confidence += [costs[p] for p in (*match, *rest)]
            matched += len(match)
        number = max(1, IMAGES if by_images else matched)
        return [(weight * torch.stack(location).sum() + torch.stack(confidence).sum()) / number]

    return compute


def multi_box(text: str, *, loss: str = "", share: bool = True, **settings: Any) -> Case:
    places = 1 if share else CLASSES
    return Case(
        f'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: {CLASSES} {text} }} {loss}',
        [
            lambda draw: draw.normal(IMAGES, PRIORS * places * 4),
            lambda draw: draw.normal(IMAGES, PRIORS * CLASSES),
            priors,
            annotated,
        ],
        reference(share=share, **settings),
    )


CASES = [
    multi_box(""),
    multi_box(
        "code_type: CENTER_SIZE loc_weight: 2 conf_loss_type: LOGISTIC", code="CENTER_SIZE", weight=2, logistic=True
    ),
    multi_box(
        "code_type: CORNER_SIZE loc_loss_type: L2 bp_inside: true match_type: BIPARTITE neg_overlap: 0.3",
        code="CORNER_SIZE",
        smooth=False,
        inside=True,
        per_prediction=False,
        negative_below=0.3,
    ),
    multi_box(
        "overlap_threshold: 0.3 use_difficult_gt: false neg_pos_ratio: 1.5", threshold=0.3, difficult=False, ratio=1.5
    ),
    multi_box(
        "conf_loss_type: LOGISTIC mining_type: NONE",
        loss="loss_param { normalization: BATCH_SIZE }",
        logistic=True,
        mining="NONE",
        by_images=True,
    ),
    multi_box("mining_type: HARD_EXAMPLE sample_size: 3", mining="HARD_EXAMPLE", sample=3),
    multi_box(
        "share_location: false mining_type: NONE overlap_threshold: 0.4", share=False, mining="NONE", threshold=0.4
    ),
]

FIT = [(2, 4 * PRIORS), (2, 3 * PRIORS), (1, 2, 4 * PRIORS), (1, 1, 4, 8)]
MISTAKES = [
    ('type: "MultiBoxLoss"', FIT, "num_classes is missing or 0"),
    ('type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 background_label_id: 3 }', FIT, "expected 0 to 2"),
    ('type: "MultiBoxLoss" multibox_loss_param { num_classes: 4 }', FIT, "5 priors and 4 classes do not fit"),
    ('type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 share_location: false }', FIT, "needs share_location"),
    (
        'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 do_neg_mining: false }',
        FIT,
        "do_neg_mining: false and",
    ),
    (
        'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 }',
        [*FIT[:3], (4, 8)],
        "needs annotated boxes of 1 x 1 x G x 8, found 4x8",
    ),
]


def built(text: str, shapes: list[tuple[int, ...]]) -> Layer:
    param = parse_net(f'layer {{ type: "MultiBoxLoss" multibox_loss_param {{ {text} }} }}').layer[0]
    return build_layer(param, shapes, dtype=torch.float64)


def two_priors() -> Tensors:
    """One image, whose box is the first of two priors, an eighth to the left."""
    prior = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.8, 0.8, 1, 1]], dtype=torch.float64)
    both = torch.stack([prior.flatten(), torch.full((8,), 0.5, dtype=torch.float64)])[None]
    box = torch.tensor([[[[0, 1, 0, 0.125, 0.25, 0.625, 0.75, 0.0]]]], dtype=torch.float64)
    return [torch.zeros(1, 8, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64), both, box]


def test_a_box_and_two_priors_by_hand() -> None:
    """Offsets should be (-1/4, 0, -1/4, 0) of variance 1/2; of equal scores each costs log 2, matched and mined."""
    xs = two_priors()
    layer = built("num_classes: 2", [tuple(x.shape) for x in xs])
    (loss,), diffs = run(layer, xs, [torch.tensor(1.0, dtype=torch.float64)])
    assert float(loss) == pytest.approx(2 * 0.5 * 0.25**2 + 2 * math.log(2))
    assert diffs[0] is not None and diffs[0].tolist() == [[0.25, 0, 0.25, 0, 0, 0, 0, 0]]
    assert diffs[1] is not None and diffs[1].tolist() == [[0.5, -0.5, -0.5, 0.5]]
    assert diffs[2:] == [None, None]


def test_variances_in_the_target_divide_the_residual_and_the_gradient_is_by_that_as_in_the_fork() -> None:
    xs = two_priors()
    layer = built("num_classes: 2 encode_variance_in_target: true", [tuple(x.shape) for x in xs])
    (loss,), diffs = run(layer, xs, [torch.tensor(1.0, dtype=torch.float64)])
    assert float(loss) == pytest.approx(2 * 0.5 * 0.25**2 + 2 * math.log(2))
    assert diffs[0] is not None and diffs[0].tolist() == [[0.25, 0, 0.25, 0, 0, 0, 0, 0]]


def test_boxes_may_be_matched_by_what_the_offsets_say_and_mined_by_suppression() -> None:
    xs = two_priors()
    xs[0][0, 4:] = torch.tensor([-1.35, -1.1, -0.75, -0.5])  # the second prior's box is the annotated one
    shapes = [tuple(x.shape) for x in xs]
    text = "num_classes: 2 use_prior_for_matching: false match_type: BIPARTITE"
    (loss,), _ = run(built(text, shapes), xs, [torch.tensor(1.0, dtype=torch.float64)])
    assert float(loss) == pytest.approx(math.log(2))  # no offset is wrong, and the first overlaps too much to be mined
    xs[0].zero_()
    mined = "num_classes: 2 mining_type: HARD_EXAMPLE use_prior_for_nms: true nms_param { nms_threshold: 0.3 }"
    (loss,), _ = run(built(mined, shapes), xs, [torch.tensor(1.0, dtype=torch.float64)])
    assert float(loss) == pytest.approx(0.25**2 + 2 * math.log(2))
    outside = "num_classes: 2 ignore_cross_boundary_bbox: true"
    xs[2][0, 0, 0] = -0.1
    (loss,), _ = run(built(outside, shapes), xs, [torch.tensor(1.0, dtype=torch.float64)])
    assert float(loss) == 0


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [(0, 1, "is of image 1, there are 1"), (1, 0, "the label 0, expected 0 to 1 but"), (1, 2, "has the label 2")],
)
def test_annotated_boxes_of_other_images_and_labels_are_errors(column: int, value: float, said: str) -> None:
    xs = two_priors()
    xs[3][..., column] = value
    with pytest.raises(InputError, match=said):
        run(built("num_classes: 2", [tuple(x.shape) for x in xs]), xs)
