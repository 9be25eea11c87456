"""Convolution."""

import pytest
import torch
import torch.nn.functional as F
from layer_cases import Case, Draw, normal, run

from imae.layers.gradient_check import build_layer


def convolution(settings: str, *shapes: tuple[int, ...], lr_mults: str = "", **options: object) -> Case:
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(shapes[0])]
    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    return Case(
        f'type: "Convolution" {tops} {lr_mults} convolution_param {{ {settings} }}',
        [normal(*shape) for shape in shapes],
        lambda xs, blobs: [function(x, *blobs, **options) for x in xs],
    )


CASES = [
    convolution("num_output: 4 kernel_size: 3", (2, 3, 5, 6)),
    convolution("num_output: 4 kernel_size: 3 bias_term: false", (2, 3, 5, 6)),
    convolution("num_output: 4 kernel_size: 1 stride: 2", (2, 3, 5, 6), stride=2),
    convolution("num_output: 6 kernel_size: 3 pad: 1 group: 2", (2, 4, 5, 4), padding=1, groups=2),
    convolution("num_output: 4 kernel_size: 3 pad: 1 group: 4", (2, 4, 5, 4), padding=1, groups=4),
    convolution(
        "num_output: 2 kernel_size: 3 pad: 2 dilation: 2 stride: 2", (2, 3, 7, 6), padding=2, dilation=2, stride=2
    ),
    convolution(
        "num_output: 2 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1",
        (2, 3, 5, 6),
        stride=(1, 2),
        padding=(0, 1),
    ),
    convolution("num_output: 2 kernel_size: 2 kernel_size: 3 dilation: 1 dilation: 2", (1, 2, 4, 7), dilation=(1, 2)),
    convolution("num_output: 3 kernel_size: 3 stride: 2 pad: 1", (2, 2, 7), stride=2, padding=1),
    convolution("num_output: 2 kernel_size: 2 pad: 1 pad: 0 pad: 1", (1, 2, 3, 4, 3), padding=(1, 0, 1)),
    convolution("num_output: 2 kernel_size: 2", (2, 3, 4, 4), (1, 3, 4, 4), (2, 3, 4, 4)),
]


MISTAKES = [
    ('type: "Convolution" convolution_param { kernel_size: 3 }', [(1, 2, 5, 5)], "num_output is missing or 0"),
    ('type: "Convolution" convolution_param { num_output: 4 }', [(1, 2, 5, 5)], "kernel_size is missing"),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 0 }',
        [(1, 2, 5, 5)],
        "kernel, stride and dilation must be at least 1",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 6 }',
        [(1, 2, 5, 5)],
        "a 6x6 kernel does not fit into the bottom of 1x2x5x5",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 group: 3 }',
        [(1, 2, 5, 5)],
        "group 3 must divide the 2 input and the 4 output channels",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 kernel_h: 3 }',
        [(1, 2, 5, 5)],
        "give either kernel_size or kernel_h and kernel_w",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 pad: 1 pad: 1 }',
        [(1, 2, 5, 5)],
        "pad must be given once or once for each of 2 spatial axes, not 3 times",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
        [(4, 5)],
        "needs N x C and 1 to 3 spatial axes",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
        [(1, 2, 5, 5)] * 2,
        "needs a top for each bottom, has 1 for 2",
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", ["stride: 32768", "stride: 2147483647", "stride: 4294967295"])
def test_a_stride_past_the_end_leaves_one_position(settings: str, dtype: torch.dtype) -> None:
    """PyTorch's kernels for float32 crash on it."""
    passes = []
    for given in (settings, "stride: 50"):
        text = f'type: "Convolution" convolution_param {{ num_output: 4 kernel_size: 3 {given} }}'
        layer = build_layer(text, [(2, 3, 5, 6)], dtype=dtype)
        layer.blobs[0].data.copy_(Draw(1).normal(4, 3, 3, 3))
        tops, diffs = run(layer, [Draw(2).normal(2, 3, 5, 6).to(dtype)])
        passes.append([*tops, *diffs, *(blob.diff for blob in layer.blobs)])
    assert passes[0][0].shape == (2, 4, 1, 1)
    torch.testing.assert_close(passes[0], passes[1])
