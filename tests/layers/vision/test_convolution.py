"""Convolution."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from layer_cases import TEST, TRAIN, Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.nets.net import Net
from imae.prototxt_like.text import parse_net

Function = Callable[..., Tensor]


def convolution(settings: str, *shapes: tuple[int, ...], lr_mults: str = "", **options: object) -> Case:
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(shapes[0])]
    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    return Case(
        f'type: "Convolution" {tops} {lr_mults} convolution_param {{ {settings} }}',
        [normal(*shape) for shape in shapes],
        lambda xs, blobs: [function(x, *blobs, **options) for x in xs],
    )


def along_axis(settings: str, function: Function, *shapes: tuple[int, ...], **options: int) -> Case:
    """Channels elsewhere than at axis 1: the axes before are a batch."""
    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    spatial = 1 if function is F.conv1d else 2

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        ys = [function(x.reshape(-1, *x.shape[-spatial - 1 :]), *blobs, **options) for x in xs]
        return [y.reshape(*x.shape[: -spatial - 1], *y.shape[1:]) for x, y in zip(xs, ys, strict=True)]

    bottoms = [normal(*shape) for shape in shapes]
    return Case(f'type: "Convolution" {tops} convolution_param {{ {settings} }}', bottoms, reference)


def over_four_axes(
    settings: str,
    *shapes: tuple[int, ...],
    group: int = 1,
    stride: tuple[int, ...] = (1,) * 4,
    dilation: tuple[int, ...] = (1,) * 4,
    pad: tuple[int, ...] = (0,) * 4,
) -> Case:
    """More axes than PyTorch's convolutions have: the sum over the kernel's places of what they weigh."""

    def one(x: Tensor, blobs: list[Tensor]) -> Tensor:
        kernel = blobs[0].shape[2:]
        x = F.pad(x, [n for size in reversed(pad) for n in (size, size)])
        fitting = [
            (n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilation, kernel, stride, strict=True)
        ]
        y = 0
        for place in itertools.product(*map(range, kernel)):
            starts = [d * k for d, k in zip(dilation, place, strict=True)]
            slices = [slice(a, a + s * n, s) for a, s, n in zip(starts, stride, fitting, strict=True)]
            elements = x[:, :, *slices].unflatten(1, (group, -1))
            weight = blobs[0][:, :, *place].unflatten(0, (group, -1))
            y = y + torch.einsum("ngcabde,goc->ngoabde", elements, weight).flatten(1, 2)
        return y + blobs[1].view(-1, 1, 1, 1, 1) if len(blobs) == 2 else y

    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    text = f'type: "Convolution" {tops} convolution_param {{ {settings} }}'
    return Case(text, [normal(*shape) for shape in shapes], lambda xs, blobs: [one(x, blobs) for x in xs])


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
    convolution("num_output: 2 kernel_size: 2", (2, 3, 4, 4), (2, 3, 4, 4), (2, 3, 4, 4)),
    convolution("num_output: 2 kernel_size: 2 engine: CUDNN force_nd_im2col: true", (2, 3, 4, 4)),
    along_axis("num_output: 9 kernel_size: 2 axis: 2 group: 3", F.conv1d, (2, 2, 6, 5), groups=3),
    along_axis("num_output: 4 kernel_size: 2 axis: -3 pad: 1", F.conv2d, (2, 2, 3, 4, 5), (2, 2, 3, 4, 5), padding=1),
    along_axis("num_output: 4 kernel_size: 2 axis: 0", F.conv2d, (3, 4, 5)),
    Case(
        'type: "Convolution" convolution_param { num_output: 4 group: 2 }',
        [normal(5, 6)],
        lambda xs, blobs: [F.conv1d(xs[0][:, :, None], blobs[0][:, :, None], blobs[1], groups=2)[:, :, 0]],
    ),
    over_four_axes("num_output: 2 kernel_size: 2", (2, 3, 2, 3, 3, 2)),
    over_four_axes(
        "num_output: 4 kernel_size: 2 group: 2 dilation: 2 stride: 1 stride: 2 stride: 1 stride: 3 pad: 1",
        (2, 2, 2, 3, 1, 3),
        (2, 2, 2, 3, 1, 3),
        group=2,
        dilation=(2, 2, 2, 2),
        stride=(1, 2, 1, 3),
        pad=(1, 1, 1, 1),
    ),
    over_four_axes(
        "num_output: 2 kernel_size: 1 kernel_size: 2 kernel_size: 1 kernel_size: 2 bias_term: false axis: 1"
        " pad: 0 pad: 0 pad: 1 pad: 0",
        (1, 2, 2, 3, 2, 2),
        pad=(0, 0, 1, 0),
    ),
]


MISTAKES = [
    ('type: "Convolution" convolution_param { kernel_size: 3 }', [(1, 2, 5, 5)], "num_output is missing or 0"),
    ('type: "Convolution" convolution_param { num_output: 4 }', [(1, 2, 5, 5)], "kernel_size is missing"),
    (
        'type: "Convolution" top: "a" top: "b" convolution_param { num_output: 4 kernel_size: 3 }',
        [(1, 2, 5, 5), (2, 2, 5, 5)],
        "its bottoms differ in shape: 1x2x5x5, 2x2x5x5",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 0 }',
        [(1, 2, 5, 5)],
        "kernel, stride and dilation must be at least 1",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 dilation: 0 }',
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
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 pad: 300 }',
        [(1, 2, 5, 5, 5, 5)],
        "its padded bottom would be 2x605x605x605x605, more than",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 40 pad: 39 }',
        [(1, 2, 5, 5, 5, 5)],
        "its columns would be 5120000x44x44x44x44, more than",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 1 axis: 4 }',
        [(1, 2, 5, 5)],
        "axis 4 is out of range for a bottom of shape 1x2x5x5",
    ),
    (
        'type: "Convolution" convolution_param { num_output: 4 kernel_h: 1 kernel_w: 1 axis: 2 }',
        [(1, 2, 5, 5)],
        "give either kernel_size or kernel_h and kernel_w, not both",
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


def test_a_batch_norm_of_another_axis_than_the_channels_is_not_fused_with_the_convolution() -> None:
    """Its mean would not take the bias out."""
    net = parse_net("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
        layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param { axis: 2 num_output: 6
          kernel_size: 2 weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } } }
        layer { name: "norm" type: "BatchNorm" bottom: "y" top: "z" }
    """)
    x = Draw(1).normal(2, 3, 4, 5).float()
    for phase in (TRAIN, TEST):
        plain, fused = (Net(net, phase, plan=plan) for plan in ("plain", "fused"))
        expected, actual = plain.forward(x=x)["z"], fused.forward(x=x)["z"]
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["Convolution", "Im2col"])
@pytest.mark.parametrize(("axes", "forced"), [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0)])
def test_one_window_may_reach_past_the_padding_by_less_than_a_stride(kind: str, axes: int, forced: int) -> None:
    """Caffe divides as C does, towards 0: (4 - 5) / 2 + 1 = 1 window, over a zero where the bottom ends."""
    settings = f"num_output: 4 kernel_size: 3 dilation: 2 stride: 2 force_nd_im2col: {'true' if forced else 'false'}"
    text = f'type: "{kind}" convolution_param {{ {settings} weight_filler {{ type: "gaussian" std: 1 }} }}'
    small, whole = [2, 2, *[4] * axes], [2, 2, *[5] * axes]
    x = Draw(1).normal(*small)
    passes = []
    for shape in (small, whole):
        layer = build_layer(text, [tuple(shape)])
        for blob in layer.blobs:
            blob.data.copy_(Draw(2).normal(*blob.shape))
        bottom = torch.zeros(shape, dtype=x.dtype)
        bottom[tuple(map(slice, small))] = x
        tops, (diff,) = run(layer, [bottom])
        assert diff is not None
        passes.append([*tops, diff[tuple(map(slice, small))], *(blob.diff for blob in layer.blobs)])
    assert passes[0][0].shape[2:] == (1,) * axes
    torch.testing.assert_close(passes[0], passes[1])


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "ConvolutionDepthwise"])
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_blob_that_does_not_learn_gets_no_gradient(kind: str, frozen: int) -> None:
    """Clipping is by the norm of all gradients, which PyTorch's kernels give although they were not asked for."""
    param = "".join(f"param {{ lr_mult: {int(i != frozen)} }} " for i in range(2))
    text = f'type: "{kind}" {param} convolution_param {{ num_output: 4 kernel_size: 3 }}'
    layer = build_layer(text, [(2, 4, 5, 6)])
    run(layer, [Draw(2).normal(2, 4, 5, 6)])
    assert [bool(blob.diff.any()) for blob in layer.blobs] == [i != frozen for i in range(2)]
