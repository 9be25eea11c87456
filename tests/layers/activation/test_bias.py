"""Bias."""

import pytest
import torch
from layer_cases import Case, first_top, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.errors import InputError


def bias(settings: str, shape: tuple[int, ...], spread: tuple[int, ...], second: tuple[int, ...] | None = None) -> Case:
    """`spread` is the shape in which the bias broadcasts against the bottom."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        return [xs[0] + [*xs[1:], *blobs][0].view(spread)]

    bottoms = [normal(*shape)] + ([] if second is None else [normal(*second)])
    return Case(f'type: "Bias" bias_param {{ {settings} }}', bottoms, reference)


CASES = [
    bias("", (2, 3, 4, 2), (3, 1, 1)),
    bias("num_axes: 2", (2, 3, 4, 2), (3, 4, 1)),
    bias("num_axes: -1", (2, 3, 4, 2), (3, 4, 2)),
    bias("num_axes: 0", (2, 3, 4), ()),
    bias("axis: 0 num_axes: 2", (2, 3, 4), (2, 3, 1)),
    bias("axis: -2 num_axes: 1", (2, 3, 4), (3, 1)),
    bias("axis: 0", (4,), (4,)),
    bias("", (2, 3, 4), (3, 1), (3,)),
    bias("axis: -2", (2, 3, 4), (3, 4), (3, 4)),
    bias("axis: 0", (2, 3, 4), (2, 3, 4), (2, 3, 4)),
    bias("axis: 7", (2, 3, 4), (), ()),
]

MISTAKES = [
    ('type: "Bias"', [(2, 3)] * 3, "takes 1 to 2 bottom blobs, the prototxt gives 3"),
    ('type: "Bias" bias_param { num_axes: 3 }', [(2, 3)], "num_axes 3 from axis 1 reaches past a bottom of 2x3"),
    ('type: "Bias" bias_param { num_axes: -2 }', [(2, 3)], "num_axes -2 from axis 1 reaches past a bottom of 2x3"),
    ('type: "Bias" bias_param { axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
    ('type: "Bias"', [(2, 3), (2,)], "a bias of 2 does not fit a bottom of 2x3 from axis 1 on"),
]


def test_bias_starts_at_zero() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(first_top('type: "Bias"', x), x)
    torch.testing.assert_close(first_top('type: "Bias" bias_param { filler { value: 3 } }', x), x + 3)


def test_a_learned_bias_over_the_batch_refuses_another_batch() -> None:
    layer = build_layer('name: "mine" type: "Bias" bias_param { axis: 0 }', [(2, 3)])
    with pytest.raises(InputError, match=r'"mine" .* a bias of 2 does not fit a bottom of 4x3 from axis 0 on'):
        layer.reshape([(4, 3)])
