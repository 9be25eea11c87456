"""Every layer's gradient agrees with finite differences and autograd, and the checker sees it when one does not."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imae.layers.activation.relu import ReLU
from imae.layers.data.data_layer import DataLayer
from imae.layers.gradient_check import backward, build_layer, check_at, check_layer, check_net
from imae.layers.layer import Diffs, Layer, Saved, Shapes, Tensors
from imae.layers.random_streams import random_uniform
from imae.layers.registry import register, registry
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, FillerParameter
from imae.prototxt_like.text import parse_net

Reference = Callable[[list[Tensor], list[Tensor]], Sequence[Tensor]]
generator = torch.Generator().manual_seed(7)
EPS = float(np.float32(1e-5))
"""The schema's numbers are float32."""


@dataclass
class Case:
    """A layer, its bottoms, and what it computes in PyTorch's own terms; one blob list for each that is not drawn."""

    text: str
    bottoms: list[Tensor]
    reference: Reference
    phase: int = TRAIN
    blobs: Sequence[Tensor] = ()
    forwards: int = 0

    @property
    def type(self) -> str:
        return self.text.split('"')[1]

    def __str__(self) -> str:
        shapes = "+".join("x".join(map(str, x.shape)) or "scalar" for x in self.bottoms)
        return f"{self.text} {shapes} {'TRAIN' if self.phase == TRAIN else 'TEST'} {self.forwards}"


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def labels(classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=generator)


# Convolution


def convolution(settings: str, *shapes: tuple[int, ...], lr_mults: str = "", **options: object) -> Case:
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(shapes[0])]
    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    return Case(
        f'type: "Convolution" {tops} {lr_mults} convolution_param {{ {settings} }}',
        [normal(*shape) for shape in shapes],
        lambda xs, blobs: [function(x, *blobs, **options) for x in xs],
    )


