"""The losses give the paper's gradients and weights (equations 15 to 22), to the very ends of p_y."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imae.layers.data.digits_data import load_digits
from imae.layers.gradient_check import backward, build_layer
from imae.layers.layer import Saved
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net

Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
few = settings(max_examples=30, deadline=None)
SUM = "loss_param { normalization: NONE }"
"""So that the gradient is that of each sample, not of the mean over the batch."""


def run(text: str, x: Tensor, y: Tensor, top_diff: float = 1.0, forwards: int = 0) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient by x, times `top_diff`."""
    layer = build_layer(text, [tuple(x.shape), tuple(y.shape)], forwards=forwards)
    saved: Saved = {}
    tops = layer.forward([x, y], saved)
    value = tops[0]
    dx, dy = backward(layer, [x, y], tops, [torch.tensor(top_diff, dtype=value.dtype)], saved, [True, False])
    assert dx is not None and dy is None
    return value, dx


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# The paper's equations, in numpy and float64


def probabilities(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p, onehot(y), and p_y as a column."""
    p, onehot = softmax(z), np.eye(z.shape[1])[y]
    return p, onehot, (p * onehot).sum(1, keepdims=True)


def cce(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Equation 15: p_y - 1 at y, p_j elsewhere."""
    p, onehot, p_y = probabilities(z, y)
    return np.where(onehot == 1, p_y - 1, p)


def mae(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Equation 18: 2 p_y (p_y - 1) at y, 2 p_y p_j elsewhere."""
    p, onehot, p_y = probabilities(z, y)
    return np.where(onehot == 1, 2 * p_y * (p_y - 1), 2 * p_y * p)


def imae(T: float) -> Gradient:
    """Equation 22: that of MAE times w_IMAE (21) over w_MAE (20), whose 1 - p_y is 5e-7 more in the authors' code."""

    def gradient(z: np.ndarray, y: np.ndarray) -> np.ndarray:
        p_y = probabilities(z, y)[2]
        return mae(z, y) * np.exp(T * p_y * (1 - p_y)) / (4 * p_y * (1 - p_y + 5e-7))

    return gradient


def gce(q: float) -> Gradient:
    """Zhang and Sabuncu 2018: that of CCE times p_y^q."""

    def gradient(z: np.ndarray, y: np.ndarray) -> np.ndarray:
        return cce(z, y) * probabilities(z, y)[2] ** q

    return gradient


GAPS = np.concatenate([np.linspace(0, 120, 49), [150, 500, 1000]])
"""Between two logits: p_y underflows from 88 to 104 in float32, from 708 to 745 in float64."""

PAPER = [
    ('type: "SoftmaxWithLoss"', cce, lambda p: 2 * (1 - p)),  # weight: equation 19
    ('type: "SoftmaxWithMAELoss"', mae, lambda p: 4 * p * (1 - p)),  # 20
    # 21, T = 8 unless given
    ('type: "SoftmaxWithIMAELoss"', imae(8), lambda p: np.exp(8 * p * (1 - p)) * (1 - p) / (1 - p + 5e-7)),
    (
        'type: "SoftmaxWithIMAELoss" imae_param { T: 0.5 }',
        imae(0.5),
        lambda p: np.exp(0.5 * p * (1 - p)) * (1 - p) / (1 - p + 5e-7),
    ),
    ('type: "SoftmaxWithIMAELoss" imae_param { T: 0 }', imae(0), lambda p: (1 - p) / (1 - p + 5e-7)),
    ('type: "SoftmaxWithGCELoss" gce_param { q: 0.5 }', gce(0.5), lambda p: 2 * np.sqrt(p) * (1 - p)),
]
paper = pytest.mark.parametrize(("text", "gradient", "weight"), PAPER, ids=[text for text, _, _ in PAPER])


@st.composite
def samples(draw: st.DrawFn, scale: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N x C, float64, exact in float32) of magnitude up to `scale`, and labels (N)."""
    n, c = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    numbers = st.floats(-scale, scale, width=32)
    z = draw(st.lists(st.lists(numbers, min_size=c, max_size=c), min_size=n, max_size=n))
    y = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    return np.array(z), np.array(y)


@paper
@few
@given(sample=samples())
def test_gradient_by_the_logits_is_the_papers(
    text: str, gradient: Gradient, weight: object, sample: tuple[np.ndarray, np.ndarray]
) -> None:
    z, y = sample
    expected = gradient(z, y) / len(z)
    for dtype, rtol in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
        _, dz = run(text, torch.tensor(z, dtype=dtype), torch.tensor(y))
        np.testing.assert_allclose(dz, expected, rtol, 1e-6 if dtype == torch.float32 else 1e-14)


@paper
@few
@given(sample=samples())
def test_weight_of_a_sample_is_the_l1_norm_of_its_gradient(
    text: str, gradient: object, weight: Callable[[np.ndarray], np.ndarray], sample: tuple[np.ndarray, np.ndarray]
) -> None:
    z, y = sample
    _, dz = run(f"{text} {SUM}", torch.tensor(z), torch.tensor(y))
    np.testing.assert_allclose(dz.abs().sum(1), weight(probabilities(z, y)[2][:, 0]), 1e-8)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('type: "SoftmaxWithLoss"', lambda p: -np.log(p)),  # equation 2
        ('type: "SoftmaxWithMAELoss"', lambda p: 2 * (1 - p)),  # 3 and 11
        ('type: "SoftmaxWithIMAELoss"', lambda p: 2 * (1 - p)),  # "the forward propagation is unchanged"
        ('type: "SoftmaxWithGCELoss" gce_param { q: 0.5 }', lambda p: (1 - np.sqrt(p)) / 0.5),
    ],
)
@few
@given(sample=samples())
def test_value_is_the_papers(text: str, value: Callable[[np.ndarray], np.ndarray], sample: tuple) -> None:
    z, y = sample
    loss, _ = run(text, torch.tensor(z), torch.tensor(y))
    np.testing.assert_allclose(loss, value(probabilities(z, y)[2]).mean(), 1e-9, 1e-12)


def test_gce_is_half_of_mae_at_q_1_and_tends_to_cce_at_q_0() -> None:
    z, y = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(1)).double(), torch.arange(20) % 5
    for q, other, factor, rtol in ((1, "SoftmaxWithMAELoss", 0.5, 1e-12), (1e-5, "SoftmaxWithLoss", 1, 1e-3)):
        value, dz = run(f'type: "SoftmaxWithGCELoss" gce_param {{ q: {q} }}', z, y)
        expected, expected_dz = run(f'type: "{other}"', z, y)
        torch.testing.assert_close(value, factor * expected, rtol=rtol, atol=0)
        torch.testing.assert_close(dz, factor * expected_dz, rtol=rtol, atol=1e-15)


def log_space_gce(z: np.ndarray, q: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and L1 norm of the gradient of each sample of label 0, in float64."""
    log_p = z[:, 0] - np.logaddexp.reduce(z, 1)
    log_rest = np.logaddexp.reduce(z[:, 1:], 1) - np.logaddexp.reduce(z, 1)
    return -np.expm1(q * log_p) / q, 2 * np.exp(q * log_p + log_rest)


@pytest.mark.parametrize("q", [1e-6, 0.01, 0.05, 0.3, 0.7, 1])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
def test_gce_is_exact_from_log_p_y_at_every_gap_of_the_logits(q: float, dtype: torch.dtype, rtol: float) -> None:
    y = torch.zeros(len(GAPS)).long()
    for sign in (1, -1):
        z = np.stack([0 * GAPS, sign * GAPS, 0 * GAPS - 2000], 1)
        value, dz = run(f'type: "SoftmaxWithGCELoss" gce_param {{ q: {q} }} {SUM}', torch.tensor(z, dtype=dtype), y)
        values, norms = log_space_gce(z, float(np.float32(q)))
        np.testing.assert_allclose(value, values.sum(), rtol)
        np.testing.assert_allclose(dz.abs().sum(1), norms, rtol, 4 * torch.finfo(dtype).eps)  # of p_y - 1


def test_gce_with_a_small_q_where_p_y_underflows() -> None:
    value, dz = run('type: "SoftmaxWithGCELoss" gce_param { q: 0.01 }', torch.tensor([[0.0, 105.0]]), torch.tensor([0]))
    assert float(value) == pytest.approx(65.0, abs=0.01)
    assert dz[0].tolist() == pytest.approx([-0.350, 0.350], abs=1e-3)


@pytest.mark.parametrize("kind", ["GCELoss", "IMAELoss"])
@pytest.mark.parametrize("gap", [0.0, 30.0, 50.0, 80.0, 87.0])
def test_a_loss_on_probabilities_is_right_as_far_as_p_y_is_a_float(kind: str, gap: float) -> None:
    z, settings_text = torch.tensor([[0.0, gap]]), "gce_param { q: 0.01 }" if kind == "GCELoss" else ""
    softmax_layer, saved = build_layer('type: "Softmax"', [(1, 2)]), {}
    (p,) = softmax_layer.forward([z], saved)
    value, dp = run(f'type: "{kind}" {settings_text}', p, torch.tensor([0]))
    (dz,) = backward(softmax_layer, [z], [p], [dp], saved, [True])
    expected, expected_dz = run(f'type: "SoftmaxWith{kind}" {settings_text}', z.double(), torch.tensor([0]))
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(dz.double(), expected_dz, rtol=1e-4, atol=0)


@pytest.mark.parametrize("gap", [-1000.0, -105.0, 105.0, 1000.0])
@pytest.mark.parametrize("kind", ["MAELoss", "GCELoss", "IMAELoss", "MultinomialLogisticLoss"])
def test_a_loss_on_probabilities_is_finite_where_p_y_is_0_or_1(kind: str, gap: float) -> None:
    softmax_layer, saved = build_layer('type: "Softmax"', [(1, 2)]), {}
    z = torch.tensor([[0.0, gap]])
    (p,) = softmax_layer.forward([z], saved)
    value, dp = run(f'type: "{kind}" gce_param {{ q: 0.01 }}', p, torch.tensor([0]))
    assert value.isfinite() and dp.isfinite().all()
    assert backward(softmax_layer, [z], [p], [dp], saved, [True])[0].isfinite().all()


def test_truncated_gce_prunes_from_its_iteration_on() -> None:
    """A sample with p_y <= k then has the value (1 - k^q) / q and gives no gradient."""
    z, y = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([0, 0])
    text = f'type: "SoftmaxWithGCELoss" gce_param {{ q: 0.5 k: 0.5 start_iter: 3 }} {SUM}'
    plain = run(f'type: "SoftmaxWithGCELoss" gce_param {{ q: 0.5 }} {SUM}', z, y)
    p_y = torch.softmax(z, 1)[0, 0]
    for forwards in (0, 2):
        torch.testing.assert_close(run(text, z, y, forwards=forwards), plain)
    value, dz = run(text, z, y, forwards=3)
    torch.testing.assert_close(value, (1 - p_y.sqrt()) / 0.5 + (1 - math.sqrt(0.5)) / 0.5)
    torch.testing.assert_close(dz[0], plain[1][0])
    assert not dz[1].any()


# IMAE at the ends (DESIGN.md)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SoftmaxWithMAELoss", "SoftmaxWithIMAELoss", "SoftmaxWithGCELoss"])
def test_extreme_logits_give_finite_values_and_gradients(kind: str, dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4], [-1e30, 1e30, 0]], dtype=dtype)
    for y in range(3):
        value, dz = run(f'type: "{kind}"', z, torch.full((4,), y))
        assert value.isfinite() and dz.isfinite().all()


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


