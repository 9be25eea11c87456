"""Pooling."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import TEST, TRAIN, Case, Draw, Maker, first_top, normal, uniform
from torch import Tensor

from imae.layers.gradient_check import backward, build_layer, check_layer
from imae.layers.layer import Saved
from imae.layers.random_streams import random_uniform
from imae.prototxt_like.errors import InputError


def pooling(settings: str, x: Maker, phase: int = TRAIN, forwards: int = 0, **geometry: object) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        return pooled(xs[0], **geometry, training=phase == TRAIN, forwards=forwards)  # type: ignore[arg-type]

    tops = 'top: "y" top: "index"' if geometry.get("indices") else ""
    draws = phase == TRAIN and geometry.get("method") == "STOCHASTIC"
    without = {"test_bfloat16_gives_the_same_within_its_own_precision": "another element may be drawn"} if draws else {}
    return Case(
        f'type: "Pooling" {tops} pooling_param {{ {settings} }}', [x], reference, phase, forwards, without=without
    )


def pooled(
    x: Tensor,
    method: str = "MAX",
    kernel: tuple[int, int] = (2, 2),
    stride: tuple[int, int] = (1, 1),
    pad: tuple[int, int] = (0, 0),
    down: bool = False,
    indices: bool = False,
    training: bool = True,
    forwards: int = 0,
) -> list[Tensor]:
    """Caffe's pooling, a window at a time."""
    sizes = []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        n = (math.floor if down else math.ceil)((size + 2 * p - k) / s) + 1
        sizes.append(n - 1 if any(pad) and (n - 1) * s >= size + p else n)
    columns, places = [], []
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            top, left = i * stride[0] - pad[0], j * stride[1] - pad[1]
            bottom, right = min(top + kernel[0], x.shape[2] + pad[0]), min(left + kernel[1], x.shape[3] + pad[1])
            area = (bottom - top) * (right - left)
            window = x[:, :, max(top, 0) : bottom, max(left, 0) : right].flatten(2)
            width = min(right, x.shape[3]) - max(left, 0)
            if method == "AVE":
                columns.append(window.sum(2) / area)
            elif method == "MAX":
                place = window.argmax(2)  # the first at a tie
                columns.append(window.gather(2, place[:, :, None])[:, :, 0])
                places.append((max(top, 0) + place // width) * x.shape[3] + max(left, 0) + place % width)
            elif training:  # STOCHASTIC: the first element at which the running sum passes a random part of the total
                n, c = x.shape[:2]
                count = n * c * sizes[0] * sizes[1]
                number = torch.arange(n * c).view(n, c) * sizes[0] * sizes[1] + i * sizes[1] + j
                part = random_uniform(0, "Pooling", forwards * count + number) * window.sum(2)
                place = (window.cumsum(2) > part[:, :, None]).int().argmax(2)
                columns.append(window.gather(2, place[:, :, None])[:, :, 0])
            else:
                columns.append((window**2).sum(2) / window.sum(2))
    y = torch.stack(columns, 2).view(*x.shape[:2], *sizes)
    return [y, torch.stack(places, 2).view_as(y).double()] if indices else [y]


CASES = [
    pooling("kernel_size: 2 stride: 2", normal(2, 3, 5, 7), stride=(2, 2)),
    pooling("kernel_size: 3 stride: 2", normal(2, 3, 6, 8), kernel=(3, 3), stride=(2, 2)),
    pooling("kernel_size: 3 kernel_w: 1", normal(1, 2, 5, 5), kernel=(3, 3)),
    pooling("kernel_size: 3 stride: 2", lambda draw: draw.normal(2, 3, 7, 7).relu(), kernel=(3, 3), stride=(2, 2)),
    pooling(
        "kernel_size: 3 stride: 2 pad: 1", normal(2, 3, 6, 7), kernel=(3, 3), stride=(2, 2), pad=(1, 1), indices=True
    ),
    pooling(
        "kernel_size: 3 stride: 2 pad: 2", normal(2, 2, 6, 7), kernel=(3, 3), stride=(2, 2), pad=(2, 2), indices=True
    ),
    pooling(
        "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 2 pad_w: 0",
        normal(2, 2, 5, 6),
        kernel=(3, 2),
        stride=(1, 2),
        pad=(2, 0),
        indices=True,
    ),
    pooling("kernel_size: 3 stride: 2 round_mode: FLOOR", normal(2, 2, 6, 8), kernel=(3, 3), stride=(2, 2), down=True),
    pooling("global_pooling: true", normal(2, 3, 4, 5), kernel=(4, 5)),
    pooling("pool: AVE kernel_size: 3 stride: 2", normal(2, 3, 6, 8), method="AVE", kernel=(3, 3), stride=(2, 2)),
    pooling("pool: AVE kernel_size: 3 stride: 1 pad: 1", normal(2, 2, 5, 4), method="AVE", kernel=(3, 3), pad=(1, 1)),
    pooling(
        "pool: AVE kernel_size: 3 stride: 2 pad: 2",
        normal(2, 2, 6, 7),
        method="AVE",
        kernel=(3, 3),
        stride=(2, 2),
        pad=(2, 2),
    ),
    pooling(
        "pool: AVE kernel_h: 4 kernel_w: 2 stride_h: 3 stride_w: 1 pad_h: 3 pad_w: 0",
        normal(1, 2, 7, 4),
        method="AVE",
        kernel=(4, 2),
        stride=(3, 1),
        pad=(3, 0),
    ),
    pooling(
        "pool: AVE kernel_size: 2 stride: 3 pad_h: 1 pad_w: 0",
        normal(1, 2, 6, 7),
        method="AVE",
        kernel=(2, 2),
        stride=(3, 3),
        pad=(1, 0),
    ),
    pooling("pool: AVE global_pooling: true", normal(2, 3, 4, 5), method="AVE", kernel=(4, 5)),
    pooling("pool: STOCHASTIC kernel_size: 2 stride: 2", uniform(2, 3, 5, 4), method="STOCHASTIC", stride=(2, 2)),
    pooling(
        "pool: STOCHASTIC kernel_size: 3 stride: 2",
        uniform(2, 2, 6, 7),
        forwards=3,
        method="STOCHASTIC",
        kernel=(3, 3),
        stride=(2, 2),
    ),
    pooling(
        "pool: STOCHASTIC kernel_size: 3 stride: 2",
        uniform(2, 2, 6, 7),
        TEST,
        method="STOCHASTIC",
        kernel=(3, 3),
        stride=(2, 2),
    ),
]


MISTAKES = [
    ('type: "Pooling" pooling_param { kernel_size: 2 }', [(2, 3)], "needs a bottom of 4 axes, found 2x3"),
    ('type: "Pooling"', [(1, 2, 5, 5)], "kernel and stride must be at least 1"),
    (
        'type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }',
        [(1, 2, 5, 5)],
        "pad 2x2 must be smaller than the kernel 2x2",
    ),
    (
        'type: "Pooling" pooling_param { kernel_h: 2 }',
        [(1, 2, 5, 5)],
        "give either kernel_size or both kernel_h and kernel_w",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 2 stride_w: 2 }',
        [(1, 2, 5, 5)],
        "give either stride or both stride_h and stride_w",
    ),
    (
        'type: "Pooling" pooling_param { global_pooling: true kernel_size: 2 }',
        [(1, 2, 5, 5)],
        "takes no kernel size",
    ),
    ('type: "Pooling" pooling_param { global_pooling: true stride: 2 }', [(1, 2, 5, 5)], "no stride but 1 and no pad"),
    ('type: "Pooling" pooling_param { global_pooling: true pad_h: 1 }', [(1, 2, 5, 5)], "both pad_h and pad_w"),
    (
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 pad: 1 }',
        [(1, 2, 5, 5)],
        "takes no padding",
    ),
    (
        'type: "Pooling" top: "a" top: "b" pooling_param { pool: AVE kernel_size: 3 }',
        [(1, 2, 5, 5)],
        "only MAX pooling has a second top",
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 1 stride: 2 }',
        [(1, 2, 8, 8)],
        "set round_mode: FLOOR or a pad",
    ),
]


