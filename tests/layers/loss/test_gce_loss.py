"""GCELoss and SoftmaxWithGCELoss."""

import math

import numpy as np
import pytest
import torch
from layer_cases import Draw, labels
from loss_cases import GAPS, SUM, loss, run, usual_losses
from torch import Tensor

from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net

Q = float(np.float32(0.7))


def value(log_p: Tensor) -> Tensor:
    return (1 - (Q * log_p).exp()) / Q


def truncated(log_p: Tensor) -> Tensor:
    return (1 - torch.where(log_p.exp() > 0.5, (Q * log_p).exp(), 0.5**Q)) / Q


def wide(draw: Draw) -> Tensor:
    return 2 * draw.normal(9, 3)


CASES = [
    *usual_losses("SoftmaxWithGCELoss", value),
    *usual_losses("GCELoss", value),
    loss("SoftmaxWithGCELoss", truncated, wide, labels(3, 9), settings="gce_param { k: 0.5 }"),
    loss("SoftmaxWithGCELoss", value, wide, labels(3, 9), settings="gce_param { k: 0.5 start_iter: 2 }", forwards=1),
    loss(
        "GCELoss",
        truncated,
        lambda draw: wide(draw).softmax(1),
        labels(3, 9),
        settings="gce_param { k: 0.5 start_iter: 2 }",
        forwards=2,
    ),
]

MISTAKES = [
    ('type: "SoftmaxWithGCELoss" gce_param { q: 0 }', [(3, 4), (3,)], "q must lie in (0, 1], not 0"),
    ('type: "GCELoss" gce_param { q: 1.5 }', [(3, 4), (3,)], "q must lie in (0, 1], not 1.5"),
    ('type: "SoftmaxWithGCELoss" gce_param { k: 1 }', [(3, 4), (3,)], "k must lie in [0, 1), not 1"),
]


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