# Fused and unfused, labels, precision, normalisation

PAIRS = {
    "MultinomialLogisticLoss": "SoftmaxWithLoss",
    "MAELoss": "SoftmaxWithMAELoss",
    "IMAELoss": "SoftmaxWithIMAELoss",
    "GCELoss": "SoftmaxWithGCELoss",
}
fused = pytest.mark.parametrize("fused", PAIRS.values())


@pytest.mark.parametrize(("unfused", "fused"), PAIRS.items())
@pytest.mark.parametrize(
    ("shape", "label_shape", "settings_text"),
    [
        ((6, 4), (6,), ""),
        ((2, 3, 4), (2, 4), "loss_param { ignore_label: 1 normalization: BATCH_SIZE }"),
        ((2, 3, 4), (2, 3), "softmax_param { axis: 2 } loss_param { normalization: NONE }"),
    ],
)
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 1e-9, 1e-15), (torch.float32, 1e-4, 1e-7)])
def test_softmax_and_loss_one_after_the_other_equal_the_fused_layer(
    unfused: str,
    fused: str,
    shape: tuple[int, ...],
    label_shape: tuple[int, ...],
    settings_text: str,
    dtype: torch.dtype,
    rtol: float,
    atol: float,
) -> None:
    """The pipeline of Figure 2: FC, Softmax, loss."""
    generator = torch.Generator().manual_seed(2)
    z = (4 * torch.randn(shape, generator=generator)).to(dtype)
    y = torch.randint(3, label_shape, generator=generator)
    axis = "softmax_param { axis: 2 }" if "axis" in settings_text else ""
    softmax_layer = build_layer(f'type: "Softmax" {axis}', [shape])
    saved: Saved = {}
    (p,) = softmax_layer.forward([z], saved)
    value, dp = run(f'type: "{unfused}" {settings_text}', p, y, 0.5)
    (dz,) = backward(softmax_layer, [z], [p], [dp], saved, [True])
    expected_value, expected_dz = run(f'type: "{fused}" {settings_text}', z, y, 0.5)
    torch.testing.assert_close(value, expected_value, rtol=rtol, atol=atol)
    torch.testing.assert_close(dz, expected_dz, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", [*PAIRS, *PAIRS.values()])
@pytest.mark.parametrize("wrong", [4, -1, 255])
def test_a_label_that_is_no_class_is_an_error(kind: str, wrong: int) -> None:
    x = torch.full((3, 4), 0.25)
    message = rf'^layer "ip_loss" \({kind}\): label {wrong} is out of range: there are 4 classes, 0 to 3$'
    with pytest.raises(InputError, match=message):
        run(f'name: "ip_loss" type: "{kind}"', x, torch.tensor([0, wrong, 1]))
    run(f'type: "{kind}" loss_param {{ ignore_label: {wrong} }}', x, torch.tensor([0, wrong, 1]))


@pytest.mark.parametrize("kind", [*PAIRS, *PAIRS.values()])
def test_labels_may_be_floats_of_any_width_or_integers(kind: str) -> None:
    x, y = torch.softmax(torch.randn(5, 4), 1), torch.tensor([0, 3, 1, 2, 2])
    expected = run(f'type: "{kind}"', x, y)
    for dtype in (torch.float32, torch.float64, torch.uint8, torch.int32):
        for given_y in (y.to(dtype), y.to(dtype).view(5, 1, 1, 1)):
            torch.testing.assert_close(run(f'type: "{kind}"', x, given_y), expected, rtol=0, atol=0)


def test_spatial_labels_may_lie_in_memory_in_any_order() -> None:
    z = torch.randn(2, 3, 4, 5)
    y = torch.randint(3, (2, 1, 4, 5))
    expected = run('type: "SoftmaxWithLoss"', z, y)
    for memory in (y.contiguous(memory_format=torch.channels_last), y.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(run('type: "SoftmaxWithLoss"', z, memory), expected, rtol=0, atol=0)
    z, y = z.view(2, 3, 20), y.view(2, 2, 2, 5)
    expected = run('type: "SoftmaxWithLoss"', z, y)
    memory = y.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(run('type: "SoftmaxWithLoss"', z, memory), expected, rtol=0, atol=0)


@fused
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(fused: str, dtype: torch.dtype) -> None:
    z, y = (5 * torch.randn(6, 10, generator=torch.Generator().manual_seed(3))).to(dtype), torch.arange(6)
    value, dz = run(f'type: "{fused}"', z, y)
    expected, expected_dz = run(f'type: "{fused}"', z.float(), y)
    assert value.dtype == torch.float32 and torch.equal(value, expected)
    assert dz.dtype == dtype and torch.equal(dz, expected_dz.to(dtype))


@fused
@pytest.mark.parametrize(
    ("loss_param", "divisor"),
    [
        ("", 6),  # VALID without a label to ignore counts all
        ("ignore_label: 1", 4),
        ("ignore_label: 1 normalization: VALID", 4),
        ("ignore_label: 1 normalization: FULL", 6),
        ("ignore_label: 1 normalization: BATCH_SIZE", 2),
        ("ignore_label: 1 normalization: NONE", 1),
        ("ignore_label: 1 normalize: true", 4),  # Caffe's old switch
        ("ignore_label: 1 normalize: false", 2),
        ("ignore_label: 1 normalize: false normalization: FULL", 6),
    ],
)
def test_normalisation_as_in_caffe(fused: str, loss_param: str, divisor: int) -> None:
    z, y = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(4)), torch.tensor([[0, 1, 2], [2, 0, 1]])
    ignored = "ignore_label: 1" if "ignore" in loss_param else ""
    total, total_dz = run(f'type: "{fused}" loss_param {{ normalization: NONE {ignored} }}', z, y)
    value, dz = run(f'type: "{fused}" loss_param {{ {loss_param} }}', z, y, top_diff=2.5)
    torch.testing.assert_close(value, total / divisor)
    torch.testing.assert_close(dz, 2.5 * total_dz / divisor)
    if ignored:
        assert not dz.movedim(1, -1)[y == 1].any()


@fused
def test_a_batch_of_ignored_labels_costs_nothing(fused: str) -> None:
    value, dz = run(f'type: "{fused}" loss_param {{ ignore_label: 2 }}', torch.randn(3, 4), torch.full((3,), 2))
    assert value == 0 and not dz.any()


@fused
def test_the_second_top_is_the_probabilities(fused: str) -> None:
    z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    layer = build_layer(f'type: "{fused}" top: "loss" top: "p"', [(3, 4), (3,)])
    _, p = layer.forward([z, y], {})
    torch.testing.assert_close(p, torch.softmax(z, 1))
    assert layer.loss_weights() == [1.0, 0.0]


def test_a_vanishing_probability_costs_as_much_as_caffe_says() -> None:
    """SoftmaxWithLoss bounds p_y by FLT_MIN, MultinomialLogisticLoss by 1e-20."""
    value, _ = run('type: "SoftmaxWithLoss"', torch.tensor([[-1e4, 0.0]]), torch.tensor([0]))
    assert float(value) == pytest.approx(-math.log(np.finfo(np.float32).tiny), rel=1e-6)
    value, dp = run('type: "MultinomialLogisticLoss"', torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert float(value) == pytest.approx(-math.log(1e-20), rel=1e-6)
    assert float(dp[0, 0]) == pytest.approx(-1e20, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "SoftmaxWithIMAELoss" imae_param { T: -1 }', "T must not be negative, not -1"),
        ('type: "IMAELoss" imae_param { epsilon: -1 }', "epsilon must not be negative, not -1"),
        ('type: "SoftmaxWithGCELoss" gce_param { q: 0 }', r"q must lie in \(0, 1\], not 0"),
        ('type: "GCELoss" gce_param { q: 1.5 }', r"q must lie in \(0, 1\], not 1.5"),
        ('type: "SoftmaxWithGCELoss" gce_param { k: 1 }', r"k must lie in \[0, 1\), not 1"),
        ('type: "SoftmaxWithLoss" softmax_param { axis: 2 }', "axis 2 is out of range for a bottom of shape 3x4"),
        ('type: "SoftmaxWithLoss" loss_weight: 1 loss_weight: 2', "loss_weight must be given for each of its 1 tops"),
    ],
)
def test_what_a_loss_cannot_take_is_an_error(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f'^layer "mine" .*{message}'):
        build_layer(f'name: "mine" {text}', [(3, 4), (3,)]).loss_weights()


def test_labels_that_do_not_match_the_predictions_are_an_error() -> None:
    with pytest.raises(InputError, match="3x4x2 with classes along axis 1 need labels of 3x2, found 3"):
        build_layer('type: "SoftmaxWithLoss"', [(3, 4, 2), (3,)])


def test_truncated_gce_begins_with_value_and_gradient_in_the_same_pass() -> None:
    """A net has counted the pass by the time it runs backward."""
    text = """
    layer { name: "z" type: "Input" top: "z" top: "label" input_param { shape { dim: 4 dim: 10 } shape { dim: 4 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "z" top: "ip"
      inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithGCELoss" bottom: "ip" bottom: "label" top: "loss"
      gce_param { k: 0.99 start_iter: 1 } }
    """
    net = Net(parse_net(text), TRAIN)
    changes = []
    for _ in range(2):
        net.clear_diffs()
        net.forward(z=torch.ones(4, 10), label=torch.arange(4))
        net.backward()
        changes.append(bool(net.storage.diff.any()))
    assert changes == [True, False]
