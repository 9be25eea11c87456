"""Split."""

import torch
from layer_cases import Case, first_top, normal

from imae.nets.net import Net
from imae.prototxt_like.text import parse_net

CASES = [
    Case('type: "Split"', [normal(2, 3)], lambda xs, blobs: xs),
    Case('type: "Split" top: "a" top: "b"', [normal(2, 3, 2, 2)], lambda xs, blobs: xs * 2),
    Case('type: "Split" top: "a" top: "b" top: "c" top: "d"', [normal(3)], lambda xs, blobs: xs * 4),
]

MISTAKES = [
    (
        'type: "Split" bottom: "x" top: "x" top: "y"',
        [(2, 3)],
        'does not work in place: "x" is a bottom and a top of it',
    ),
]


def test_nothing_is_copied() -> None:
    x = torch.randn(2, 3)
    assert first_top('type: "Split" top: "a" top: "b"', x).data_ptr() == x.data_ptr()


def test_both_names_have_the_value() -> None:
    net = Net(parse_net("""
        input: "data" input_shape { dim: 1 dim: 2 dim: 3 dim: 3 }
        layer { name: "data_split" type: "Split" bottom: "data" top: "a" top: "b" }
        layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
    """))  # fmt: skip
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(net.forward(data=x)["sum"], 2 * x)