CONVOLUTIONS = [
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

# InnerProduct


def inner_product(settings: str, axis: int, *shape: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        weight, *bias = blobs
        x = xs[0].reshape(*xs[0].shape[:axis], -1)
        return [F.linear(x, weight.t() if "transpose: true" in settings else weight, *bias)]

    return Case(f'type: "InnerProduct" inner_product_param {{ {settings} }}', [normal(*shape)], reference)


INNER_PRODUCTS = [
    inner_product("num_output: 4", 1, 3, 5),
    inner_product("num_output: 4 bias_term: false", 1, 3, 2, 3, 2),
    inner_product("num_output: 4 transpose: true", 1, 3, 5),
    inner_product("num_output: 4 axis: 2", 2, 2, 3, 4, 2),
    inner_product("num_output: 4 axis: -1 transpose: true", 3, 2, 3, 2, 4),
    inner_product("num_output: 4 axis: 0", 0, 3, 2),
]

# Scale


def scale(
    settings: str, shape: tuple[int, ...], spread: tuple[int, ...], second: tuple[int, ...] | None = None
) -> Case:
    """`spread` is the shape in which the scale and the bias broadcast against the bottom."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        factor, *bias = [*xs[1:], *blobs]
        return [xs[0] * factor.view(spread) + (bias[0].view(spread) if bias else 0)]

    bottoms = [normal(*shape)] + ([] if second is None else [normal(*second)])
    return Case(f'type: "Scale" scale_param {{ {settings} }}', bottoms, reference)


SCALES = [
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
]

# Eltwise


def largest(xs: list[Tensor]) -> Tensor:
    """The maximum with Caffe's choice at a tie: the second of the first two bottoms, the earlier one after that."""
    y = torch.where(xs[0] > xs[1], xs[0], xs[1])
    for x in xs[2:]:
        y = torch.where(x > y, x, y)
    return y


def eltwise(settings: str, bottoms: list[Tensor], reference: Callable[[list[Tensor]], Tensor]) -> Case:
    return Case(f'type: "Eltwise" eltwise_param {{ {settings} }}', bottoms, lambda xs, blobs: [reference(xs)])


def tied(*shape: int) -> Tensor:
    """Values of which a good part meet those of another tensor of the kind."""
    return torch.randint(-9, 9, shape, generator=generator).double()


ELTWISE = [
    eltwise("", [normal(2, 3), normal(2, 3)], lambda xs: xs[0] + xs[1]),
    eltwise("coeff: 1 coeff: -1", [normal(2, 3), normal(2, 3)], lambda xs: xs[0] - xs[1]),
    eltwise(
        "coeff: 0.5 coeff: -2 coeff: 1", [normal(2, 3, 2) for _ in range(3)], lambda xs: xs[0] / 2 - 2 * xs[1] + xs[2]
    ),
    eltwise("operation: PROD", [normal(2, 3), normal(2, 3)], lambda xs: xs[0] * xs[1]),
    eltwise(
        "operation: PROD", [normal(2, 3), normal(2, 3), torch.zeros(2, 3).double()], lambda xs: xs[0] * xs[1] * xs[2]
    ),
    eltwise("operation: MAX", [normal(2, 3), normal(2, 3)], largest),
    eltwise("operation: MAX", [tied(5, 9), tied(5, 9), tied(5, 9)], largest),
]

# Pooling


def pooling(settings: str, x: Tensor, phase: int = TRAIN, forwards: int = 0, **geometry: object) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        return pooled(xs[0], **geometry, training=phase == TRAIN, forwards=forwards)  # type: ignore[arg-type]

    tops = 'top: "y" top: "index"' if geometry.get("indices") else ""
    return Case(f'type: "Pooling" {tops} pooling_param {{ {settings} }}', [x], reference, phase, forwards=forwards)


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


sparse = normal(2, 3, 7, 7).relu()
POOLINGS = [
    pooling("kernel_size: 2 stride: 2", normal(2, 3, 5, 7), stride=(2, 2)),
    pooling("kernel_size: 3 stride: 2", normal(2, 3, 6, 8), kernel=(3, 3), stride=(2, 2)),
    pooling("kernel_size: 3 stride: 2", sparse, kernel=(3, 3), stride=(2, 2)),
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

# Elementwise and normalisation


def simple(text: str, x: Tensor, reference: Callable[[Tensor], Tensor], phase: int = TRAIN, forwards: int = 0) -> Case:
    return Case(text, [x], lambda xs, blobs: [reference(xs[0])], phase, forwards=forwards)


def dropped(x: Tensor, ratio: float, forwards: int = 0) -> Tensor:
    number = torch.arange(x.numel()).view(x.shape) + forwards * x.numel()
    return x * (random_uniform(0, "Dropout", number) >= ratio) / (1 - ratio)


def batch_norm(x: Tensor) -> Tensor:
    """By the batch's statistics, written out."""
    columns = x[:, None] if x.dim() == 1 else x
    axes = [i for i in range(columns.dim()) if i != 1]
    centred = columns - columns.mean(axes, keepdim=True)
    return (centred / (centred.square().mean(axes, keepdim=True) + EPS).sqrt()).view_as(x)


def global_batch_norm(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    mean, var, weight = blobs
    shape = (1, -1, *[1] * (xs[0].dim() - 2))
    return [(xs[0] - (mean / weight).view(shape)) / ((var / weight).view(shape) + EPS).sqrt()]


SUMS = [normal(3), uniform(3) + 0.1, torch.tensor([2.5]).double()]
OTHERS = [
    simple('type: "ReLU"', normal(4, 5), lambda x: x.clamp_min(0)),
    simple('type: "ReLU" relu_param { negative_slope: 0.25 }', normal(4, 5), lambda x: F.leaky_relu(x, 0.25)),
    simple(
        'type: "Shortcut" shortcut_param { num_output: 5 stride: 2 }',
        normal(2, 3, 5, 4),
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2)),
    ),
    simple(
        'type: "Shortcut" shortcut_param { num_output: 3 stride: 3 }', normal(2, 3, 4, 4), lambda x: x[:, :, ::3, ::3]
    ),
    Case('type: "Concat"', [normal(2, 3, 4), normal(2, 1, 4), normal(2, 2, 4)], lambda xs, blobs: [torch.cat(xs, 1)]),
    Case('type: "Concat"', [normal(2, 3, 4, 2), normal(2, 1, 4, 2)], lambda xs, blobs: [torch.cat(xs, 1)]),
    Case(
        'type: "Concat" concat_param { axis: -1 }', [normal(2, 3), normal(2, 1)], lambda xs, blobs: [torch.cat(xs, 1)]
    ),
    Case('type: "Concat" concat_param { concat_dim: 0 }', [normal(2, 3)] * 2, lambda xs, blobs: [torch.cat(xs, 0)]),
    Case('type: "Concat"', [normal(2, 3)], lambda xs, blobs: [xs[0] * 1]),
    simple('type: "Softmax"', normal(3, 4), lambda x: x.softmax(1)),
    simple('type: "Softmax"', 20 * normal(2, 4, 3, 2), lambda x: x.softmax(1)),
    simple('type: "Softmax" softmax_param { axis: -1 }', normal(2, 3, 4), lambda x: x.softmax(2)),
    simple('type: "Softmax" softmax_param { axis: 0 }', normal(3, 4), lambda x: x.softmax(0)),
    simple('type: "Dropout"', normal(4, 5), lambda x: dropped(x, 0.5)),
    simple(
        'type: "Dropout" dropout_param { dropout_ratio: 0.25 }', normal(4, 5), lambda x: dropped(x, 0.25, 3), forwards=3
    ),
    simple('type: "Dropout"', normal(4, 5), lambda x: x * 1, TEST),
    simple('type: "BatchNorm"', normal(4, 3, 2, 2), batch_norm),
    simple('type: "BatchNorm"', 3 + 0.01 * normal(4, 3), batch_norm),
    simple('type: "BatchNorm"', normal(6), batch_norm),
    simple('type: "BatchNorm"', normal(2, 3, 2, 1, 2), batch_norm),
    simple('type: "BatchNorm"', normal(1, 3, 1, 1), batch_norm),
    simple('type: "BatchNorm" batch_norm_param { use_global_stats: false }', normal(4, 3), batch_norm, TEST),
    Case('type: "BatchNorm"', [normal(4, 3, 2, 2)], global_batch_norm, TEST, SUMS),
    Case(
        'type: "BatchNorm" batch_norm_param { use_global_stats: true }', [normal(4, 3)], global_batch_norm, TRAIN, SUMS
    ),
]

# Losses: a term of log p_y for each sample, and how the batch is normalised


def same_value(gradient_of: Tensor, value: Tensor) -> Tensor:
    """A number with this value, and the gradient of the other."""
    return value.detach() + gradient_of - gradient_of.detach()


def imae_term(T: float) -> Callable[[Tensor], Tensor]:
    """Equation 22: MAE, its gradient times the quotient of the weights (21) and (20), where 1 - p is 5e-7 more."""

    def term(log_p: Tensor) -> Tensor:
        p = log_p.exp()
        quotient = torch.exp(T * p * (1 - p)) / (4 * p * (1 - p + 5e-7))
        return same_value(2 * (1 - p) * quotient.detach(), 2 * (1 - p))

    return term


Q = float(np.float32(0.7))
TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    "SoftmaxWithLoss": lambda log_p: -log_p,
    "MultinomialLogisticLoss": lambda log_p: -log_p,
    "SoftmaxWithMAELoss": lambda log_p: 2 * (1 - log_p.exp()),
    "MAELoss": lambda log_p: 2 * (1 - log_p.exp()),
    "SoftmaxWithGCELoss": lambda log_p: (1 - (Q * log_p).exp()) / Q,
    "GCELoss": lambda log_p: (1 - (Q * log_p).exp()) / Q,
    "SoftmaxWithIMAELoss": imae_term(8),
}
FULL, BATCH_SIZE, NONE = "normalization: FULL", "normalization: BATCH_SIZE", "normalization: NONE"


def loss(
    kind: str,
    x: Tensor,
    y: Tensor,
    *,
    axis: int = 1,
    ignored: int | None = None,
    mode: str = "",
    settings: str = "",
    term: Callable[[Tensor], Tensor] | None = None,
    top: str = "",
    forwards: int = 0,
) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        scores = xs[0].movedim(axis, -1).reshape(-1, xs[0].shape[axis])
        log_p = scores.log_softmax(1) if kind.startswith("Softmax") else scores.log()
        counted = y.reshape(-1) != (-1 if ignored is None else ignored)
        log_p_y = log_p.gather(1, torch.where(counted, y.reshape(-1), 0)[:, None])[:, 0]
        total = (term or TERMS[kind])(log_p_y)[counted].sum()
        count = {"": max(1, int(counted.sum())), FULL: y.numel(), BATCH_SIZE: math.prod(x.shape[:axis]), NONE: 1}[mode]
        return [total / count, xs[0].softmax(axis)] if top else [total / count]

    given = "" if ignored is None else f"ignore_label: {ignored}"
    text = f'type: "{kind}" {top} loss_param {{ {given} {mode} }} softmax_param {{ axis: {axis} }} {settings}'
    return Case(text, [x, y], reference, forwards=forwards)


def scores(kind: str, *shape: int) -> Tensor:
    """Logits, or probabilities for a loss on these."""
    z = 2 * normal(*shape)
    return z if kind.startswith("Softmax") else z.softmax(1)


def truncated(log_p: Tensor) -> Tensor:
    return (1 - torch.where(log_p.exp() > 0.5, (Q * log_p).exp(), 0.5**Q)) / Q


def imae_of_probabilities(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    """The gradient that Softmax's backward turns into equation 22: w/2 log((1 - p_y) / p_y)'s, all else held fixed."""
    p, y = xs[0], labels_of_imae[:, None]
    p_y, others = p.gather(1, y), p.scatter(1, y, 0.0).sum(1, keepdim=True)
    weight = (torch.exp(8 * p_y * (1 - p_y)) * others / (others + 5e-7)).detach()
    return [same_value((weight / 2 * (others / p_y).log()).mean(), (2 * (1 - p_y)).mean())]


labels_of_imae = labels(4, 6)


def by_weights(kind: str) -> Case:
    """IMAE with its gradient over the sum of the weights, its value the mean as ever."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        p = xs[0].softmax(1) if kind.startswith("Softmax") else xs[0]
        (mean,) = imae_of_probabilities([p], blobs)
        p_y = p.gather(1, labels_of_imae[:, None])
        quotient = len(p) / torch.exp(8 * p_y * (1 - p_y)).sum()
        return [same_value(mean * quotient.detach(), mean)]

    text = f'type: "{kind}" imae_param {{ normalize_by: WEIGHTS }}'
    return Case(text, [scores(kind, 6, 4), labels_of_imae], reference)


LOSSES = [
    *(loss(kind, scores(kind, 6, 4), labels(4, 6)) for kind in TERMS),
    *(loss(kind, scores(kind, 2, 3, 2, 2), labels(3, 2, 2, 2), ignored=1) for kind in TERMS),
    *(loss(kind, scores(kind, 2, 3, 2, 2), labels(3, 2, 1, 2, 2), mode=BATCH_SIZE, ignored=2) for kind in TERMS),
    loss("SoftmaxWithLoss", normal(2, 3, 4), labels(3, 2, 4), ignored=0, mode=FULL),
    loss("SoftmaxWithLoss", normal(2, 3, 4), labels(3, 2, 4), ignored=0, mode=NONE),
    loss("SoftmaxWithLoss", normal(2, 3, 4), labels(3, 2, 4), mode=NONE),
    loss("SoftmaxWithLoss", normal(3, 4), torch.full((3,), 1), ignored=1),
    loss("SoftmaxWithLoss", normal(2, 3, 4), labels(4, 2, 3), axis=2, mode=BATCH_SIZE),
    loss("SoftmaxWithIMAELoss", normal(2, 3, 4), labels(4, 2, 3), axis=2, top='top: "loss" top: "p"'),
    loss("SoftmaxWithIMAELoss", normal(4, 3), labels(3, 4), settings="imae_param { T: 0.5 }", term=imae_term(0.5)),
    loss("SoftmaxWithIMAELoss", normal(4, 3), labels(3, 4), settings="imae_param { T: 0 }", term=imae_term(0)),
    loss("SoftmaxWithGCELoss", 2 * normal(9, 3), labels(3, 9), settings="gce_param { k: 0.5 }", term=truncated),
    loss(
        "SoftmaxWithGCELoss", 2 * normal(9, 3), labels(3, 9), settings="gce_param { k: 0.5 start_iter: 2 }", forwards=1
    ),
    loss(
        "GCELoss",
        (2 * normal(9, 3)).softmax(1),
        labels(3, 9),
        settings="gce_param { k: 0.5 start_iter: 2 }",
        term=truncated,
        forwards=2,
    ),
    by_weights("SoftmaxWithIMAELoss"),
    by_weights("IMAELoss"),
    Case('type: "IMAELoss"', [normal(6, 4).softmax(1), labels_of_imae], imae_of_probabilities),
]

CASES = [*CONVOLUTIONS, *INNER_PRODUCTS, *SCALES, *ELTWISE, *POOLINGS, *OTHERS, *LOSSES]
WITHOUT_GRADIENT = {"Input", "Accuracy"}
"""And the data layers."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_agrees_with_finite_differences(case: Case) -> None:
    report = check_layer(case.text, case.bottoms, phase=case.phase, blobs=case.blobs, forwards=case.forwards)
    assert report.passed, report
    assert report.compared >= min(64, case.bottoms[0].numel()) / 2, report


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tops_and_gradients_agree_with_autograd(case: Case) -> None:
    layer = built(case)
    xs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in case.bottoms]
    blobs = [blob.data.clone().requires_grad_() for blob in layer.blobs]
    expected = case.reference(xs, blobs)
    saved: Saved = {}
    tops = layer.forward(case.bottoms, saved)
    assert len(tops) == len(expected)
    for top, wanted in zip(tops, expected, strict=True):
        torch.testing.assert_close(top, wanted.detach())
    weights = [normal(*top.shape) for top in tops]
    bottom_diffs = backward(layer, case.bottoms, tops, weights, saved, [x.requires_grad for x in xs])
    total = sum((weights[i] * y).sum() for i, y in enumerate(expected) if i not in layer.no_gradient_from)
    total.backward()
    for x, diff in zip(xs, bottom_diffs, strict=True):
        if x.requires_grad:
            torch.testing.assert_close(diff, x.grad)
    for blob, wanted in zip(layer.blobs, blobs, strict=True):
        if blob.lr_mult:
            torch.testing.assert_close(blob.diff, wanted.grad)


# What else the contract asks of every layer


def built(case: Case) -> Layer:
    """The layer with its blobs, the learned ones drawn."""
    layer = build_layer(case.text, [x.shape for x in case.bottoms], phase=case.phase, forwards=case.forwards)
    drawn = [torch.randn(blob.shape, generator=torch.Generator().manual_seed(1)).double() for blob in layer.blobs]
    for blob, data in zip(layer.blobs, case.blobs or drawn, strict=True):
        blob.data.copy_(data)
    return layer


def passed(case: Case, layer: Layer, bottoms: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Run forward and backward; return the tops, the top diffs and the bottom diffs."""
    saved: Saved = {}
    tops = layer.forward(bottoms, saved)
    diffs = [torch.linspace(0.5, 1.5, top.numel(), dtype=top.dtype).view(top.shape) for top in tops]
    needs = [i not in layer.no_gradient_to for i in range(len(bottoms))]
    return tops, diffs, backward(layer, bottoms, tops, diffs, saved, needs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_autograd_through_forward_is_refused_with_what_to_call(case: Case) -> None:
    layer = built(case)
    bottoms = [x.clone().requires_grad_(i not in layer.no_gradient_to) for i, x in enumerate(case.bottoms)]
    saved: Saved = {}
    tops = layer.forward(bottoms, saved)
    with pytest.raises(InputError, match=rf'^layer ".*" \({case.type}\): autograd .* the layer.s backward'):
        tops[0].sum().backward()
    assert all(x.grad is None for x in bottoms)
    expected, diffs, wanted = passed(case, built(case), case.bottoms)
    for top, value in zip(tops, expected, strict=True):
        assert torch.equal(top.detach(), value)
    with torch.no_grad():
        assert not layer.forward(bottoms, {})[0].grad_fn
    actual = backward(layer, bottoms, tops, diffs, saved, [x.requires_grad for x in bottoms])
    torch.testing.assert_close([x for x in actual if x is not None], [x for x in wanted if x is not None])
    assert not any(blob.diff.requires_grad for blob in layer.blobs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_setup_announces_the_shapes_of_the_tops(case: Case) -> None:
    layer = build_layer(case.text, [x.shape for x in case.bottoms], phase=case.phase)
    announced = layer.reshape([tuple(x.shape) for x in case.bottoms])
    assert announced == [tuple(top.shape) for top in passed(case, built(case), case.bottoms)[0]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pass_changes_neither_bottoms_nor_top_diffs(case: Case) -> None:
    bottoms = [x.clone() for x in case.bottoms]
    _, diffs, _ = passed(case, built(case), bottoms)
    for before, after in zip(case.bottoms, bottoms, strict=True):
        assert torch.equal(before, after)
    for diff in diffs:
        assert torch.equal(diff, torch.linspace(0.5, 1.5, diff.numel(), dtype=diff.dtype).view(diff.shape))


@pytest.mark.parametrize("case", [case for case in CASES if built(case).blobs], ids=str)
def test_gradients_add_up_in_the_blobs_that_are_learned(case: Case) -> None:
    layer = built(case)
    passed(case, layer, case.bottoms)
    once = [blob.diff.clone() for blob in layer.blobs]
    passed(case, layer, case.bottoms)
    for blob, diff in zip(layer.blobs, once, strict=True):
        torch.testing.assert_close(blob.diff, 2 * diff)
    for fixed in range(len(layer.blobs)):
        layer = built(case)
        layer.blobs[fixed].lr_mult = 0.0
        passed(case, layer, case.bottoms)
        assert not layer.blobs[fixed].diff.any()
        for i, blob in enumerate(layer.blobs):
            assert i == fixed or torch.equal(blob.diff, once[i])


@pytest.mark.parametrize("case", [case for case in CASES if case.bottoms[0].dim() == 4], ids=str)
def test_images_may_lie_channels_last(case: Case) -> None:
    images = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in case.bottoms]
    layer, other = built(case), built(case)
    expected, actual = passed(case, layer, case.bottoms), passed(case, other, images)
    torch.testing.assert_close([t for t in actual[2] if t is not None], [t for t in expected[2] if t is not None])
    torch.testing.assert_close(actual[0], expected[0])
    torch.testing.assert_close([blob.diff for blob in other.blobs], [blob.diff for blob in layer.blobs])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lower_precision_gives_the_same_within_its_own(case: Case, dtype: torch.dtype) -> None:
    """The blobs stay float32, as a net keeps them; gradients come in the bottoms' precision."""
    rounded = [x.to(dtype) if x.is_floating_point() else x for x in case.bottoms]
    if dtype == torch.bfloat16 and (case.type == "Pooling" and "STOCHASTIC" in case.text):
        return  # another element may be drawn
    layer, exact = built(case), built(case)
    for blob, reference in zip(layer.blobs, exact.blobs, strict=True):
        blob.data, blob.diff = blob.data.float(), blob.diff.float()
        reference.data.copy_(blob.data)
    exact_bottoms = [x.double() if x.is_floating_point() else x for x in rounded]
    tops, _, diffs = passed(case, layer, rounded)
    wanted_tops, _, wanted_diffs = passed(case, exact, exact_bottoms)
    tolerance = 1e-3 if dtype == torch.float32 else 0.05

    def assert_near(actual: Tensor, wanted: Tensor) -> None:
        largest = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(actual.double(), wanted, rtol=tolerance, atol=tolerance * largest)

    for top, wanted in zip(tops, wanted_tops, strict=True):
        assert_near(top, wanted)
    for x, diff, wanted_diff in zip(rounded, diffs, wanted_diffs, strict=True):
        if wanted_diff is not None:
            assert diff is not None and diff.dtype == x.dtype
            assert_near(diff, wanted_diff)
    for blob, reference in zip(layer.blobs, exact.blobs, strict=True):
        assert blob.diff.dtype == torch.float32
        assert_near(blob.diff, reference.diff)


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


def test_no_layer_type_is_left_out() -> None:
    ours = {name: layer for name, layer in registry.items() if layer.__module__.startswith("imae.")}
    data = {name for name, layer in ours.items() if issubclass(layer, DataLayer)}
    assert {case.type for case in CASES} | WITHOUT_GRADIENT | data == set(ours)


# The checker itself


@pytest.fixture
def defective(request: pytest.FixtureRequest) -> object:
    """A ReLU whose backward the test replaces."""

    @register
    class Defective(ReLU):
        type = "Defective"

    yield Defective
    del registry["Defective"]


@pytest.mark.parametrize("factor", [1.0001, 0.0, -1.0, math.nan, math.inf])
def test_a_wrong_gradient_fails(defective: type[ReLU], factor: float) -> None:
    right = defective.backward
    defective.backward = lambda self, *args: [right(self, *args)[0] * factor]  # type: ignore[method-assign]
    report = check_layer('type: "Defective"', [(3, 4)])
    assert not report.passed
    assert report.relative > 5e-5
    assert report.worst.startswith("bottom 0 [")


def test_a_single_wrong_element_fails(defective: type[ReLU]) -> None:
    def backward(
        self: Layer, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
    ) -> Diffs:
        dx = top_diffs[0] * (tops[0] > 0)
        dx[1, 2] += 1e-3
        return [dx]

    defective.backward = backward  # type: ignore[method-assign]
    report = check_layer('type: "Defective"', [(3, 4)])
    assert not report.passed
    assert report.worst.startswith("bottom 0 [1, 2]")
    assert report.absolute == pytest.approx(1e-3, rel=1e-4)


def test_a_blob_whose_gradient_is_forgotten_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry["Scale"], "_sum", lambda self, product, like: torch.zeros_like(like))
    report = check_layer('type: "Scale"', [(2, 3)])
    assert not report.passed
    assert report.worst.startswith("blob 0 [")


def test_a_missing_or_misshapen_gradient_is_named(defective: type[ReLU]) -> None:
    defective.backward = lambda self, *args: [None]  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r'layer "Defective".*bottom 0 a gradient of 3x4, gives none'):
        check_layer('type: "Defective"', [(3, 4)])
    defective.backward = lambda self, *args: [torch.zeros(3)]  # type: ignore[method-assign]
    with pytest.raises(InputError, match="gradient of 3x4, gives 3"):
        check_layer('type: "Defective"', [(3, 4)])


