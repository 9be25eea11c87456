"""The paper's sample weights as functions of the probability p of the annotated label, their variances and figures."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import write_each
from imae.reports import pictures
from imae.reports.pictures import picture

FloatArray = NDArray[np.float64]

# Table 4: T to the variance of w_IMAE for p uniform on [0, 1], as printed; MAE's from Section 4.
TABLE_4 = {16.0: 354.113, 8.0: 4.546, 4.0: 0.299, 2.0: 0.040, 1.0: 0.007, 0.5: 0.002, 0.0: 0.0}
MAE_VARIANCE = 0.09
FIGURE_1_T = 8.0

# At T = 1/2 the first term left out is below 1e-20 of the sum.
_SERIES_TERMS = 16


def weight_cce(p: ArrayLike) -> FloatArray:
    """Return 2 (1 - p), the L1 norm of CCE's gradient with respect to the logits, elementwise for p in [0, 1].

    Raises InputError for p outside, as all weights here.
    """
    return 2 * (1 - _probability(p))


def weight_mae(p: ArrayLike) -> FloatArray:
    """Return 4 p (1 - p), the L1 norm of MAE's gradient with respect to the logits."""
    p = _probability(p)
    return 4 * p * (1 - p)


def weight_imae(p: ArrayLike, T: float) -> FloatArray:
    """Return exp(T p (1 - p)), the weight that IMAE gives instead of MAE's (equation 21); T >= 0."""
    p = _probability(p)
    return np.exp(_temperature(T) * p * (1 - p))


def weight_gce(p: ArrayLike, q: float) -> FloatArray:
    """Return 2 p^q (1 - p), the L1 norm of the gradient of GCE, (1 - p^q) / q, with respect to the logits; 0 < q <= 1.

    Source: Zhang and Sabuncu, "Generalized Cross Entropy Loss", NeurIPS 2018.
    """
    if not 0 < q <= 1:
        raise InputError(f"GCE: q is {q}, expected 0 < q <= 1")
    p = _probability(p)
    return 2 * p**q * (1 - p)


def variance_closed_form(T: float) -> float:
    """Return the variance of w_IMAE for p uniform on [0, 1] (equations 24 and 26); infinity beyond T of about 1,400.

    E[w] = sqrt(pi / T) exp(T / 4) erf(sqrt(T) / 2), E[w^2] the same at 2T, T >= 0. Below T = 1/2, where the
    difference E[w^2] - E[w]^2 cancels, its power series: with m_n = E[(p (1 - p))^n] = n!^2 / (2n + 1)!, it is
    sum_n T^n / n! sum_k binomial(n, k) (m_n - m_k m_(n-k)), in which no term is negative.
    """
    T = _temperature(T)
    if T < 0.5:
        moment = [math.factorial(n) ** 2 / math.factorial(2 * n + 1) for n in range(_SERIES_TERMS)]
        return sum(
            T**n / math.factorial(n) * math.comb(n, k) * (moment[n] - moment[k] * moment[n - k])
            for n in range(2, _SERIES_TERMS)
            for k in range(1, n)
        )

    def mean(t: float) -> float:
        return math.sqrt(math.pi / t) * math.erf(math.sqrt(t) / 2)

    # E[w]^2 and E[w^2] share the factor exp(T / 2).
    with np.errstate(over="ignore"):
        return float(np.exp(T / 2) * (mean(2 * T) - mean(T) ** 2))


def variance_quadrature(weight: Callable[[FloatArray], FloatArray], nodes: int = 128) -> float:
    """Return the variance of `weight`(p) for p uniform on [0, 1] (equation 23), by Gauss-Legendre quadrature."""
    points, shares = np.polynomial.legendre.leggauss(nodes)
    values, shares = weight((points + 1) / 2), shares / 2
    return float(shares @ (values - shares @ values) ** 2)


def plot_weights(path_stem: str | os.PathLike[str]) -> list[Path]:
    """Draw Figures 1 and 5, weight against probability, and return the files written.

    They are `path_stem`_figure1 and `path_stem`_figure5, each as .png and .svg. Figure 5 has a logarithmic axis, on
    which the curves are the parabolas T p (1 - p). Raises InputError if a file cannot be written.
    """
    stem = os.fspath(path_stem)
    paths = write_each(f"{stem}_figure1", picture(_figure1, pictures.SMALL).files)
    return paths + write_each(f"{stem}_figure5", picture(_figure5, pictures.SMALL).files)


_P = np.linspace(0, 1, 501)
_X = "probability $p$ of the annotated label"


def _figure1(width: float) -> "pictures.Figure":
    figure, (axes,) = pictures.new_figure(width=width, x=_X, y="weight $w(p)$")
    curves = (("IMAE", weight_imae(_P, FIGURE_1_T)), ("CCE", weight_cce(_P)), ("MAE", weight_mae(_P)))
    for loss, weights in curves:
        label = f"IMAE, $T$ = {FIGURE_1_T:g}" if loss == "IMAE" else loss
        axes.plot(_P, weights, label=label, **pictures.LOSS_STYLES[loss])
    axes.set(xlim=(0, 1), ylim=(0, 8))
    pictures.legend(axes)
    return figure


def _figure5(width: float) -> "pictures.Figure":
    figure, (axes,) = pictures.new_figure(width=width, height=3.2, x=_X, y="weight $w(p)$, log scale")
    for T, style in zip(TABLE_4, reversed(pictures.SERIES), strict=True):
        axes.plot(_P, weight_imae(_P, T), label=f"$T$ = {T:g}", **style)
    ticks = (1, 2, 5, 10, 20, 50)
    axes.set(xlim=(0, 1), ylim=(0.9, 70), yscale="log")
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    pictures.legend(axes, title="IMAE")
    return figure


def _probability(p: ArrayLike) -> FloatArray:
    array = np.asarray(p, np.float64)
    outside = array[~((array >= 0) & (array <= 1))]
    if outside.size:
        raise InputError(f"probability: {outside.flat[0]}, expected 0 to 1")
    return array


def _temperature(T: float) -> float:
    if not (T >= 0 and math.isfinite(T)):
        raise InputError(f"IMAE: T is {T}, expected a finite number of at least 0")
    return float(T)
