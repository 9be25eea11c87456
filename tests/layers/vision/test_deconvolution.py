"""Deconvolution."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from layer_cases import Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer


def deconvolution(settings: str, *shapes: tuple[int, ...], **options: object) -> Case:
    function = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[len(shapes[0])]
    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    return Case(
        f'type: "Deconvolution" {tops} convolution_param {{ {settings} }}',
        [normal(*shape) for shape in shapes],
        lambda xs, blobs: [function(x, *blobs, **options) for x in xs],
    )


def along_axis(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    """Channels at axis 2 of four."""
    y = F.conv_transpose1d(xs[0].flatten(0, 1), *blobs, stride=2)
    return [y.unflatten(0, xs[0].shape[:2])]


def over_four_axes(
    settings: str, shape: tuple[int, ...], group: int = 1, stride: int = 1, dilation: int = 1, pad: int = 0
) -> Case:
    """More axes than PyTorch's convolutions have: what each place of the kernel adds, where it adds it."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        x, kernel = xs[0], blobs[0].shape[2:]
        x = x.unflatten(1, (group, -1))
        weight = blobs[0].unflatten(0, (group, -1))
        sizes = [stride * (n - 1) + dilation * (k - 1) + 1 for n, k in zip(shape[2:], kernel, strict=True)]
        y = x.new_zeros(len(x), group, weight.shape[2], *sizes)
        for place in itertools.product(*map(range, kernel)):
            slices = [
                slice(dilation * k, dilation * k + stride * (n - 1) + 1, stride)
                for k, n in zip(place, shape[2:], strict=True)
            ]
            y[:, :, :, *slices] += torch.einsum("ngcabde,gco->ngoabde", x, weight[:, :, :, *place])
        y = y.flatten(1, 2)[:, :, *[slice(pad, size - pad) for size in sizes]]
        return [y + blobs[1].view(-1, 1, 1, 1, 1)]

    return Case(f'type: "Deconvolution" convolution_param {{ {settings} }}', [normal(*shape)], reference)


CASES = [
    deconvolution("num_output: 4 kernel_size: 3", (2, 3, 4, 3)),
    deconvolution("num_output: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false", (2, 2, 3, 4), stride=2, padding=1),
    deconvolution("num_output: 6 kernel_size: 3 stride: 2 group: 2", (2, 4, 3, 3), stride=2, groups=2),
    deconvolution("num_output: 2 kernel_size: 1 pad: 1 stride: 2", (2, 2, 4, 5), padding=1, stride=2),
    deconvolution(
        "num_output: 2 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 0 pad_w: 1 dilation: 2 dilation: 1",
        (1, 3, 4, 3),
        stride=(1, 3),
        padding=(0, 1),
        dilation=(2, 1),
    ),
    deconvolution("num_output: 3 kernel_size: 3 stride: 2 dilation: 2", (2, 2, 5), stride=2, dilation=2),
    deconvolution("num_output: 2 kernel_size: 2 stride: 2 group: 2", (1, 2, 3, 2, 3), stride=2, groups=2),
    deconvolution("num_output: 2 kernel_size: 2 engine: CAFFE", (2, 3, 3, 3), (2, 3, 3, 3)),
    Case(
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 axis: 2 }',
        [normal(2, 2, 3, 4)],
        along_axis,
    ),
    Case(
        'type: "Deconvolution" convolution_param { num_output: 4 bias_term: false }',
        [normal(5, 3)],
        lambda xs, blobs: [xs[0] @ blobs[0]],
    ),
    over_four_axes("num_output: 2 kernel_size: 2", (2, 3, 2, 1, 2, 2)),
    over_four_axes(
        "num_output: 2 kernel_size: 3 group: 2 dilation: 2 stride: 3 pad: 1",
        (1, 4, 1, 2, 1, 2),
        group=2,
        dilation=2,
        stride=3,
        pad=1,
    ),
]


MISTAKES = [
    ('type: "Deconvolution" convolution_param { kernel_size: 3 }', [(1, 2, 5, 5)], "num_output is missing or 0"),
    (
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 pad: 5 }',
        [(1, 2, 5, 5)],
        "a 3x3 kernel does not fit into the bottom of 1x2x5x5",
    ),
    (
        'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 3 group: 2 }',
        [(1, 2, 5, 5)],
        "group 2 must divide the 2 input and the 3 output channels",
    ),
]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_with_the_bilinear_filler_it_interpolates(factor: int) -> None:
    """As FCN's upsampling does: a plane stays one, but for the border."""
    kernel, pad = 2 * factor - factor % 2, -(-(factor - 1) // 2)
    text = (
        f'type: "Deconvolution" convolution_param {{ num_output: 2 group: 2 kernel_size: {kernel} stride: {factor} '
        f'pad: {pad} bias_term: false weight_filler {{ type: "bilinear" }} }}'
    )
    x = (torch.arange(6.0)[:, None] * 3 + torch.arange(5.0)).expand(1, 2, 6, 5).double()
    (y,) = build_layer(text, [x.shape]).forward([x], {})
    assert y.shape == (1, 2, 6 * factor, 5 * factor)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(y[inside], expected[inside])


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    axes=st.integers(1, 3),
    group=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 3),
    dilation=st.integers(1, 2),
)
def test_it_is_the_adjoint_of_the_convolution_by_its_weight(
    axes: int, group: int, kernel: int, stride: int, pad: int, dilation: int
) -> None:
    """<y, Deconvolution(x)> = <Convolution(y), x>, and each one's gradient is the other, wherever both fit."""
    settings = f"group: {group} kernel_size: {kernel} stride: {stride} pad: {pad} dilation: {dilation} bias_term: false"
    x = Draw(1).normal(2, 2 * group, *[4] * axes)
    size = stride * 3 + dilation * (kernel - 1) + 1 - 2 * pad
    if size < 1:
        return
    y = Draw(2).normal(2, 3 * group, *[size] * axes)
    down = build_layer(f'type: "Convolution" convolution_param {{ num_output: {2 * group} {settings} }}', [y.shape])
    up = build_layer(f'type: "Deconvolution" convolution_param {{ num_output: {3 * group} {settings} }}', [x.shape])
    assert up.blobs[0].shape == down.blobs[0].shape
    for layer in (down, up):
        layer.blobs[0].data.copy_(Draw(3).normal(*layer.blobs[0].shape))
    (upwards,), (by_x,) = run(up, [x], [y])
    (downwards,), (by_y,) = run(down, [y], [x])
    torch.testing.assert_close([upwards, downwards], [by_y, by_x])
    torch.testing.assert_close((y * upwards).sum(), (x * downwards).sum())
    torch.testing.assert_close(up.blobs[0].diff, down.blobs[0].diff)
