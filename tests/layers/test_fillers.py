"""Fillers draw from the distributions that Caffe's draw from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imae.layers.fillers import fill
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import FillerParameter

FAN_IN, FAN_OUT, AVERAGE = (FillerParameter.VarianceNorm.Value(name) for name in ("FAN_IN", "FAN_OUT", "AVERAGE"))


def filled(shape: tuple[int, ...], seed: int = 0, **fields: object) -> Tensor:
    data = torch.full(shape, torch.nan)
    fill(data, FillerParameter(**fields), torch.Generator().manual_seed(seed))
    return data


def assert_moments(data: Tensor, mean: float, std: float) -> None:
    """Mean and standard deviation within 5 standard errors (the latter's at most std / sqrt(n), for normal values)."""
    error = 5 * std / math.sqrt(data.numel())
    assert float(data.mean()) == pytest.approx(mean, abs=error)
    assert float(data.std()) == pytest.approx(std, abs=error)


def test_constant_is_zero_unless_said_otherwise() -> None:
    assert (filled((3, 4), type="constant", value=2.5) == 2.5).all()
    assert (filled((3, 4)) == 0).all()


def test_uniform_covers_its_range() -> None:
    data = filled((100, 200), type="uniform", min=-1, max=3)
    assert_moments(data, 1, 4 / math.sqrt(12))
    assert data.min() >= -1 and data.max() <= 3
    assert data.min() < -0.99 and data.max() > 2.99
    assert filled((100,), type="uniform").min() >= 0 and filled((100,), type="uniform").max() <= 1


def test_gaussian_has_its_mean_and_std() -> None:
    assert_moments(filled((100, 200), type="gaussian", mean=2, std=0.5), 2, 0.5)
    assert_moments(filled((100, 200), type="gaussian"), 0, 1)


def test_sparse_gaussian_keeps_some_inputs_of_each_output() -> None:
    """Each weight of num_output x inputs stays with probability sparse / num_output."""
    data = filled((50, 400), type="gaussian", std=2, sparse=10)
    share = 10 / 50
    kept = data[data != 0]
    assert kept.numel() / data.numel() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / data.numel()))
    assert_moments(kept, 0, 2)
    assert filled((5, 20), type="gaussian", sparse=5).all()
    assert not filled((5, 20), type="gaussian", sparse=0).any()


@pytest.mark.parametrize(
    ("shape", "mode", "n"),
    [
        ((40, 50), FAN_IN, 50),
        ((40, 50), FAN_OUT, 40),
        ((40, 50), AVERAGE, 45),
        ((30, 20, 3, 3), FAN_IN, 20 * 9),
        ((30, 20, 3, 3), FAN_OUT, 30 * 9),
        ((30, 20, 3, 3), AVERAGE, 25 * 9),
        ((5000,), FAN_IN, 1),
        ((5000,), FAN_OUT, 5000),
    ],
)
def test_xavier_and_msra_scale_with_the_fan(shape: tuple[int, ...], mode: int, n: int) -> None:
    """Variance 1 / n, uniform (Glorot and Bengio 2010), and 2 / n, normal (He et al. 2015)."""
    xavier = filled(shape, type="xavier", variance_norm=mode)
    assert_moments(xavier, 0, math.sqrt(1 / n))
    assert math.sqrt(3 / n) * 0.98 < xavier.abs().max() <= math.sqrt(3 / n) * (1 + 1e-6)
    assert_moments(filled(shape, type="msra", variance_norm=mode), 0, math.sqrt(2 / n))


def test_xavier_and_msra_count_inputs_unless_said_otherwise() -> None:
    for kind in ("xavier", "msra"):
        assert torch.equal(filled((40, 50), type=kind), filled((40, 50), type=kind, variance_norm=FAN_IN))


@pytest.mark.parametrize("shape", [(4, 10), (3, 2, 5, 5), (6,)])
def test_positive_unitball_sums_to_1_for_each_output(shape: tuple[int, ...]) -> None:
    data = filled(shape, type="positive_unitball")
    assert (data > 0).all()
    torch.testing.assert_close(data.reshape(shape[0], -1).sum(1), torch.ones(shape[0]))


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 9))
def test_bilinear_interpolates(size: int) -> None:
    """w(x, y) = (1 - |x/f - c|) (1 - |y/f - c|), f = ceil(size/2), c = (size - 1) / 2f, the same for every channel."""
    f = math.ceil(size / 2)
    c = (size - 1) / (2 * f)
    kernel = np.array([[(1 - abs(x / f - c)) * (1 - abs(y / f - c)) for x in range(size)] for y in range(size)])
    data = filled((3, 2, size, size), type="bilinear")
    np.testing.assert_allclose(data, np.broadcast_to(kernel, data.shape), 1e-6)


def test_bilinear_of_4_is_the_well_known_kernel() -> None:
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(filled((1, 1, 4, 4), type="bilinear")[0, 0], row[:, None] * row)


KINDS = ["constant", "uniform", "gaussian", "xavier", "msra", "positive_unitball"]


@pytest.mark.parametrize("kind", [*KINDS, "bilinear"])
def test_a_seed_determines_the_values(kind: str) -> None:
    shape = (5, 4, 3, 3)
    assert torch.equal(filled(shape, 7, type=kind), filled(shape, 7, type=kind))
    if kind not in ("constant", "bilinear"):
        assert not torch.equal(filled(shape, 7, type=kind), filled(shape, 8, type=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_scalar_is_filled_too(kind: str) -> None:
    """A Scale layer with num_axes 0 has one."""
    assert filled((), type=kind).isfinite()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("fields", [*({"type": kind} for kind in KINDS), {"type": "gaussian", "sparse": 2}], ids=str)
def test_a_blob_of_nothing_is_filled_too(fields: dict[str, object], shape: tuple[int, ...]) -> None:
    assert filled(shape, **fields).shape == shape


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"type": "zavier"}, (2, 3), 'unknown filler "zavier", known are bilinear, constant, .*, xavier'),
        ({"type": "xavier", "sparse": 3}, (2, 3), 'the filler "xavier" cannot be sparse'),
        ({"type": "gaussian", "sparse": 3}, (2, 3), "can keep 2 weights of an input, not 3"),
        ({"type": "bilinear"}, (2, 3), r"square 4-axis kernels, not \(2, 3\)"),
        ({"type": "bilinear"}, (1, 1, 2, 3), r"square 4-axis kernels, not \(1, 1, 2, 3\)"),
        ({"type": "uniform", "min": 2, "max": 1}, (2, 3), "min <= max, not 2 and 1"),
        ({"type": "uniform", "min": -3e38, "max": 3e38}, (2, 3), r"-3e\+38 to 3e\+38 is more than a float32 can span"),
        ({"type": "gaussian", "std": 0}, (2, 3), "std above 0, not 0"),
    ],
)
def test_what_cannot_be_filled_is_an_error(fields: dict[str, object], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        filled(shape, **fields)
