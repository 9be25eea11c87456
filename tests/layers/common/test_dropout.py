"""Dropout."""

import pytest
import torch
from layer_cases import TEST, TRAIN, Case, first_top, normal
from torch import Tensor

from imae.layers.gradient_check import backward, build_layer
from imae.layers.random_streams import random_uniform


def dropped(x: Tensor, ratio: float, forwards: int = 0) -> Tensor:
    number = torch.arange(x.numel()).view(x.shape) + forwards * x.numel()
    return x * (random_uniform(0, "Dropout", number) >= ratio) / (1 - ratio)


CASES = [
    Case('type: "Dropout"', [normal(4, 5)], lambda xs, blobs: [dropped(xs[0], 0.5)]),
    Case(
        'type: "Dropout" dropout_param { dropout_ratio: 0.25 }',
        [normal(4, 5)],
        lambda xs, blobs: [dropped(xs[0], 0.25, 3)],
        forwards=3,
    ),
    Case('type: "Dropout"', [normal(4, 5)], lambda xs, blobs: [xs[0] * 1], TEST),
    Case(
        'type: "Dropout" dropout_param { scale_train: false dropout_ratio: 0.2 }',
        [normal(4, 5)],
        lambda xs, blobs: [dropped(xs[0], 0.2) * 0.8],
    ),
    Case(
        'type: "Dropout" dropout_param { scale_train: false dropout_ratio: 0.2 }',
        [normal(4, 5)],
        lambda xs, blobs: [xs[0] * 0.8],
        TEST,
    ),
    Case(
        'type: "Dropout" dropout_param { sample_weights_test: true }',
        [normal(4, 5)],
        lambda xs, blobs: [dropped(xs[0], 0.5)],
        TEST,
    ),
]

MISTAKES = [
    (
        'type: "Dropout" dropout_param { dropout_ratio: 1 }',
        [(2, 3)],
        "dropout_ratio must lie between 0 and 1, not 1",
    ),
]


def test_dropout_keeps_the_expectation_and_is_off_in_the_test_phase() -> None:
    text = 'type: "Dropout" dropout_param { dropout_ratio: 0.3 }'
    x = torch.ones(200, 100)
    y = first_top(text, x)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.017)  # 5 standard errors
    assert torch.equal(first_top(text, x, phase=TEST), x)


def test_a_dropout_mask_is_a_function_of_seed_layer_and_pass() -> None:
    x = torch.ones(20, 20)
    first = first_top('name: "a" type: "Dropout"', x)
    assert torch.equal(first, first_top('name: "a" type: "Dropout"', x))
    assert not torch.equal(first, first_top('name: "b" type: "Dropout"', x))
    assert not torch.equal(first, first_top('name: "a" type: "Dropout"', x, forwards=1))
    assert not torch.equal(first, first_top('name: "a" type: "Dropout"', x, seed=1))
    layer = build_layer('type: "Dropout"', [(20, 20)])
    assert torch.equal(layer.forward([x], {})[0], layer.forward([x], {})[0])  # the net counts passes, not the layer


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_dropout_of_nothing_is_the_identity(phase: int) -> None:
    x = torch.randn(4, 3)
    layer, saved = build_layer('type: "Dropout" dropout_param { dropout_ratio: 0 }', [(4, 3)], phase=phase), {}
    assert torch.equal(layer.forward([x], saved)[0], x)
    assert torch.equal(backward(layer, [x], [x], [x], saved, [True])[0], x)
