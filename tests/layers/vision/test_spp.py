"""SPP."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import TEST, TRAIN, Case, Draw, Maker, first_top, normal, run, uniform
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.errors import InputError


def spp(fields: str, x: Maker, height: int, method: str = "MAX", phase: int = TRAIN) -> Case:
    return Case(
        f'type: "SPP" spp_param {{ pyramid_height: {height} {fields} }}',
        [x],
        lambda xs, blobs: [pyramid(xs[0], height, method)],
        phase,
    )


def pyramid(x: Tensor, height: int, method: str) -> Tensor:
    """Caffe's pyramid, a bin at a time."""
    levels = []
    for level in range(height):
        bins = 2**level
        kernel = [-(-size // bins) for size in x.shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, x.shape[2:], strict=True)]
        counts = [
            min(-(-(size + 2 * p - k) // k) + 1, -(-(size + p) // k) if any(pad) else 2**31)
            for size, k, p in zip(x.shape[2:], kernel, pad, strict=True)
        ]
        bins_of_level = []
        for i in range(counts[0]):
            for j in range(counts[1]):
                top, left = i * kernel[0] - pad[0], j * kernel[1] - pad[1]
                bottom, right = min(top + kernel[0], x.shape[2] + pad[0]), min(left + kernel[1], x.shape[3] + pad[1])
                window = x[:, :, max(top, 0) : bottom, max(left, 0) : right].flatten(2)
                if method == "MAX":
                    bins_of_level.append(window.amax(2))
                elif method == "AVE":
                    bins_of_level.append(window.sum(2) / ((bottom - top) * (right - left)))
                else:  # STOCHASTIC in the TEST phase
                    bins_of_level.append((window**2).sum(2) / window.sum(2))
        levels.append(torch.stack(bins_of_level, 2))
    if height == 1:
        return levels[0].view(*x.shape[:2], 1, 1)
    return torch.cat([level.flatten(1) for level in levels], 1)


CASES = [
    spp("", normal(2, 3, 5, 4), 1),
    spp("pool: MAX", normal(2, 2, 9, 8), 3),
    spp("pool: AVE", normal(2, 2, 7, 6), 2, "AVE"),
    spp("pool: AVE engine: CUDNN", normal(1, 2, 11, 7), 3, "AVE"),
    spp("pool: STOCHASTIC", uniform(2, 2, 4, 8), 2, "STOCHASTIC", TEST),
]


MISTAKES = [
    ('type: "SPP"', [(1, 2, 5, 5)], "pyramid_height is missing or 0"),
    ('type: "SPP" spp_param { pyramid_height: 2 }', [(2, 3)], "needs a bottom of 4 axes, found 2x3"),
    (
        'type: "SPP" spp_param { pyramid_height: 3 }',
        [(1, 2, 5, 5)],
        "level 2 of its pyramid: pad 2x2 must be smaller than the kernel 2x2",
    ),
    (
        'type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }',
        [(1, 2, 5, 4)],
        "level 1 of its pyramid: STOCHASTIC pooling takes no padding",
    ),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["MAX", "AVE"]), st.integers(1, 4), st.tuples(st.integers(1, 17), st.integers(1, 17)))
def test_a_pyramid_over_any_size_is_caffes(method: str, height: int, size: tuple[int, int]) -> None:
    """Where Caffe takes it: padding smaller than a bin, at each level."""
    text = f'type: "SPP" spp_param {{ pyramid_height: {height} pool: {method} }}'
    x = Draw(1).normal(2, 2, *size)
    kernels = [(-(-along // 2**level), along, 2**level) for level in range(height) for along in size]
    if any((k * bins - along + 1) // 2 >= k for k, along, bins in kernels):
        with pytest.raises(InputError, match="must be smaller than the kernel"):
            build_layer(text, [x.shape])
        return
    x.requires_grad_()
    expected = pyramid(x, height, method)
    dy = Draw(2).normal(*expected.shape)
    expected.backward(dy)
    layer = build_layer(text, [x.shape])
    assert layer.reshape([tuple(x.shape)]) == [tuple(expected.shape)]
    (y,), (dx,) = run(layer, [x.detach()], [dy])
    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(dx, x.grad)


def test_levels_of_stochastic_pooling_draw_apart() -> None:
    """Two levels of one bin's size would else take the same element."""
    x = Draw(3).uniform(1, 200, 2, 2)
    text = 'type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }'
    top = first_top(text, x)
    assert torch.equal(top[:, 200:], x.flatten(1))
    assert all(top[0, c] in x[0, c] for c in range(200))
