"""BatchNorm."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import TEST, TRAIN, Case, Draw, Reference, first_top, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer

EPS = float(np.float32(1e-5))
"""The schema's numbers are float32."""


def by_batch(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    """By the batch's statistics, written out."""
    x = xs[0]
    columns = x[:, None] if x.dim() == 1 else x
    axes = [i for i in range(columns.dim()) if i != 1]
    centred = columns - columns.mean(axes, keepdim=True)
    return [(centred / (centred.square().mean(axes, keepdim=True) + EPS).sqrt()).view_as(x)]


def by_global_statistics(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    mean, var, weight = blobs
    shape = (1, -1, *[1] * (xs[0].dim() - 2))
    return [(xs[0] - (mean / weight).view(shape)) / ((var / weight).view(shape) + EPS).sqrt()]


def sums(draw: Draw) -> list[Tensor]:
    return [draw.normal(3), draw.uniform(3) + 0.1, torch.tensor([2.5]).double()]


def then_affine(normal: Reference) -> Reference:
    """In NVIDIA's form: times the fourth blob, plus the fifth."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        scale, bias = (blob.view(-1, *[1] * (xs[0].dim() - 2)) for blob in blobs[3:])
        return [normal(xs, blobs[:3])[0] * scale + bias]

    return reference


def with_affine(draw: Draw) -> list[Tensor]:
    return [*sums(draw), draw.normal(3), draw.normal(3)]


AFFINE = 'type: "BatchNorm" batch_norm_param { scale_bias: true }'
FILLED = 'type: "BatchNorm" batch_norm_param { filler { value: 1 } }'
CASES = [
    Case(AFFINE, [normal(4, 3, 2, 2)], then_affine(by_batch), blobs=with_affine),
    Case(FILLED, [normal(4, 3)], then_affine(by_batch), blobs=with_affine),
    Case(AFFINE, [normal(4, 3, 2, 2)], then_affine(by_global_statistics), TEST, blobs=with_affine),
    Case(FILLED, [normal(4, 3)], then_affine(by_global_statistics), TEST, blobs=with_affine),
    Case('type: "BatchNorm"', [normal(4, 3, 2, 2)], by_batch),
    Case('type: "BatchNorm"', [lambda draw: 3 + 0.01 * draw.normal(4, 3)], by_batch),
    Case('type: "BatchNorm"', [normal(6)], by_batch),
    Case('type: "BatchNorm"', [normal(2, 3, 2, 1, 2)], by_batch),
    Case(
        'type: "BatchNorm"',
        [normal(1, 3, 1, 1)],
        by_batch,
        without={"test_on_a_gpu_a_pass_leaves_it_nowhere": "PyTorch's model of its kernel divides by m - 1, here 0"},
    ),
    Case('type: "BatchNorm" batch_norm_param { use_global_stats: false }', [normal(4, 3)], by_batch, TEST),
    Case('type: "BatchNorm"', [normal(4, 3, 2, 2)], by_global_statistics, TEST, blobs=sums),
    Case(
        'type: "BatchNorm" batch_norm_param { use_global_stats: true }',
        [normal(4, 3)],
        by_global_statistics,
        TRAIN,
        blobs=sums,
    ),
]

MISTAKES = [('type: "BatchNorm" param { lr_mult: 1 }', [(2, 3)], "its statistics cannot be learned")]


@settings(max_examples=20, deadline=None)
@given(passes=st.integers(0, 4), shape=st.sampled_from([(5, 2), (3, 2, 4, 4), (1, 2, 3), (1, 2, 1, 1)]))
def test_batch_norm_sums_and_global_statistics(passes: int, shape: tuple[int, ...]) -> None:
    """sum <- 0.9 sum + new, the variance with m / (m - 1); the TEST phase divides both by the sum of the weights."""
    text = 'type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 }'
    train, test = (build_layer(text, [shape], phase=phase) for phase in (TRAIN, TEST))
    m = torch.Size(shape).numel() // 2
    mean, var, weight = torch.zeros(2).double(), torch.zeros(2).double(), 0.0
    generator = torch.Generator().manual_seed(passes)
    for _ in range(passes):
        x = torch.randn(shape, generator=generator).double() + 3
        train.forward([x], {})
        columns = x.movedim(1, 0).flatten(1)
        unbiased = columns.var(1, unbiased=False) * (m / (m - 1) if m > 1 else 1)
        mean, var, weight = 0.9 * mean + columns.mean(1), 0.9 * var + unbiased, 0.9 * weight + 1
    for blob, expected in zip(train.blobs, (mean, var, torch.tensor([weight]).double()), strict=True):
        torch.testing.assert_close(blob.data, expected, rtol=1e-6, atol=1e-12)
    for mine, theirs in zip(test.blobs, train.blobs, strict=True):
        mine.data.copy_(theirs.data)
    x = torch.randn(shape, generator=generator).double()
    spread = (1, 2, *[1] * (len(shape) - 2))
    scale = weight or 1  # no pass yet: mean and variance 0
    expected = (x - (mean / scale).view(spread)) / ((var / scale).view(spread) + 1e-5).sqrt()
    torch.testing.assert_close(test.forward([x], {})[0], expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(test.blobs, train.blobs, strict=True):
        assert torch.equal(mine.data, theirs.data)  # the TEST phase moves nothing


def test_batch_norm_of_one_sample_a_channel_is_exactly_zero() -> None:
    assert not first_top('type: "BatchNorm"', torch.randn(1, 4, 1, 1) * 100).any()


def test_batch_norm_is_accurate_far_from_zero() -> None:
    """Mean 1,000 and standard deviation 1 in float32: the variance is not computed as E[x^2] - mean^2."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) + 1000
    exact = (x.double() - x.double().mean(0)) / (x.double().var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(first_top('type: "BatchNorm"', x).double(), exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "scale", "bias"),
    [
        ("scale_bias: true", 1, 0),
        ("scale_filler { value: 2 } bias_filler { value: 3 } engine: CUDNN", 2, 3),
        ("bias_filler { value: 3 }", 1, 3),
        ("filler { value: 0.5 }", 0.5, 0),
    ],
)
def test_scale_and_bias_of_forks_begin_by_their_fillers_and_are_learned(
    settings: str, scale: float, bias: float
) -> None:
    layer = build_layer(f'type: "BatchNorm" batch_norm_param {{ {settings} }}', [(1, 2)])
    assert [blob.lr_mult for blob in layer.blobs] == [0, 0, 0, 1, 1]
    assert (layer.blobs[3].data == scale).all() and (layer.blobs[4].data == bias).all()
    assert torch.equal(layer.forward([torch.randn(1, 2).double()], {})[0], torch.full((1, 2), bias).double())
