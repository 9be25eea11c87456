"""The sample weights: their values, Table 4's variances two ways, and Figures 1 and 5."""

from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest

from imae.experiments import weighting
from imae.experiments.weighting import (
    MAE_VARIANCE,
    TABLE_4,
    plot_weights,
    variance_closed_form,
    variance_quadrature,
    weight_cce,
    weight_gce,
    weight_imae,
    weight_mae,
)
from imae.prototxt_like.errors import InputError


def test_weights_by_hand():
    p = [0, 0.25, 0.5, 1]
    np.testing.assert_allclose(weight_cce(p), [2, 1.5, 1, 0])
    np.testing.assert_allclose(weight_mae(p), [0, 0.75, 1, 0])
    np.testing.assert_allclose(weight_imae(p, 8), [1, np.exp(1.5), np.exp(2), 1])
    np.testing.assert_allclose(weight_gce(p, 0.5), [0, 0.75, np.sqrt(0.5), 0])


def test_weights_are_the_l1_norms_of_the_gradients():
    z = np.random.default_rng(0).standard_normal((20, 5)) * 3
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    label = np.eye(5)[0]
    p_y = p[:, 0]
    cce = p - label
    np.testing.assert_allclose(weight_cce(p_y), np.abs(cce).sum(1))
    np.testing.assert_allclose(weight_mae(p_y), np.abs(2 * p_y[:, None] * cce).sum(1))
    np.testing.assert_allclose(weight_gce(p_y, 0.7), np.abs(p_y[:, None] ** 0.7 * cce).sum(1))


def test_gce_lies_between_cce_and_mae():
    p = np.linspace(0.01, 1, 50)
    np.testing.assert_allclose(weight_gce(p, 1), weight_mae(p) / 2)
    np.testing.assert_allclose(weight_gce(p, 1e-12), weight_cce(p))


@pytest.mark.parametrize(("T", "printed"), TABLE_4.items())
def test_table_4_both_ways(T, printed):
    closed, quadrature = variance_closed_form(T), variance_quadrature(lambda p: weight_imae(p, T))
    assert round(closed, 3) == printed
    assert quadrature == pytest.approx(closed, rel=1e-9, abs=1e-15)


def test_variances_of_mae_and_cce():
    assert variance_quadrature(weight_mae) == pytest.approx(4 / 45, rel=1e-12)
    assert round(4 / 45, 2) == MAE_VARIANCE
    assert variance_quadrature(weight_cce) == pytest.approx(1 / 3, rel=1e-12)


def exact_variance(T: float) -> Fraction:
    """E[w^2] - E[w]^2 from the power series of both, in exact arithmetic."""

    def mean(t: Fraction) -> Fraction:
        return sum((t**n * Fraction(factorial(n), factorial(2 * n + 1)) for n in range(40)), Fraction(0))

    t = Fraction(T)
    return mean(2 * t) - mean(t) ** 2


@pytest.mark.parametrize("T", [1e-12, 1e-6, 1e-3, 0.1, 0.4999999, 0.5, 0.75, 1, 3])
def test_the_closed_form_is_sound_down_to_tiny_temperatures(T):
    assert variance_closed_form(T) == pytest.approx(float(exact_variance(T)), rel=1e-12)


def test_moments_of_the_series():
    # E[(p (1 - p))^2] by expanding the power.
    assert sum(Fraction((-1) ** k * comb(2, k), 3 + k) for k in range(3)) == Fraction(factorial(2) ** 2, factorial(5))


def test_the_variance_overflows_to_infinity():
    assert np.isfinite(variance_closed_form(1400))
    assert variance_closed_form(2000) == np.inf


@pytest.mark.parametrize(
    "call",
    [
        lambda: weight_cce([0.5, 1.1]),
        lambda: weight_mae(-0.1),
        lambda: weight_imae(np.nan, 8),
        lambda: weight_imae(0.5, -1),
        lambda: weight_gce(0.5, 0),
        lambda: weight_gce(0.5, 1.5),
        lambda: variance_closed_form(np.nan),
        lambda: variance_closed_form(np.inf),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(InputError, match="expected"):
        call()


def test_figures_are_drawn_and_the_same_every_time(tmp_path):
    from PIL import Image

    files = plot_weights(tmp_path / "a")
    assert [path.name for path in files] == ["a_figure1.png", "a_figure1.svg", "a_figure5.png", "a_figure5.svg"]
    for path, again in zip(files, plot_weights(tmp_path / "b"), strict=True):
        assert path.read_bytes() == again.read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.size[0] == 630
                assert len(image.convert("RGB").getcolors(2**16)) > 10
        else:
            assert b"<svg" in path.read_bytes()
            assert b"<dc:date>" not in path.read_bytes()


def test_a_figure_shows_the_weights():
    one, five = (
        {line.get_label(): line.get_ydata().max() for line in draw(4.2).axes[0].get_lines()}
        for draw in (weighting._figure1, weighting._figure5)
    )
    assert one == pytest.approx({"IMAE, $T$ = 8": np.exp(2), "CCE": 2, "MAE": 1})
    assert five == pytest.approx({f"$T$ = {T:g}": np.exp(T / 4) for T in TABLE_4})


def test_a_figure_in_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="missing"):
        plot_weights(tmp_path / "missing" / "a")