def test_pooling_rounds_up_and_clips() -> None:
    """Caffe's output is 3 where rounding down gives 2; the last windows reach past the border."""
    x = torch.arange(36.0).view(1, 1, 6, 6)
    y = first_top('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', x)
    assert y[0, 0].tolist() == [[14, 16, 17], [26, 28, 29], [32, 34, 35]]
    mean = first_top('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }', x)
    assert mean[0, 0, 2].tolist() == [28, 30, 31.5]  # of two rows only


def test_average_pooling_divides_by_the_padded_window() -> None:
    y = first_top('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 pad: 1 }', torch.full((1, 1, 3, 3), 2.0))
    expected = torch.tensor([[8 / 9, 4 / 3, 8 / 9], [4 / 3, 2, 4 / 3], [8 / 9, 4 / 3, 8 / 9]])
    torch.testing.assert_close(y[0, 0], expected)


def test_the_last_window_does_not_start_in_the_padding() -> None:
    layer = build_layer('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 pad: 1 }', [(1, 1, 3, 3)])
    assert layer.reshape([(1, 1, 3, 3)]) == [(1, 1, 2, 2)]  # (3 + 2 - 2) / 2 rounded up + 1 = 3, the third at row 3


def test_max_pooling_tells_where_and_takes_the_first_of_equals() -> None:
    x = torch.tensor([[5.0, 5.0, 1.0], [5.0, 2.0, 7.0], [0.0, 7.0, 7.0]]).view(1, 1, 3, 3)
    text = 'type: "Pooling" top: "y" top: "index" pooling_param { kernel_size: 2 stride: 1 }'
    layer = build_layer(text, [(1, 1, 3, 3)])
    saved: Saved = {}
    y, index = layer.forward([x], saved)
    assert y[0, 0].tolist() == [[5, 7], [7, 7]] and index[0, 0].tolist() == [[0, 5], [7, 5]]
    (dx,) = backward(layer, [x], [y, index], [torch.ones_like(y), torch.full_like(y, 9)], saved, [True])
    assert dx is not None and dx[0, 0].tolist() == [[1, 0, 0], [0, 0, 2], [0, 1, 0]]


