"""IMAELoss and SoftmaxWithIMAELoss."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from layer_cases import Case, labels, normal
from loss_cases import GAPS, SUM, Term, loss, run, samples, scores, softmax, usual_losses
from torch import Tensor

from imae.layers.data.digits_data import load_digits
from imae.layers.gradient_check import backward, build_layer
from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net


def same_value(gradient_of: Tensor, value: Tensor) -> Tensor:
    """A number with this value, and the gradient of the other."""
    return value.detach() + gradient_of - gradient_of.detach()


def imae_term(T: float) -> Term:
    """Equation 22: MAE, its gradient times the quotient of the weights (21) and (20), where 1 - p is 5e-7 more."""

    def term(log_p: Tensor) -> Tensor:
        p = log_p.exp()
        quotient = torch.exp(T * p * (1 - p)) / (4 * p * (1 - p + 5e-7))
        return same_value(2 * (1 - p) * quotient.detach(), 2 * (1 - p))

    return term


def of_probabilities(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    """The gradient that Softmax's backward turns into equation 22: w/2 log((1 - p_y) / p_y)'s, all else held fixed."""
    p, y = xs[0], xs[1][:, None]
    p_y, others = p.gather(1, y), p.scatter(1, y, 0.0).sum(1, keepdim=True)
    weight = (torch.exp(8 * p_y * (1 - p_y)) * others / (others + 5e-7)).detach()
    return [same_value((weight / 2 * (others / p_y).log()).mean(), (2 * (1 - p_y)).mean())]


def by_weights(kind: str) -> Case:
    """IMAE with its gradient over the sum of the weights, its value the mean as ever."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        p = xs[0].softmax(1) if kind.startswith("Softmax") else xs[0]
        (mean,) = of_probabilities([p, xs[1]], blobs)
        p_y = p.gather(1, xs[1][:, None])
        quotient = len(p) / torch.exp(8 * p_y * (1 - p_y)).sum()
        return [same_value(mean * quotient.detach(), mean)]

    text = f'type: "{kind}" imae_param {{ normalize_by: WEIGHTS }}'
    return Case(text, [scores(kind, 6, 4), labels(4, 6)], reference)


CASES = [
    *usual_losses("SoftmaxWithIMAELoss", imae_term(8)),
    loss("SoftmaxWithIMAELoss", imae_term(8), normal(2, 3, 4), labels(4, 2, 3), axis=2, top='top: "loss" top: "p"'),
    loss("SoftmaxWithIMAELoss", imae_term(0.5), normal(4, 3), labels(3, 4), settings="imae_param { T: 0.5 }"),
    loss("SoftmaxWithIMAELoss", imae_term(0), normal(4, 3), labels(3, 4), settings="imae_param { T: 0 }"),
    by_weights("SoftmaxWithIMAELoss"),
    by_weights("IMAELoss"),
    Case('type: "IMAELoss"', [scores("IMAELoss", 6, 4), labels(4, 6)], of_probabilities),
]

MISTAKES = [
    ('type: "SoftmaxWithIMAELoss" imae_param { T: -1 }', [(3, 4), (3,)], "T must not be negative, not -1"),
    ('type: "IMAELoss" imae_param { epsilon: -1 }', [(3, 4), (3,)], "epsilon must not be negative, not -1"),
]


def log_space_imae(z: np.ndarray, y: np.ndarray, T: float = 8) -> np.ndarray:
    """w/2 (r - onehot(y)) d / (d + 5e-7), in float64 and free of quotients of what may be 0."""
    onehot = np.eye(z.shape[1])[y]
    others = np.where(onehot == 1, -np.inf, z)
    log_odds = (z * onehot).sum(1) - np.logaddexp.reduce(others, 1)
    p_y = 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
    rest = 1 / (1 + np.exp(np.clip(log_odds, -700, 700)))
    half = np.exp(T * p_y * rest) / 2 * rest / (rest + 5e-7)
    return half[:, None] * (softmax(others) - onehot)


@settings(max_examples=100, deadline=None)
@given(sample=samples(scale=1e4))
def test_imae_is_exact_for_any_logits(sample: tuple[np.ndarray, np.ndarray]) -> None:
    z, y = sample
    _, dz = run(f'type: "SoftmaxWithIMAELoss" {SUM}', torch.tensor(z, dtype=torch.float32), torch.tensor(y))
    np.testing.assert_allclose(dz, log_space_imae(z, y), 1e-4, 1e-6)


@pytest.mark.parametrize("T", [0, 0.5, 8, 16])
def test_imae_in_float32_is_right_at_every_gap_of_the_logits(T: float) -> None:
    """On both sides: within 2e-5 of float64, and within 1e-31 where float32 ends, at d = 1e-38 (over 5e-7)."""
    for sign in (1, -1):
        z, y = np.stack([sign * GAPS, 0 * GAPS, 0 * GAPS - 1], 1).astype(np.float32), np.zeros(len(GAPS), int)
        _, dz = run(f'type: "SoftmaxWithIMAELoss" imae_param {{ T: {T} }} {SUM}', torch.from_numpy(z), torch.tensor(y))
        assert dz.isfinite().all()
        np.testing.assert_allclose(dz, log_space_imae(z.astype(float), y, T), 2e-5, 1e-31)


