"""SigmoidCrossEntropyLoss, and balanced: its value, what is ignored, and what the sum is divided by."""

import pytest
import torch
from layer_cases import Case, Draw, Maker, normal, run, uniform
from torch import Tensor

from imae.layers.gradient_check import build_layer

TYPE = 'type: "SigmoidCrossEntropyLoss"'


def ignoring(*shape: int) -> Maker:
    """Targets 0 and 1, and -1 for what is ignored."""
    return lambda draw: draw.integers(-1, 2, *shape).double()


def sigmoid_loss(param: str, targets: Maker, divisor: object, *shape: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        x, t = xs[0], xs[1].reshape(xs[0].shape)
        valid = t.trunc() != -1 if "ignore_label" in param else torch.ones_like(t, dtype=torch.bool)
        p = x.sigmoid()
        value = -(t * p.log() + (1 - t) * (1 - p).log())
        total = value.where(valid, torch.zeros_like(value)).sum()
        return [total / (max(1, int(valid.sum())) if divisor == "valid" else divisor)]

    return Case(f"{TYPE} loss_param {{ {param} }}", [normal(*shape), targets], reference)


BALANCED = 'type: "SigmoidCrossEntropyBalanceLoss"'


def balanced(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    """Number by number as the fork's loops; a target of -1 counts nothing."""
    total = xs[0].new_zeros(())
    for x, t in zip(xs[0], xs[1].reshape(xs[0].shape), strict=True):
        ones, zeros = int((t == 1).sum()), int((t == 0).sum())
        for value, target in zip(x.flatten(), t.flatten().tolist(), strict=True):
            p = value.sigmoid()
            if target == 1:
                total = total - p.log() * zeros / (ones + zeros)
            elif target == 0:
                total = total - (1 - p).log() * ones / (ones + zeros)
    return [total / len(xs[0])]


CASES = [
    Case(BALANCED, [normal(2, 1, 3, 4), ignoring(2, 1, 3, 4)], balanced),
    Case(BALANCED, [normal(3, 6), ignoring(3, 1, 2, 3)], balanced),
    sigmoid_loss("", uniform(4, 3), 4, 4, 3),
    sigmoid_loss("", uniform(2, 12), 2, 2, 3, 4),
    sigmoid_loss("normalize: true ignore_label: -1", ignoring(3, 5), "valid", 3, 5),
    sigmoid_loss("normalize: true normalization: NONE", uniform(3, 5), 1, 3, 5),
    sigmoid_loss("normalize: false", uniform(3, 5), 3, 3, 5),
    sigmoid_loss("normalization: VALID", uniform(3, 5), 15, 3, 5),
    sigmoid_loss("normalization: VALID ignore_label: -1", ignoring(3, 5), "valid", 3, 5),
    sigmoid_loss("normalization: FULL ignore_label: -1", ignoring(3, 5), 15, 3, 5),
    sigmoid_loss("normalization: BATCH_SIZE ignore_label: -1", ignoring(3, 5), 3, 3, 5),
]

MISTAKES = [
    (BALANCED, [(3, 4), (3, 5)], "needs bottoms of one size, found 3x4 and 3x5"),
    (TYPE, [(3, 4), (4, 3)], "needs bottoms of the same batch size, found 3x4 and 4x3"),
    (TYPE, [(3, 4), (3, 5)], "needs bottoms of one size, found 3x4 and 3x5"),
    (f"{TYPE} top: 'a' top: 'b'", [(3, 4), (3, 4)], "takes 1 top blob, the prototxt gives 2"),
]


def test_targets_are_ignored_by_their_integer_part() -> None:
    layer = build_layer(f"{TYPE} loss_param {{ ignore_label: 0 normalization: VALID }}", [(1, 3), (1, 3)])
    tops, (dx, _) = run(layer, [torch.zeros(1, 3), torch.tensor([[0.0, 0.9, 1.0]])], [torch.tensor(1.0)])
    assert float(tops[0]) == pytest.approx(0.693147)
    assert dx is not None and torch.equal(dx, torch.tensor([[0.0, 0.0, -0.5]]))


def test_large_logits_cost_what_they_are_wrong_by() -> None:
    layer = build_layer(TYPE, [(1, 2), (1, 2)], dtype=torch.float32)
    tops, (dx, _) = run(layer, [torch.tensor([[500.0, -500.0]]), torch.tensor([[0.0, 1.0]])], [torch.tensor(1.0)])
    assert float(tops[0]) == 1000
    assert dx is not None and torch.equal(dx, torch.tensor([[1.0, -1.0]]))


def test_all_ignored_costs_nothing() -> None:
    draw = Draw(0)
    layer = build_layer(f"{TYPE} loss_param {{ ignore_label: 7 normalization: VALID }}", [(2, 2), (2, 2)])
    tops, (dx, _) = run(layer, [draw.normal(2, 2), torch.full((2, 2), 7.0)])
    assert float(tops[0]) == 0
    assert dx is not None and not dx.any()
