"""Im2col."""

from itertools import product

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from layer_cases import Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer


def columns(x: Tensor, kernel: list[int], stride: list[int], pad: list[int], dilation: list[int]) -> Tensor:
    """The elements of all windows, one place in the window after the other; x: N x C x spatial."""
    x = F.pad(x, [p for along in reversed(pad) for p in (along, along)])
    taps = []
    for place in product(*map(range, kernel)):
        slices = [
            slice(at * d, size - d * (k - 1 - at), s)
            for at, d, k, s, size in zip(place, dilation, kernel, stride, x.shape[2:], strict=True)
        ]
        taps.append(x[(slice(None), slice(None), *slices)])
    return torch.stack(taps, 2).flatten(1, 2)


def im2col(settings: str, *shape: int, axis: int = 1, **geometry: list[int]) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        (x,) = xs
        axes = x.dim() - axis - 1
        given = {"kernel": [3] * axes, "stride": [1] * axes, "pad": [0] * axes, "dilation": [1] * axes} | geometry
        y = columns(x.reshape(-1, *x.shape[axis:]), **given)
        return [y.reshape(*x.shape[:axis], *y.shape[1:])]

    return Case(f'type: "Im2col" convolution_param {{ {settings} }}', [normal(*shape)], reference)


CASES = [
    im2col("kernel_size: 3", 2, 3, 5, 6),
    im2col("kernel_size: 3 stride: 2 pad: 1", 2, 2, 5, 6, stride=[2, 2], pad=[1, 1]),
    im2col("kernel_size: 2 dilation: 2 pad: 3", 2, 2, 5, 4, kernel=[2, 2], dilation=[2, 2], pad=[3, 3]),
    im2col("kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2", 2, 2, 4, 5, kernel=[2, 3], stride=[1, 2]),
    im2col("kernel_size: 3 pad: 1 force_nd_im2col: true", 1, 2, 4, 3, pad=[1, 1]),
    im2col("kernel_size: 3 stride: 2 pad: 1 dilation: 2", 2, 2, 9, stride=[2], pad=[1], dilation=[2]),
    im2col("kernel_size: 2 kernel_size: 1 kernel_size: 3 pad: 1", 1, 2, 3, 2, 4, kernel=[2, 1, 3], pad=[1, 1, 1]),
    im2col("kernel_size: 2 stride: 2", 1, 2, 3, 2, 3, 2, kernel=[2] * 4, stride=[2] * 4),
    im2col("kernel_size: 2 axis: -2", 2, 3, 2, 5, axis=2, kernel=[2]),
    im2col("kernel_size: 2 axis: 0", 3, 4, 5, axis=0, kernel=[2, 2]),
]


MISTAKES = [
    ('type: "Im2col"', [(1, 2, 5, 5)], "kernel_size is missing"),
    ('type: "Im2col" convolution_param { kernel_size: 2 }', [(2, 3)], "needs at least 1 spatial axis"),
    (
        'type: "Im2col" convolution_param { kernel_size: 6 }',
        [(1, 2, 5, 5)],
        "a 6x6 kernel does not fit into the bottom of 1x2x5x5",
    ),
    (
        'type: "Im2col" convolution_param { kernel_size: 2 stride: 0 }',
        [(1, 2, 5, 5)],
        "kernel, stride and dilation must be at least 1",
    ),
]


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_any_windows_over_any_number_of_axes_are_caffes(data: st.DataObject, axes: int) -> None:
    def numbers(low: int, high: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))

    sizes, kernel, stride, pad, dilation = numbers(1, 5), numbers(1, 3), numbers(1, 3), numbers(0, 2), numbers(1, 2)
    if any(size + 2 * p < d * (k - 1) + 1 for size, k, p, d in zip(sizes, kernel, pad, dilation, strict=True)):
        return
    fields = {"kernel_size": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    text = " ".join(f"{name}: {value}" for name, values in fields.items() for value in values)
    x = Draw(1).normal(2, 2, *sizes).requires_grad_()
    expected = columns(x, kernel, stride, pad, dilation)
    layer = build_layer(f'type: "Im2col" convolution_param {{ {text} }}', [x.shape])
    assert layer.reshape([tuple(x.shape)]) == [tuple(expected.shape)]
    dy = Draw(2).normal(*expected.shape)
    (y,), (dx,) = run(layer, [x.detach()], [dy])
    expected.backward(dy)
    assert torch.equal(y, expected)
    torch.testing.assert_close(dx, x.grad)


def test_a_convolution_is_the_product_of_its_weight_with_the_columns() -> None:
    settings = "kernel_size: 3 stride: 2 pad: 1 dilation: 2"
    x = Draw(1).normal(2, 3, 7, 6)
    convolution = build_layer(
        f'type: "Convolution" convolution_param {{ num_output: 4 bias_term: false {settings} }}', [x.shape]
    )
    convolution.blobs[0].data.copy_(Draw(2).normal(4, 3, 3, 3))
    (y,) = convolution.forward([x], {})
    (cols,) = build_layer(f'type: "Im2col" convolution_param {{ {settings} }}', [x.shape]).forward([x], {})
    torch.testing.assert_close(torch.einsum("ok,nkhw->nohw", convolution.blobs[0].data.flatten(1), cols), y)
