"""Shortcut: He et al.'s option A, every stride-th position and zero channels."""

import pytest
import torch
import torch.nn.functional as F
from layer_cases import Case, normal

from imae.layers.gradient_check import build_layer, check_layer
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter

CASES = [
    Case(
        'type: "Shortcut" shortcut_param { num_output: 5 stride: 2 }',
        [normal(2, 3, 5, 4)],
        lambda xs, blobs: [F.pad(xs[0][:, :, ::2, ::2], (0, 0, 0, 0, 0, 2))],
    ),
    Case(
        'type: "Shortcut" shortcut_param { num_output: 3 stride: 3 }',
        [normal(2, 3, 4, 4)],
        lambda xs, blobs: [xs[0][:, :, ::3, ::3]],
    ),
]


def shortcut(num_output: int, stride: int) -> LayerParameter:
    return LayerParameter(type="Shortcut", shortcut_param={"num_output": num_output, "stride": stride})


@pytest.mark.parametrize(
    ("num_output", "stride", "size"), [(8, 2, (6, 6)), (4, 1, (5, 3)), (7, 3, (7, 8)), (5, 2, (1, 5))]
)
def test_gives_every_stride_th_position_and_then_zeros(num_output: int, stride: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *size).to(memory_format=torch.channels_last)
    layer = build_layer(shortcut(num_output, stride), [tuple(x.shape)])
    (y,) = layer.forward([x], {})
    assert [tuple(y.shape)] == build_layer(shortcut(num_output, stride), [tuple(x.shape)]).reshape([tuple(x.shape)])
    for h in range(y.shape[2]):
        for w in range(y.shape[3]):
            assert torch.equal(y[:, :4, h, w], x[:, :, stride * h, stride * w])
    assert not y[:, 4:].any()
    assert y.is_contiguous(memory_format=torch.channels_last), "or convolutions would reorder it"


@pytest.mark.parametrize(("num_output", "stride"), [(8, 2), (4, 1), (5, 3)])
def test_gradient(num_output: int, stride: int) -> None:
    assert check_layer(shortcut(num_output, stride), [(2, 4, 5, 6)]).passed


@pytest.mark.parametrize(
    ("num_output", "stride", "shape", "message"),
    [
        (3, 2, (2, 4, 6, 6), "num_output must be at least the bottom's 4 channels, not 3"),
        (8, 0, (2, 4, 6, 6), "stride must be at least 1"),
        (8, 2, (2, 4), "needs a bottom of 4 axes, found 2x4"),
    ],
)
def test_says_what_does_not_fit(num_output: int, stride: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_layer(shortcut(num_output, stride), [shape])
