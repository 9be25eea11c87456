"""Scale."""

import pytest
import torch
from layer_cases import Case, first_top, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.errors import InputError


def scale(
    settings: str, shape: tuple[int, ...], spread: tuple[int, ...], second: tuple[int, ...] | None = None
) -> Case:
    """`spread` is the shape in which the scale and the bias broadcast against the bottom."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        factor, *bias = [*xs[1:], *blobs]
        return [xs[0] * factor.view(spread) + (bias[0].view(spread) if bias else 0)]

    bottoms = [normal(*shape)] + ([] if second is None else [normal(*second)])
    return Case(f'type: "Scale" scale_param {{ {settings} }}', bottoms, reference)


CASES = [
    scale("", (2, 3, 4, 2), (3, 1, 1)),
    scale("bias_term: true", (2, 3, 4, 2), (3, 1, 1)),
    scale("bias_term: true num_axes: 2", (2, 3, 4, 2), (3, 4, 1)),
    scale("bias_term: true num_axes: -1", (2, 3, 4, 2), (3, 4, 2)),
    scale("num_axes: 0 bias_term: true", (2, 3, 4), ()),
    scale("axis: 0 num_axes: 2", (2, 3, 4), (2, 3, 1)),
    scale("axis: -1 bias_term: true", (2, 3, 4), (4,)),
    scale("bias_term: true", (3, 4), (4,)),
    scale("", (2, 3, 4), (3, 1), (3,)),
    scale("axis: 0 bias_term: true", (2, 3, 4), (2, 3, 1), (2, 3)),
    scale("axis: 0", (2, 3, 4), (2, 3, 4), (2, 3, 4)),
    scale("bias_term: true", (2, 3, 4), (), ()),
    scale("axis: -2 num_axes: 2", (2, 3, 4), (3, 4)),
    scale("axis: -3 num_axes: 1 bias_term: true", (2, 3, 4), (2, 1, 1)),
    scale("axis: 0 num_axes: 0", (2, 3), ()),
    scale("axis: 0 bias_term: true", (4,), (4,)),
    scale("axis: -2 bias_term: true", (2, 3, 4, 2), (4, 2), (4, 2)),
    scale("axis: 2 num_axes: 5 bias_term: true", (2, 3, 4, 2), (4, 1), (4,)),
    scale("axis: 9", (2, 3, 4), (), ()),
    scale("", (), (), ()),
]

MISTAKES = [
    ('type: "Scale"', [(2, 3)] * 3, "takes 1 to 2 bottom blobs, the prototxt gives 3"),
    ('type: "Scale" scale_param { num_axes: 3 }', [(2, 3)], "num_axes 3 from axis 1 reaches past a bottom of 2x3"),
    ('type: "Scale" scale_param { axis: -3 }', [(2, 3)], "axis -3 is out of range for a bottom of shape 2x3"),
    ('type: "Scale"', [(2, 3), (3, 1)], "a scale of 3x1 does not fit a bottom of 2x3 from axis 1 on"),
    ('type: "Scale"', [(2, 3), (2,)], "a scale of 2 does not fit a bottom of 2x3 from axis 1 on"),
]


def test_scale_starts_at_one_and_its_bias_at_zero() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(first_top('type: "Scale" scale_param { bias_term: true }', x), x)
    y = first_top('type: "Scale" scale_param { filler { value: 3 } bias_filler { value: 1 } bias_term: true }', x)
    torch.testing.assert_close(y, 3 * x + 1)


def test_each_blob_of_scale_takes_the_next_param() -> None:
    specs = "param { lr_mult: 0 decay_mult: 3 } param { lr_mult: 2 } scale_param { bias_term: true }"
    layer = build_layer(f'type: "Scale" {specs}', [(2, 3)])
    assert [(blob.lr_mult, blob.decay_mult) for blob in layer.blobs] == [(0, 3), (2, 1)]
    layer = build_layer(f'type: "Scale" {specs}', [(2, 3), (3,)])
    assert [(blob.lr_mult, blob.decay_mult) for blob in layer.blobs] == [(0, 3)]


def test_with_a_second_bottom_the_bias_keeps_its_shape() -> None:
    layer = build_layer('name: "mine" type: "Scale" scale_param { bias_term: true }', [(2, 3), (3,)])
    assert layer.reshape([(4, 3), (3,)]) == [(4, 3)]
    with pytest.raises(InputError, match=r'"mine" .* its bias is 3, the scale 5'):
        layer.reshape([(4, 5), (5,)])
