"""Filter."""

from collections.abc import Callable

import pytest
import torch
from layer_cases import Case, Draw, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.nets.net import Net
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net


def selector(*values: float) -> Callable[[Draw], Tensor]:
    return lambda draw: torch.tensor(values, dtype=torch.float64)


def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    return [x[xs[-1].flatten() != 0] for x in xs[:-1]]


CASES = [
    Case('type: "Filter" bottom: "x" bottom: "s"', [normal(5, 3), selector(1, 0, -0.5, 0, 2)], reference),
    Case(
        'type: "Filter" top: "a" top: "b"',
        [normal(3, 2, 2), normal(3), lambda draw: torch.tensor([[[0.0]], [[1.0]], [[1.0]]], dtype=torch.float64)],
        reference,
    ),
    Case('type: "Filter"', [normal(2, 3, 2, 2), selector(1, 1)], reference),
]

MISTAKES = [
    ('type: "Filter"', [(3, 2), (3, 2)], "its selector is 3x2; expected one value for each item"),
    ('type: "Filter"', [(3, 2), ()], "its selector is scalar; expected one value for each item"),
    ('type: "Filter"', [(3, 2), (4,)], "a bottom of 3x2 has not the 4 items of its selector"),
    ('type: "Filter"', [(), (4,)], "a bottom of scalar has not the 4 items of its selector"),
    ('type: "Filter"', [(3, 2), (3, 1), (3,)], "needs a top for each of its 3 bottoms but the last"),
    ('type: "Filter"', [(3, 2)], "takes 2 or more bottom blobs, the prototxt gives 1"),
]


def test_where_nothing_is_chosen_the_tops_are_empty_and_the_gradient_is_zero() -> None:
    layer = build_layer('type: "Filter"', [(3, 2), (3,)])
    tops, diffs = run(layer, [torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)])
    assert tops[0].shape == (0, 2) and diffs[0] is not None and torch.equal(diffs[0], torch.zeros_like(diffs[0]))


NET = """
name: "filtering" force_backward: true
layer { name: "x" type: "Input" top: "x" top: "label" top: "keep"
  input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } shape { dim: 4 dim: 1 } } }
layer { name: "filter" type: "Filter" bottom: "x" bottom: "label" bottom: "keep" top: "kept" top: "kept_label" }
layer { name: "ip" type: "InnerProduct" bottom: "kept" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "kept_label" top: "loss" }
"""


@pytest.mark.parametrize("plan", ["plain", "fused"])
def test_a_net_takes_what_is_left_as_its_batch(plan: str) -> None:
    net, other = (Net(parse_net(NET), TRAIN, plan=plan, seed=1) for _ in range(2))
    assert net.shape("kept") == (4, 3) and net.shape("ip") == (4, 2)  # before a pass tells, all
    x, label = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    for keep in ([0, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]):
        chosen = torch.tensor(keep) > 0
        net.forward(x=x, label=label, keep=torch.tensor(keep)[:, None])
        net.backward()
        for _ in range(2):
            assert torch.equal(net.blobs["kept"], x[chosen])
        count = int(chosen.sum())
        assert (net.shape("kept"), net.shape("kept_label"), net.shape("ip")) == ((count, 3), (count,), (count, 2))
        other.forward(x=x[chosen], label=label[chosen], keep=torch.ones(count, 1))
        other.backward()
        assert torch.equal(net.loss, other.loss) and torch.equal(net.diffs["x"][chosen], other.diffs["x"])
        assert not net.diffs["x"][~chosen].any()


def test_a_net_that_was_filtered_is_reshaped_as_one_that_was_not() -> None:
    net = Net(parse_net(NET), TRAIN)
    net.forward(x=torch.ones(4, 3), label=torch.zeros(4), keep=torch.tensor([[1], [0], [0], [0]]))
    net.reshape(x=(6, 3), label=(6,), keep=(6, 1))
    assert net.shape("kept") == (6, 3) and net.shape("ip") == (6, 2)
