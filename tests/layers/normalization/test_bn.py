"""BN, as SegNet's Caffe and as PSPNet's and that of temporal segment networks has it."""

import pytest
import torch
from layer_cases import TEST, TRAIN, Case, Draw, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer


def normalised(xs: list[Tensor], blobs: list[Tensor], eps: float, *, by_batch: bool = True) -> list[Tensor]:
    """Channel by channel, the mean square less the squared mean."""
    channels = []
    for c, x in enumerate(xs[0].unbind(1)):
        mean, var = (x.mean(), (x * x).mean() - x.mean() ** 2) if by_batch else (b.flatten()[c] for b in blobs[2:])
        channels.append(blobs[0].flatten()[c] * (x - mean) / (var + eps).sqrt() + blobs[1].flatten()[c])
    return [torch.stack(channels, 1)]


def scaled(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    return [xs[0] * blobs[0].view(-1, 1, 1) + blobs[1].view(-1, 1, 1)]


def averages(draw: Draw) -> list[Tensor]:
    return [draw.normal(1, 3), draw.normal(1, 3), draw.normal(1, 3), draw.uniform(1, 3) + 0.1]


SEGNET = 'type: "BN" bn_param { scale_filler { value: 1 } shift_filler { value: 0 } }'
INFERENCE = 'type: "BN" bn_param { bn_mode: INFERENCE }'
OTHER = 'type: "BN" bn_param { slope_filler { value: 1 } eps: 0.001953125 engine: CAFFE }'
FROZEN = 'type: "BN" bn_param { frozen: true eps: 0.001953125 }'
EPS = 0.001953125
CASES = [
    Case(SEGNET, [normal(2, 3, 4, 2)], lambda xs, blobs: normalised(xs, blobs, 1e-9)),
    Case(SEGNET, [normal(2, 3, 4, 2)], lambda xs, blobs: normalised(xs, blobs, 1e-9), TEST),
    Case(INFERENCE, [normal(2, 3, 4, 2)], scaled),
    Case(INFERENCE, [normal(2, 3, 4, 2)], scaled, TEST),
    Case(OTHER, [normal(5, 3)], lambda xs, blobs: normalised(xs, blobs, EPS), blobs=averages),
    Case(
        OTHER, [normal(2, 3, 2, 2)], lambda xs, blobs: normalised(xs, blobs, EPS, by_batch=False), TEST, blobs=averages
    ),
    Case(FROZEN, [normal(2, 3, 2, 2)], lambda xs, blobs: normalised(xs, blobs, EPS, by_batch=False), blobs=averages),
]
MISTAKES = [
    (SEGNET, [(3,)], "needs channels, found a bottom of 3"),
    ('type: "BN" bn_param { frozen: true bn_mode: LEARN }', [(2, 3)], "bn_mode is of SegNet's, frozen of PSPNet's"),
]


def test_moving_averages_take_the_variance_over_all_samples() -> None:
    layer = build_layer(
        'type: "BN" bn_param { slope_filler { value: 1 } momentum: 0.75 }', [(4, 1)], dtype=torch.float64
    )
    layer.forward([torch.tensor([[1.0], [3], [1], [3]]).double()], {})
    assert [blob.data.item() for blob in layer.blobs] == pytest.approx([1, 0, 0.25 * 2, 0.25 * 1])
    layer.forward([torch.full((4, 1), 8.0).double()], {})
    assert [blob.data.item() for blob in layer.blobs[2:]] == pytest.approx([0.375 + 2, 0.1875])


@pytest.mark.parametrize(
    ("text", "shapes", "rates"),
    [
        (SEGNET, [(1, 3, 1, 1)] * 2, [1, 1]),
        (OTHER, [(1, 3)] * 4, [1, 1, 0, 0]),
        (FROZEN, [(1, 3)] * 4, [0, 0, 0, 0]),
    ],
)
def test_blobs_are_the_forks(text: str, shapes: list[tuple[int, ...]], rates: list[float]) -> None:
    layer = build_layer(text, [(2, 3, 4, 4)], phase=TRAIN)
    assert [tuple(blob.shape) for blob in layer.blobs] == shapes
    assert [blob.lr_mult for blob in layer.blobs] == rates
    if text == FROZEN:
        assert (layer.blobs[3].data == 1).all()
