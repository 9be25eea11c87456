"""Parameter."""

import torch
from layer_cases import Case

from imae.layers.gradient_check import build_layer
from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net

CASES = [
    Case('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', [], lambda xs, blobs: blobs),
    Case('type: "Parameter"', [], lambda xs, blobs: blobs),
]

MISTAKES = [
    ('type: "Parameter" parameter_param { shape { dim: 2 dim: 0 } }', [], "the shape 2x0, with a size below 1"),
    ('type: "Parameter" parameter_param { shape { dim: 65536 dim: 65536 } }', [], "more than the 2147483647 numbers"),
    ('type: "Parameter"', [(2,)], "takes 0 bottom blobs, the prototxt gives 1"),
]


def test_a_parameter_is_learned_as_a_bottom_of_another_layer() -> None:
    net = Net(
        parse_net("""
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
            layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } }
            layer { name: "y" type: "Eltwise" bottom: "x" bottom: "w" top: "y" eltwise_param { coeff: 1 coeff: -2 } }
            layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 0.5
              reduction_param { operation: SUMSQ } }
        """),
        TRAIN,
    )  # fmt: skip
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    (blob,) = net.params["w"]
    assert not blob.data.any()
    for _ in range(3):
        net.clear_diffs()
        net.forward(x=x)
        net.backward()
        torch.testing.assert_close(blob.diff, -2 * (x - 2 * blob.data))
        blob.data -= 0.25 * blob.diff
    assert net.forward(x=x)["loss"] < 1e-6


def test_the_gradients_of_several_passes_add_up() -> None:
    layer = build_layer('type: "Parameter" parameter_param { shape { dim: 2 } }', [])
    for dy in ([1.0, 2.0], [3.0, 4.0]):
        layer.backward([], layer.forward([], {}), [torch.tensor(dy, dtype=torch.float64)], {}, [])
    assert layer.blobs[0].diff.tolist() == [4, 6]