@pytest.mark.parametrize("kind", ["SoftmaxWithIMAELoss", "IMAELoss"])
@pytest.mark.parametrize(("settings_text", "half"), [("", 5e-7), ("epsilon: 0.02", 0.01), ("epsilon: 1e-3", 5e-4)])
def test_imae_lets_go_softly_of_a_fitted_sample(kind: str, settings_text: str, half: float) -> None:
    """By d / (d + epsilon/2): by a half where d = 1 - p_y is epsilon/2."""
    d = half * torch.tensor([10, 1, 0.01], dtype=torch.float64)
    z = torch.stack([-(d / (1 - d)).log(), torch.zeros(3).double()], 1)
    softmax_layer, saved = build_layer('type: "Softmax"', [(3, 2)]), {}
    p = softmax_layer.forward([z], saved)[0]
    text = f'type: "{kind}" imae_param {{ {settings_text} }} {SUM}'
    _, dz = run(text, p if kind == "IMAELoss" else z, torch.zeros(3).long())
    if kind == "IMAELoss":
        (dz,) = backward(softmax_layer, [z], [p], [dz], saved, [True])
    expected = torch.exp(8 * d * (1 - d)) * torch.tensor([10 / 11, 1 / 2, 1 / 101], dtype=torch.float64)
    torch.testing.assert_close(dz.abs().sum(1), expected, rtol=1e-6, atol=0)


def test_imae_with_epsilon_0_is_the_equation_as_it_stands() -> None:
    z = torch.tensor([[0.0, 0.0], [20.0, 0.0], [1000.0, 0.0]])
    _, dz = run(f'type: "SoftmaxWithIMAELoss" imae_param {{ epsilon: 0 }} {SUM}', z, torch.zeros(3))
    torch.testing.assert_close(dz.abs().sum(1), torch.tensor([math.exp(2), 1, 1]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["SoftmaxWithIMAELoss", "IMAELoss"])
@pytest.mark.parametrize("normalization", ["VALID", "FULL", "BATCH_SIZE", "NONE"])
def test_normalize_by_weights_divides_the_gradient_by_the_weights_of_the_samples_that_count(
    kind: str, normalization: str
) -> None:
    """As the authors' code; the value stays the mean, and the loss weight multiplies both."""
    z = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    x, y = (torch.softmax(z, 1) if kind == "IMAELoss" else z), torch.tensor([0, 1, 2, 3, 1, 0])
    loss_param = f"loss_param {{ ignore_label: 1 normalization: {normalization} }}"
    value, dx = run(f'type: "{kind}" imae_param {{ normalize_by: WEIGHTS }} {loss_param}', x, y, top_diff=2.5)
    expected, _ = run(f'type: "{kind}" {loss_param}', x, y)
    _, total = run(f'type: "{kind}" loss_param {{ ignore_label: 1 normalization: NONE }}', x, y)
    p_y = torch.softmax(z, 1)[range(6), y][y != 1]
    assert torch.equal(value, expected)
    torch.testing.assert_close(dx, 2.5 * total / torch.exp(8 * p_y * (1 - p_y)).sum())
    _, dx = run(f'type: "{kind}" imae_param {{ normalize_by: WEIGHTS }} {loss_param}', x, torch.ones(6))
    assert not dx.any()


def trained_on_noisy_digits(epsilon: float, iterations: int = 1000, rate: float = 0.15) -> tuple[float, float]:
    """Train a small net with 50 % label noise; return its accuracy on the intact test labels, and its largest logit."""
    generator = torch.Generator().manual_seed(0)
    images, labels = load_digits(True)
    replaced = torch.rand(len(labels), generator=generator) < 0.5
    labels = torch.where(replaced, torch.randint(10, labels.shape, generator=generator), labels)
    net = Net(
        parse_net(f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 64 dim: 64 }} }} }}
        layer {{ name: "y" type: "Input" top: "y" input_param {{ shape {{ dim: 64 }} }} }}
        layer {{ name: "hidden" type: "InnerProduct" bottom: "x" top: "h"
          inner_product_param {{ num_output: 64 weight_filler {{ type: "msra" }} }} }}
        layer {{ name: "relu" type: "ReLU" bottom: "h" top: "h" }}
        layer {{ name: "scores" type: "InnerProduct" bottom: "h" top: "z"
          inner_product_param {{ num_output: 10 weight_filler {{ type: "msra" }} }} }}
        layer {{ name: "loss" type: "SoftmaxWithIMAELoss" bottom: "z" bottom: "y" top: "loss"
          imae_param {{ epsilon: {epsilon} }} }}
        """),
        TRAIN,
    )
    momentum = torch.zeros_like(net.storage.data)
    for _ in range(iterations):
        rows = torch.randint(len(images), (64,), generator=generator)
        net.clear_diffs()
        net.forward(x=images[rows].flatten(1) / 16, y=labels[rows])
        net.backward()
        momentum.mul_(0.9).add_(net.storage.diff)
        net.storage.data.sub_(momentum, alpha=rate)
    images, labels = load_digits(False)
    net.forward(x=images.flatten(1) / 16, y=labels)
    z = net.blobs["z"]
    return float((z.argmax(1) == labels).float().mean()), float(z.abs().max())


def test_training_with_noisy_labels_does_not_collapse_as_the_literal_form_does() -> None:
    """With 10 other seeds: accuracy 80 to 91 %, logits up to 61; literally 26 to 68 %, logits from 140,000 on."""
    accuracy, largest = trained_on_noisy_digits(1e-6)
    literal_accuracy, literal_largest = trained_on_noisy_digits(0)
    assert accuracy > 0.75 and largest < 200
    assert literal_accuracy < accuracy - 0.1 and literal_largest > 10_000