def test_a_forward_that_is_not_a_function_fails(defective: type[ReLU]) -> None:
    """A layer that draws its own random numbers looks like a kink everywhere, and is not let through for that."""
    defective.forward = lambda self, bottoms, saved: [bottoms[0] * torch.rand(3, 4)]  # type: ignore[method-assign]
    defective.backward = lambda self, x, y, dy, saved, needs: [dy[0] / 2]  # type: ignore[method-assign]
    assert not check_layer('type: "Defective"', [(3, 4)]).passed


def test_a_blob_that_forward_moves_stays_where_the_check_is(defective: type[ReLU]) -> None:
    def forward(self: Layer, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        saved["factor"] = self.blobs[0].data.clone()
        self.blobs[0].data.mul_(1.1)
        return [bottoms[0] * saved["factor"]]

    def setup(self: Layer, bottoms: Shapes) -> None:
        self.add_blob((4,), FillerParameter(value=2)).lr_mult = 0.0

    defective.setup, defective.forward, defective.keeps = setup, forward, Layer.keeps  # type: ignore[method-assign]
    defective.backward = lambda self, x, y, dy, saved, needs: [dy[0] * saved["factor"]]  # type: ignore[method-assign]
    assert check_layer('type: "Defective"', [(3, 4)]).passed


def test_elements_at_a_kink_are_skipped_and_counted() -> None:
    x = torch.tensor([[0.0, 1.0, -1.0, 0.0, 1e-9, -1e-7, 2.0, 3.0]]).double()
    report = check_layer('type: "ReLU"', [x])
    assert report.passed
    assert (report.compared, report.skipped) == (6, 2)  # a smaller step reaches those beside 0, none those on it
    assert not check_layer('type: "ReLU"', [torch.zeros(2, 3)]).passed
    report = check_layer('type: "ReLU"', [torch.eye(5).double() / 5])
    assert report.passed and report.skipped == 20
    x[0] = 0
    x[0, 3] = 1
    assert check_layer('type: "ReLU"', [x]).passed
    assert not check_layer('type: "ReLU"', [torch.cat([x, torch.zeros(1, 8)])]).passed  # 1 of 16: nothing was seen


@pytest.mark.parametrize("overlap", [2, 1])
def test_ties_of_max_pooling_are_skipped(overlap: int) -> None:
    """Windows of zeros, as ReLU leaves them: the gradient goes to one of the tied elements, in several windows each."""
    report = check_layer(
        f'type: "Pooling" pooling_param {{ kernel_size: 3 stride: {overlap} }}', [(normal(2, 2, 9, 9) - 1).relu()]
    )
    assert report.passed, report
    assert report.skipped > 0


@pytest.mark.parametrize("gap", [10, 95, 105, 720, 1000, 1e4])
@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SoftmaxWithMAELoss", "SoftmaxWithIMAELoss", "SoftmaxWithGCELoss"])
def test_losses_of_logits_are_right_where_p_y_is_below_the_smallest_float(kind: str, gap: float) -> None:
    z = gap * torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 0]]).double() + normal(3, 3)
    report = check_layer(f'type: "{kind}" gce_param {{ q: 0.01 }}', [z, torch.tensor([1, 1, 2])])
    assert report.passed and report.compared == 9, report


