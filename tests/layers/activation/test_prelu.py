"""PReLU."""

import pytest
import torch
from layer_cases import Case, first_top, normal

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.errors import InputError


def prelu(settings: str, *shape: int) -> Case:
    def reference(xs: list[torch.Tensor], blobs: list[torch.Tensor]) -> list[torch.Tensor]:
        slopes = blobs[0].view(-1, *[1] * (len(shape) - 2))
        return [torch.where(xs[0] > 0, xs[0], slopes * xs[0])]

    return Case(f'type: "PReLU" prelu_param {{ {settings} }}', [normal(*shape)], reference)


CASES = [
    prelu("", 4, 5),
    prelu("", 2, 3, 4),
    prelu("", 2, 3, 4, 2),
    prelu("", 3, 1, 2, 2, 2),
    prelu("channel_shared: true", 4, 5),
    prelu("channel_shared: true", 2, 3, 4, 2),
]

MISTAKES = [('type: "PReLU"', [(3,)], "needs a bottom of 2 axes or more, found 3")]


def test_slopes_are_a_quarter_unless_a_filler_is_given() -> None:
    x = torch.tensor([[-4.0, 4.0]])
    assert first_top('type: "PReLU"', x).tolist() == [[-1, 4]]
    assert first_top('type: "PReLU" prelu_param { filler { } }', x).tolist() == [[0, 4]]
    assert first_top('type: "PReLU" prelu_param { filler { value: 2 } channel_shared: true }', x).tolist() == [[-8, 4]]


def test_a_shared_slope_is_a_scalar_and_fits_any_number_of_channels() -> None:
    layer = build_layer('type: "PReLU" prelu_param { channel_shared: true }', [(2, 3)])
    assert layer.blobs[0].shape == () and layer.reshape([(2, 5, 4)]) == [(2, 5, 4)]
    layer = build_layer('name: "mine" type: "PReLU"', [(2, 3)])
    with pytest.raises(InputError, match=r'"mine" .* its 3 slopes do not fit the channels of a bottom of 2x5'):
        layer.reshape([(2, 5)])
