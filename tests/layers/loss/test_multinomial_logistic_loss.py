"""MultinomialLogisticLoss, SoftmaxWithLoss and SoftmaxWithLossOHEM."""

import math

import numpy as np
import pytest
import torch
from layer_cases import Case, labels, normal
from loss_cases import BATCH_SIZE, FULL, NONE, loss, run, scores, usual_losses
from torch import Tensor

ON_PROBABILITIES = 'type: "MultinomialLogisticLoss"'


def value(log_p: Tensor) -> Tensor:
    return -log_p


def of_all_axes(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    p = xs[0].flatten(1)
    return [-p.gather(1, xs[1].reshape(-1, 1)).log().mean()]


def of_each(xs: list[Tensor], ignored: int | None) -> list[Tensor]:
    """Sample by sample, as R-FCN's Caffe: its mean over those that count, the probabilities, and each."""
    p, each, counted = xs[0].softmax(1), torch.zeros(xs[1].shape, dtype=xs[0].dtype), 0
    total = p.new_zeros(())
    for n in range(len(p)):
        for s in range(p[0, 0].numel()):
            label = int(xs[1].reshape(len(p), -1)[n, s])
            if label != ignored:
                loss = -p.reshape(*p.shape[:2], -1)[n, label, s].log()
                total, counted = total + loss, counted + 1
                each.view(len(p), -1)[n, s] = loss.detach()
    return [total / counted, p, each]


def ohem(x: tuple[int, ...], y: tuple[int, ...], ignored: int | None = None) -> Case:
    param = "" if ignored is None else f"loss_param {{ ignore_label: {ignored} }}"
    text = f'type: "SoftmaxWithLossOHEM" top: "l" top: "p" top: "each" {param}'
    return Case(text, [normal(*x), labels(x[1], *y)], lambda xs, blobs: of_each(xs, ignored))


CASES = [
    ohem((4, 3), (4, 1, 1, 1)),
    ohem((2, 3, 2, 2), (2, 1, 2, 2), ignored=1),
    Case(ON_PROBABILITIES, [scores("MultinomialLogisticLoss", 3, 2, 3, 2), labels(12, 3, 1, 1, 1)], of_all_axes),
    *usual_losses("SoftmaxWithLoss", value),
    *usual_losses("MultinomialLogisticLoss", value),
    loss("SoftmaxWithLoss", value, normal(2, 3, 4), labels(3, 2, 4), ignored=0, mode=FULL),
    loss("SoftmaxWithLoss", value, normal(2, 3, 4), labels(3, 2, 4), ignored=0, mode=NONE),
    loss("SoftmaxWithLoss", value, normal(2, 3, 4), labels(3, 2, 4), mode=NONE),
    loss("SoftmaxWithLoss", value, normal(3, 4), lambda draw: torch.full((3,), 1), ignored=1),
    loss("SoftmaxWithLoss", value, normal(2, 3, 4), labels(4, 2, 3), axis=2, mode=BATCH_SIZE),
]

MISTAKES = [
    (
        'type: "SoftmaxWithLoss" softmax_param { axis: 2 }',
        [(3, 4), (3,)],
        "axis 2 is out of range for a bottom of shape 3x4",
    ),
    ('type: "SoftmaxWithLoss"', [(3, 4, 2), (3,)], "3x4x2 with classes along axis 1 need labels of 3x2, found 3"),
    ('type: "SoftmaxWithLoss"', [(3, 4, 2), (6,)], "needs bottoms of the same batch size, found 3x4x2 and 6"),
    (ON_PROBABILITIES, [(3, 4, 2), (3, 4)], "3x4x2 with classes along axis 1 need labels of 3x2, found 3x4"),
    (ON_PROBABILITIES, [(3, 4), ()], "needs bottoms of the same batch size, found 3x4 and scalar"),
]


def test_a_vanishing_probability_costs_as_much_as_caffe_says() -> None:
    """SoftmaxWithLoss bounds p_y by FLT_MIN, MultinomialLogisticLoss by 1e-20."""
    value, _ = run('type: "SoftmaxWithLoss"', torch.tensor([[-1e4, 0.0]]), torch.tensor([0]))
    assert float(value) == pytest.approx(-math.log(np.finfo(np.float32).tiny), rel=1e-6)
    value, dp = run('type: "MultinomialLogisticLoss"', torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert float(value) == pytest.approx(-math.log(1e-20), rel=1e-6)
    assert float(dp[0, 0]) == pytest.approx(-1e20, rel=1e-6)