def test_stochastic_pooling_draws_in_proportion_and_averages_in_the_test_phase() -> None:
    """Zeiler and Fergus 2013, section 3."""
    text = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }'
    x = torch.tensor([[1.0, 2.0], [0.0, 5.0]]).repeat(100, 100).view(1, 1, 200, 200)
    drawn = first_top(text, x)
    for value, share in ((1, 1 / 8), (2, 2 / 8), (5, 5 / 8)):
        assert float((drawn == value).float().mean()) == pytest.approx(share, abs=0.025)  # 5 standard errors
    assert first_top(text, x, phase=TEST).unique().tolist() == [(1 + 4 + 25) / 8]
    layer = build_layer(text, [(1, 1, 4, 4)], phase=TEST)
    saved: Saved = {}
    zeros = torch.zeros(1, 1, 4, 4)
    (y,) = layer.forward([zeros], saved)
    assert not y.any()
    (dx,) = backward(layer, [zeros], [y], [torch.ones(1, 1, 2, 2)], saved, [True])
    assert dx is not None and dx.isfinite().all()


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["MAX", "AVE"]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    down=st.booleans(),
)
def test_pooling_of_any_geometry_is_caffes(
    method: str,
    sizes: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    down: bool,
) -> None:
    """Where Caffe's result is a number: it leaves windows outside the bottom at -FLT_MAX or 0 / 0; those are errors."""
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, pad
    text = (
        f'type: "Pooling" pooling_param {{ pool: {method} kernel_h: {kh} kernel_w: {kw} stride_h: {sh} stride_w: {sw} '
        f"pad_h: {ph} pad_w: {pw} round_mode: {'FLOOR' if down else 'CEIL'} }}"
    )
    x = torch.arange(2 * sizes[0] * sizes[1], dtype=torch.float64).view(1, 2, *sizes) * 7 % 11
    padded = any(pad)
    outside = fits_not = False
    for size, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        n = (math.floor if down else math.ceil)((size + 2 * p - k) / s) + 1
        outside |= not padded and (n - 1) * s >= size
        fits_not |= n - (padded and (n - 1) * s >= size + p) < 1
    if any(p >= k for p, k in zip(pad, kernel, strict=True)) or outside or fits_not:
        with pytest.raises(InputError):
            build_layer(text, [x.shape])
        return
    layer = build_layer(text, [x.shape])
    expected = pooled(x, method, kernel, stride, pad, down)[0]
    assert layer.reshape([tuple(x.shape)]) == [tuple(expected.shape)]
    torch.testing.assert_close(layer.forward([x], {})[0], expected)


@pytest.mark.parametrize("overlap", [2, 1])
def test_ties_of_max_pooling_are_skipped(overlap: int) -> None:
    """Windows of zeros, as ReLU leaves them: the gradient goes to one of the tied elements, in several windows each."""
    report = check_layer(
        f'type: "Pooling" pooling_param {{ kernel_size: 3 stride: {overlap} }}',
        [(normal(2, 2, 9, 9)(Draw(7)) - 1).relu()],
    )
    assert report.passed, report
    assert report.skipped > 0
