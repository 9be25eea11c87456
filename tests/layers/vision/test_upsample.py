"""Upsample, as SegNet's Caffe has it, and as YOLO's."""

import pytest
import torch
from layer_cases import Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import TRAIN
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

SHAPE = (2, 3, 2, 3)


def mask(height: int, width: int) -> object:
    """Different positions in each plane."""

    def draw(draw: Draw) -> Tensor:
        planes = [torch.randperm(height * width, generator=draw.generator)[:6] for _ in range(6)]
        return torch.stack(planes).view(SHAPE)

    return draw


def upsample(settings: str, height: int, width: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        y = torch.zeros(2, 3, height * width, dtype=xs[0].dtype)
        return [y.scatter(2, xs[1].flatten(2).long(), xs[0].flatten(2)).view(2, 3, height, width)]

    text = f'type: "Upsample" upsample_param {{ {settings} }}'
    return Case(text, [normal(*SHAPE), mask(height, width)], reference)  # type: ignore[list-item]


def repeated(settings: str, height: int, width: int) -> Case:
    return Case(
        f'type: "Upsample" upsample_param {{ {settings} }}',
        [normal(*SHAPE)],
        lambda xs, blobs: [xs[0].repeat_interleave(height, 2).repeat_interleave(width, 3)],
    )


CASES = [
    upsample("", 4, 6),
    upsample("pad_out_h: true", 3, 6),
    upsample("scale_h: 3 scale_w: 2 pad_out_w: true", 6, 5),
    upsample("upsample_h: 5 upsample_w: 7", 5, 7),
    repeated("scale: 2", 2, 2),
    repeated("scale_h: 1 scale_w: 3", 1, 3),
]
MISTAKES = [
    ('type: "Upsample" upsample_param { upsample_h: 4 }', [SHAPE, SHAPE], "upsample_h and upsample_w are given togeth"),
    ('type: "Upsample" upsample_param { scale_w: 4 }', [SHAPE], "scale_h and scale_w are given together"),
    ('type: "Upsample" upsample_param { pad_out_h: true }', [SHAPE], "without a mask takes scale"),
    ('type: "Upsample" upsample_param { scale: 0 }', [SHAPE], "scale must be at least 1"),
    ('type: "Upsample"', [SHAPE, (2, 3, 2, 2)], "needs bottoms of 4 axes alike, found 2x3x2x3 and 2x3x2x2"),
    ('type: "Upsample" upsample_param { upsample_h: 0 upsample_w: 3 }', [SHAPE, SHAPE], "makes 2x3x0x3 of 2x3x2x3"),
]


def test_it_undoes_a_pooling_but_for_what_was_not_largest() -> None:
    net = Net(
        parse_net("""
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 6 } } }
            layer { name: "pool" type: "Pooling" bottom: "x" top: "p" top: "mask"
              pooling_param { kernel_size: 2 stride: 2 } }
            layer { name: "up" type: "Upsample" bottom: "p" bottom: "mask" top: "y" }
        """),
        TRAIN,
    )
    x = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    y = net.forward(x=x)["y"]
    assert torch.equal(y[y != 0], x[y != 0]) and int((y != 0).sum()) == 2 * 2 * 3


def test_a_mask_of_a_larger_plane_is_refused() -> None:
    layer = build_layer('name: "up" type: "Upsample"', [(1, 1, 1, 1)] * 2)
    with pytest.raises(InputError, match=r'^layer "up" \(Upsample\): mask 4 is out of range: .* 4 positions, 0 to 3$'):
        run(layer, [torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0)])
