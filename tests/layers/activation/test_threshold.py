"""Threshold."""

import pytest
import torch
from layer_cases import Case, first_top, normal

from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
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


def test_a_gradient_through_a_threshold_is_refused_in_a_line() -> None:
    """Caffe aborts; with `propagate_down: false` what stands before it is taken as given, in both."""
    text = """
        layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
        layer { name: "bias" type: "Bias" bottom: "x" top: "a" }
        layer { name: "above" type: "Threshold" bottom: "a" top: "b" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "t" top: "loss" }
    """
    net = Net(parse_net(text))
    net.forward(x=torch.randn(2, 3), t=torch.tensor([0, 2]))
    with pytest.raises(InputError, match=r'layer "above" \(Threshold\)'):
        net.backward()
    net = Net(parse_net(text.replace('top: "b"', 'top: "b" propagate_down: false')))
    net.forward(x=torch.randn(2, 3), t=torch.tensor([0, 2]))
    net.backward()
    assert not net.steps[1].layer.blobs[0].diff.any()
