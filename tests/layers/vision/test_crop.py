"""Crop."""

import torch
from layer_cases import TRAIN, Case, Draw, normal

from imae.nets.net import Net
from imae.prototxt_like.text import parse_net


def crop(settings: str, shape: tuple[int, ...], like: tuple[int, ...], *slices: slice) -> Case:
    return Case(
        f'type: "Crop" crop_param {{ {settings} }}',
        [normal(*shape), normal(*like)],
        lambda xs, blobs: [xs[0][(..., *slices)]],
    )


CASES = [
    crop("", (2, 3, 5, 6), (1, 1, 3, 2), slice(0, 3), slice(0, 2)),
    crop("offset: 1", (2, 3, 5, 6), (2, 3, 3, 2), slice(1, 4), slice(1, 3)),
    crop("axis: 2 offset: 2 offset: 1", (2, 3, 5, 6), (2, 3, 3, 2), slice(2, 5), slice(1, 3)),
    crop("axis: -1 offset: 3", (2, 3, 5, 6), (1, 1, 9, 2), slice(3, 5)),
    crop("axis: 0 offset: 1 offset: 0", (3, 5), (2, 4), slice(1, 3), slice(0, 4)),
    crop("axis: 1 offset: 1", (2, 4, 5), (2, 2, 3, 7), slice(1, 3), slice(1, 4)),
]


MISTAKES = [
    ('type: "Crop"', [(1, 2, 5, 5)], "takes 2 bottom blobs, the prototxt gives 1"),
    (
        'type: "Crop" crop_param { offset: 1 offset: 2 offset: 3 }',
        [(1, 2, 5, 5), (1, 2, 2, 2)],
        "offset must be given once or once for each of 2 axes, not 3 times",
    ),
    (
        'type: "Crop" crop_param { offset: 3 }',
        [(1, 2, 5, 5), (1, 2, 2, 3)],
        "has no 3 elements from 3 on along axis 3 of 1x2x5x5",
    ),
    ('type: "Crop"', [(1, 2, 5, 5), (3, 3)], "needs the size of 4 axes, bottom 1 is 3x3"),
]


def test_the_blob_whose_size_is_taken_may_be_learned() -> None:
    """As in FCN-8s, where it is what the cropped blob is added to: no gradient goes there through the Crop."""
    net = Net(
        parse_net("""
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
            layer { name: "a" type: "Convolution" bottom: "x" top: "a"
              convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "xavier" } } }
            layer { name: "b" type: "Convolution" bottom: "x" top: "b"
              convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
            layer { name: "crop" type: "Crop" bottom: "a" bottom: "b" top: "crop" crop_param { offset: 1 } }
            layer { name: "sum" type: "Eltwise" bottom: "crop" bottom: "b" top: "sum" loss_weight: 1 }
        """),
        TRAIN,
    )
    net.forward(x=Draw(1).normal(2, 3, 6, 6).float())
    net.backward()
    torch.testing.assert_close([blob.diff for blob in net.learnable[1::2]], [torch.full((2,), 32.0)] * 2)
