"""ContrastiveLoss, in today's and in the legacy form."""

import pytest
import torch
from layer_cases import Case, labels, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer

TYPE = 'type: "ContrastiveLoss"'


def contrastive(margin: float, legacy: bool, *shape: int) -> Case:
    """Its derivative by the distance d is Caffe's: divided by d + 1e-4 where that of the value would be by d."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        n = len(xs[0])
        a, b = (x.reshape(n, -1) for x in xs[:2])
        square = (a - b).square().sum(1)
        if legacy:
            apart = (margin - square).clamp_min(0)
        else:
            apart = (margin - square.sqrt()).clamp_min(0).square()
            share = square.sqrt() / (square.sqrt() + 1e-4)
            apart = apart.detach() + share.detach() * (apart - apart.detach())
        return [square.where(xs[2] != 0, apart).sum() / (2 * n)]

    text = f"{TYPE} contrastive_loss_param {{ margin: {margin} legacy_version: {str(legacy).lower()} }}"
    return Case(text, [normal(*shape), normal(*shape), labels(2, shape[0])], reference)


CASES = [
    contrastive(2.0, False, 8, 3),
    contrastive(5.0, True, 8, 3),
    contrastive(4.0, False, 6, 4, 1, 1),
    contrastive(1.5, False, 6, 1),
]

MISTAKES = [
    (TYPE, [(3, 4), (3, 5), (3,)], "needs two bottoms of N x C, found 3x4 and 3x5"),
    (TYPE, [(3, 4, 2, 1), (3, 4, 2, 1), (3,)], "needs two bottoms of N x C, found 3x4x2x1 and 3x4x2x1"),
    (TYPE, [(3, 4), (3, 4), (4,)], "3 pairs need as many labels, found 4"),
    (TYPE, [(2, 4), (2, 4), (1, 2)], "2 pairs need as many labels, found 1x2"),
    (TYPE, [(3, 4), (3, 4)], "takes 3 bottom blobs, the prototxt gives 2"),
]


@pytest.mark.parametrize(("label", "similar"), [(0.0, False), (0.9, False), (-0.9, False), (1.0, True), (-3.0, True)])
def test_what_is_not_0_cut_to_an_integer_is_similar(label: float, similar: bool) -> None:
    layer = build_layer(f"{TYPE} contrastive_loss_param {{ margin: 3 }}", [(1, 2), (1, 2), (1,)])
    a, b = torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    tops, _ = run(layer, [a, b, torch.tensor([label])])
    assert float(tops[0]) == (2.0 if similar else 0.5)


def test_a_pair_of_one_point_is_pushed_nowhere() -> None:
    """The distance has no direction at 0; Caffe's 1e-4 makes that 0, not 0 / 0."""
    layer = build_layer(TYPE, [(1, 2), (1, 2), (1,)])
    tops, (da, db, _) = run(layer, [torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1)])
    assert float(tops[0]) == 0.5
    assert da is not None and db is not None and not da.any() and not db.any()
