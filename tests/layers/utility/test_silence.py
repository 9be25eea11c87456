"""Silence."""

import pytest
import torch
from layer_cases import Case, normal

from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net

CASES = [
    Case('type: "Silence"', [normal(2, 3)], lambda xs, blobs: []),
    Case('type: "Silence"', [normal(2, 3, 2, 2), normal()], lambda xs, blobs: []),
]

MISTAKES = [
    ('type: "Silence"', [], "takes 1 or more bottom blobs, the prototxt gives 0"),
    ('type: "Silence" top: "y"', [(2,)], "takes 0 top blobs, the prototxt gives 1"),
]


@pytest.mark.parametrize("forced", ["", "force_backward: true"])
def test_what_is_silenced_is_no_output_and_gets_no_gradient(forced: str) -> None:
    net = Net(
        parse_net(f"""
            {forced}
            layer {{ name: "x" type: "Input" top: "x" top: "unused" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
            layer {{ name: "both" type: "Split" bottom: "x" top: "a" top: "b" }}
            layer {{ name: "sum" type: "Reduction" bottom: "a" top: "sum" loss_weight: 1 }}
            layer {{ name: "quiet" type: "Silence" bottom: "b" bottom: "unused" }}
        """),
        TRAIN,
    )  # fmt: skip
    x = torch.ones(2, 3)
    assert list(net.forward(x=x, unused=x)) == ["sum"]
    net.backward()
    assert (net.diffs["x"] == (1.0 if forced else 0.0)).all() and not net.diffs["unused"].any()
