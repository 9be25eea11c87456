"""The losses give the paper's gradients and weights (equations 15 to 22), to the very ends of p_y."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from layer_cases import Draw
from loss_cases import SUM, Gradient, few, run, samples, softmax

from imae.layers.gradient_check import backward, build_layer, check_layer
from imae.layers.layer import Saved
from imae.prototxt_like.errors import InputError

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SoftmaxWithMAELoss", "SoftmaxWithIMAELoss", "SoftmaxWithGCELoss"])
def test_extreme_logits_give_finite_values_and_gradients(kind: str, dtype: torch.dtype) -> None:
    z = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4], [-1e30, 1e30, 0]], dtype=dtype)
    for y in range(3):
        value, dz = run(f'type: "{kind}"', z, torch.full((4,), y))
        assert value.isfinite() and dz.isfinite().all()


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


@pytest.mark.parametrize("gap", [10, 95, 105, 720, 1000, 1e4])
@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SoftmaxWithMAELoss", "SoftmaxWithIMAELoss", "SoftmaxWithGCELoss"])
def test_losses_of_logits_are_right_where_p_y_is_below_the_smallest_float(kind: str, gap: float) -> None:
    z = gap * torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 0]]).double() + Draw(7).normal(3, 3)
    report = check_layer(f'type: "{kind}" gce_param {{ q: 0.01 }}', [z, torch.tensor([1, 1, 2])])
    assert report.passed and report.compared == 9, report


@pytest.mark.parametrize("p_y", [0.3, 1e-12, 1e-25, 1e-37, 1e-100])
@pytest.mark.parametrize("kind", ["MultinomialLogisticLoss", "MAELoss", "IMAELoss", "GCELoss"])
def test_losses_of_probabilities_are_right_where_p_y_is_small(kind: str, p_y: float) -> None:
    p = torch.tensor([[p_y, 1 - p_y - 0.1, 0.1], [0.2, 0.5, 0.3]]).double()
    report = check_layer(f'type: "{kind}"', [p, torch.tensor([0, 1])])
    assert report.passed and report.compared == 6, report
