"""Threshold."""

import torch
from layer_cases import Case, first_top, normal

from imae.nets.net import Net
from imae.prototxt_like.text import parse_net


def threshold(settings: str, bound: float) -> Case:
    return Case(
        f'type: "Threshold" threshold_param {{ {settings} }}',
        [normal(4, 5)],
        lambda xs, blobs: [(xs[0] > bound).double()],
    )


CASES = [threshold("", 0), threshold("threshold: 0.5", 0.5)]


def test_the_threshold_itself_is_not_above_it() -> None:
    x = torch.tensor([-1.0, 0.5, 0.75])
    assert first_top('type: "Threshold" threshold_param { threshold: 0.5 }', x).tolist() == [0, 0, 1]


def test_what_is_learned_before_a_threshold_gets_no_gradient_through_it() -> None:
    net = Net(parse_net("""
        layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
        layer { name: "bias" type: "Bias" bottom: "x" top: "a" }
        layer { name: "above" type: "Threshold" bottom: "a" top: "b" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "t" top: "loss" }
    """))  # fmt: skip
    net.forward(x=torch.randn(2, 3), t=torch.tensor([0, 2]))
    net.backward()
    assert not net.steps[1].layer.blobs[0].diff.any()
