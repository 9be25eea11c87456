"""LRN."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import Case, Draw, first_top, normal
from torch import Tensor


def across(settings: str, size: int = 5, alpha: float = 1, beta: float = 0.75, k: float = 1, channels: int = 7) -> Case:
    return Case(
        f'type: "LRN" lrn_param {{ {settings} }}',
        [normal(2, channels, 3, 2)],
        lambda xs, blobs: [F.local_response_norm(xs[0], size, alpha, beta, k)],
    )


def within(settings: str, size: int = 5, alpha: float = 1, beta: float = 0.75) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        mean = F.avg_pool2d(F.pad(xs[0] ** 2, [size // 2] * 4), size, 1)
        return [xs[0] * (1 + alpha * mean) ** -beta]

    return Case(f'type: "LRN" lrn_param {{ norm_region: WITHIN_CHANNEL {settings} }}', [normal(2, 3, 5, 4)], reference)


CASES = [
    across(""),
    across("local_size: 3 alpha: 0.5 beta: 0.5 k: 2", 3, 0.5, 0.5, 2),
    across("local_size: 1 alpha: 0.5 beta: 1 k: 0.75", 1, 0.5, 1, 0.75),
    across("local_size: 9 alpha: 2", 9, 2, channels=3),
    across("alpha: 0 k: 2", alpha=0, k=2),
    across("beta: -1", beta=-1),
    within(""),
    within("local_size: 3 alpha: 0.5 beta: 0.5 k: 7", 3, 0.5, 0.5),
    within("local_size: 1 alpha: 2", 1, 2),
    within("local_size: 11 alpha: 2 beta: 1", 11, 2, 1),
]

MISTAKES = [
    ('type: "LRN" lrn_param { local_size: 4 }', [(2, 3, 4, 4)], "local_size must be odd, not 4"),
    ('type: "LRN" lrn_param { local_size: 0 }', [(2, 3, 4, 4)], "local_size must be odd, not 0"),
    ('type: "LRN"', [(2, 3)], "needs a bottom of 4 axes, found 2x3"),
]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 4),
    half=st.integers(0, 4),
    inside=st.booleans(),
    alpha=st.floats(0, 3),
    beta=st.floats(-1, 2),
    k=st.floats(0.5, 3),
)
def test_lrn_sums_windows_as_caffe_does(
    shape: tuple[int, int, int, int], half: int, inside: bool, alpha: float, beta: float, k: float
) -> None:
    """A value at a time."""
    x = Draw(7).normal(*shape)
    region = "WITHIN_CHANNEL" if inside else "ACROSS_CHANNELS"
    text = f"local_size: {2 * half + 1} alpha: {alpha} beta: {beta} k: {k} norm_region: {region}"
    y = first_top(f'type: "LRN" lrn_param {{ {text} }}', x)
    for n, c, h, w in torch.cartesian_prod(*map(torch.arange, shape)).view(-1, 4).tolist():
        if inside:
            window = x[n, c, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1]
            s = 1 + alpha / (2 * half + 1) ** 2 * (window**2).sum()
        else:
            s = k + alpha / (2 * half + 1) * (x[n, max(c - half, 0) : c + half + 1, h, w] ** 2).sum()
        torch.testing.assert_close(y[n, c, h, w], x[n, c, h, w] * s**-beta, rtol=1e-5, atol=1e-6)