@pytest.mark.parametrize("p_y", [0.3, 1e-25, 1e-100])
@pytest.mark.parametrize("kind", ["MultinomialLogisticLoss", "MAELoss", "IMAELoss"])
def test_losses_of_probabilities_are_right_where_p_y_is_below_their_bound(kind: str, p_y: float) -> None:
    p = torch.tensor([[p_y, 1 - p_y - 0.1, 0.1], [0.2, 0.5, 0.3]]).double()
    report = check_layer(f'type: "{kind}"', [p, torch.tensor([0, 1])])
    assert report.passed and report.compared == 6, report


def test_large_tensors_are_sampled() -> None:
    report = check_layer('type: "InnerProduct" inner_product_param { num_output: 50 }', [(30, 40)], samples=10)
    assert report.passed
    assert report.compared == 30  # 10 of the bottom, the weight and the bias each


def test_gradients_of_very_different_sizes_are_each_compared() -> None:
    """-1 / p_y for p_y down to 1e-9: the steps adapt to each element."""
    p_y = torch.tensor([1e-9, 1e-6, 1e-3, 0.5]).double()
    report = check_layer('type: "MultinomialLogisticLoss"', [torch.stack([p_y, 1 - p_y], 1), torch.zeros(4)])
    assert report.passed, report
    assert report.skipped == 0


