"""EuclideanLoss: half the mean squared distance."""

import torch
from layer_cases import Case, normal, run

from imae.layers.gradient_check import build_layer

CASES = [
    Case(
        'type: "EuclideanLoss"',
        [normal(3, 4), normal(3, 4)],
        lambda xs, blobs: [(xs[0] - xs[1]).square().sum() / 6],
    ),
    Case(
        'type: "EuclideanLoss" loss_weight: 0.3',
        [normal(2, 3, 2, 2), normal(2, 12)],
        lambda xs, blobs: [(xs[0].flatten(1) - xs[1]).square().sum() / 4],
    ),
]

MISTAKES = [
    ('type: "EuclideanLoss"', [(3, 4), (2, 6)], "needs bottoms of the same batch size, found 3x4 and 2x6"),
    ('type: "EuclideanLoss"', [(3, 4), (3, 5)], "needs bottoms of one size, found 3x4 and 3x5"),
    ('type: "EuclideanLoss"', [(), ()], "needs bottoms of the same batch size, found scalar and scalar"),
]


def test_both_bottoms_have_a_gradient_each_of_its_own_shape() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[[4.0], [0.0]]])
    layer = build_layer('type: "EuclideanLoss"', [(1, 2), (1, 2, 1)])
    tops, (da, db) = run(layer, [a, b], [torch.tensor(2.0)])
    assert float(tops[0]) == 6.5
    assert da is not None and torch.equal(da, torch.tensor([[-6.0, 4.0]]))
    assert db is not None and torch.equal(db, torch.tensor([[[6.0], [-4.0]]]))