def test_blobs_that_are_not_learned_are_left_out() -> None:
    text = 'type: "InnerProduct" param { lr_mult: 1 } param { lr_mult: 0 } inner_product_param { num_output: 2 }'
    assert check_layer(text, [(3, 4)]).compared == 3 * 4 + 2 * 4


def test_checking_a_layer_leaves_it_as_it_was() -> None:
    layer = build_layer('type: "BatchNorm"', [(4, 3)], dtype=torch.float32)
    layer.blobs[0].data.fill_(2.0)
    before = [(blob.data, blob.data.clone(), blob.diff) for blob in layer.blobs]
    x = torch.randn(4, 3)
    kept = x.clone()
    assert check_at(layer, [x]).passed
    assert torch.equal(x, kept)
    for blob, (data, values, diff) in zip(layer.blobs, before, strict=True):
        assert blob.data is data and blob.diff is diff and torch.equal(data, values) and not diff.any()


NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 6 dim: 2 dim: 6 dim: 6 } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 3 kernel_size: 3
  weight_filler { type: "msra" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithIMAELoss" bottom: "fc" bottom: "y" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "y" top: "accuracy" }
"""


def test_every_layer_of_a_net_is_checked_where_the_net_runs() -> None:
    reports = check_net(Net(parse_net(NET), TRAIN))
    assert [report.name for report in reports] == ["conv", "norm", "scale", "relu", "pool", "drop", "fc", "loss"]
    assert all(report.passed for report in reports), [report for report in reports if not report.passed]


def test_a_wrong_gradient_in_a_net_is_pinned_to_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(parse_net(NET), TRAIN)
    scale = net.steps[4].layer
    right = scale.backward
    monkeypatch.setattr(scale, "backward", lambda *passed: [right(*passed)[0] * 1.01])
    assert [report.name for report in check_net(net) if not report.passed] == ["scale"]


def test_checking_a_net_leaves_it_as_it_was() -> None:
    net = Net(parse_net(NET), TRAIN, dtype=torch.float32)
    x, y = torch.randn(6, 2, 6, 6), torch.arange(6) % 4
    data = net.storage.data.clone()
    check_net(net, {"x": x, "y": y.numpy()})
    assert net.context.forwards == 0
    assert torch.equal(net.storage.data, data) and not net.storage.diff.any()
    assert all(blob.data.dtype == torch.float32 for blob in net.learnable)
    first = net.forward(x=x, y=y)
    assert torch.equal(first["loss"], Net(parse_net(NET), TRAIN).forward(x=x, y=y)["loss"])


def test_a_net_is_checked_on_the_values_of_its_data_layer() -> None:
    text = """
    layer { name: "digits" type: "DigitsData" top: "x" top: "y" digits_data_param { batch_size: 8 } }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 10
      weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithGCELoss" bottom: "fc" bottom: "y" top: "loss" }
    """
    reports = check_net(Net(parse_net(text), TRAIN))
    assert [(report.type, report.passed) for report in reports] == [
        ("InnerProduct", True),
        ("SoftmaxWithGCELoss", True),
    ]


def test_labels_are_floats_to_the_layers_of_a_net_that_is_checked() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "y" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
    layer { name: "half" type: "Scale" bottom: "y" top: "half" scale_param { axis: 0 num_axes: 0
      filler { type: "constant" value: 0.5 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "loss" }
    """
    inputs = {"x": np.arange(12).reshape(4, 3)[::-1], "y": np.array([0, 1, 2, 0])}
    for given_inputs in (inputs, {}):
        reports = check_net(Net(parse_net(text), TRAIN), given_inputs)
        assert [(report.name, report.passed) for report in reports] == [("half", True), ("loss", True)]


def test_a_users_layer_declares_what_its_gradient_holds_fixed() -> None:
    """`surrogate`: here a straight-through rounding, whose backward is the identity's."""

    class Rounding(Layer):
        type = "Rounding"

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            saved["error"] = bottoms[0].round() - bottoms[0]
            return [bottoms[0].round()]

        def surrogate(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            return [bottoms[0] + saved["error"]]

        def backward(
            self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
        ) -> Diffs:
            return [top_diffs[0]]

    register(Rounding)
    try:
        assert check_layer('type: "Rounding"', [(3, 4)]).passed
        del Rounding.surrogate
        assert not check_layer('type: "Rounding"', [(3, 4)]).passed
    finally:
        del registry["Rounding"]
