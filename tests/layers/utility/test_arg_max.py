"""ArgMax."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import Case, Draw, first_top, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import parse_net


def ties(*shape: int) -> Callable[[Draw], Tensor]:
    """Few different values, so that most are equal to others."""
    return lambda draw: draw.integers(-1, 2, *shape).double()


def in_caffes_order(x: Tensor, axis: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Values and indices, by sorting pairs of both."""
    rows = x.detach().movedim(axis, -1)
    pairs = [
        sorted(((value, i) for i, value in enumerate(row)), reverse=True)[:top_k]
        for row in rows.reshape(-1, rows.shape[-1]).tolist()
    ]
    both = torch.tensor(pairs, dtype=x.dtype).view(*rows.shape[:-1], top_k, 2).movedim(-2, axis)
    return both[..., 0], both[..., 1]


def arg_max(settings: str, bottom: Callable[[Draw], Tensor], axis: int | None, top_k: int = 1) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        x = xs[0]
        if axis is not None:
            values, index = in_caffes_order(x, axis % x.dim(), top_k)
            return [values if "out_max_val" in settings else index]
        values, index = in_caffes_order(x.reshape(len(x), -1), 1, top_k)
        parts = torch.stack([index, values] if "out_max_val" in settings else [index], 1)
        return [parts.view(*parts.shape, *[1] * (x.dim() - 3))]

    return Case(f'type: "ArgMax" argmax_param {{ {settings} }}', [bottom], reference)


CASES = [
    arg_max("", normal(3, 4), None),
    arg_max("", ties(5), None),
    arg_max("top_k: 3", ties(2, 3, 2, 2), None, 3),
    arg_max("top_k: 2 out_max_val: true", ties(3, 5), None, 2),
    arg_max("top_k: 2 out_max_val: true", ties(2, 2, 2, 1, 2), None, 2),
    arg_max("axis: 1", ties(2, 4, 3, 2), 1),
    arg_max("axis: -1 top_k: 2", ties(2, 3, 4), 2, 2),
    arg_max("axis: 0 top_k: 3 out_max_val: true", normal(4, 3), 0, 3),
    arg_max("axis: 1 out_max_val: true", normal(2, 4, 3, 2), 1),
]

MISTAKES = [
    ('type: "ArgMax" argmax_param { top_k: 0 }', [(2, 3)], "top_k must be 1 to 3 for a bottom of shape 2x3, not 0"),
    ('type: "ArgMax" argmax_param { top_k: 7 }', [(2, 3, 2)], "top_k must be 1 to 6 for a bottom of shape 2x3x2"),
    ('type: "ArgMax" argmax_param { top_k: 4 axis: 1 }', [(2, 3, 2)], "top_k must be 1 to 3"),
    ('type: "ArgMax" argmax_param { axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
    ('type: "ArgMax"', [()], "its bottom is a scalar"),
]


@pytest.mark.parametrize(("settings", "tops"), [("", {0}), ("axis: 1", {0}), ("axis: 1 out_max_val: true", set())])
def test_indices_are_declared_as_such_and_values_are_not(settings: str, tops: set[int]) -> None:
    assert build_layer(f'type: "ArgMax" argmax_param {{ {settings} }}', [(2, 3)]).index_tops == tops


def test_indices_of_many_values_stay_exact_in_lower_precision() -> None:
    x = torch.zeros(1, 3001, dtype=torch.bfloat16)
    x[0, 2999] = 1
    top = first_top('type: "ArgMax"', x)
    assert top.dtype == torch.float32 and top.item() == 2999
    np.testing.assert_array_equal(first_top('type: "ArgMax" argmax_param { top_k: 2 }', x).flatten(), [2999, 3000])


@given(st.data())
def test_ties_and_corners_are_as_caffe_sorts_them(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    top_k = data.draw(st.integers(1, shape[axis]))
    few = st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 2.0, math.inf])
    numbers = data.draw(st.lists(few, min_size=math.prod(shape), max_size=math.prod(shape)))
    x = torch.tensor(numbers).view(shape)
    values, index = in_caffes_order(x, axis % len(shape), top_k)
    text = f"top_k: {top_k} axis: {axis}"
    assert torch.equal(first_top(f'type: "ArgMax" argmax_param {{ {text} }}', x), index)
    assert torch.equal(first_top(f'type: "ArgMax" argmax_param {{ {text} out_max_val: true }}', x), values)


INDICES = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4 } }
    layer { name: "best" type: "ArgMax" bottom: "ip" top: "best" argmax_param { axis: 1 } }
"""
EMBEDDED = """
    layer { name: "word" type: "Embed" bottom: "best" top: "word" embed_param { num_output: 2 input_dim: 4 } GIVEN }
    layer { name: "loss" type: "Reduction" bottom: "word" top: "loss" loss_weight: 1 }
"""


@pytest.mark.parametrize(
    ("readers", "name"),
    [
        ('layer { name: "loss" type: "Reduction" bottom: "best" top: "loss" loss_weight: 1 }', "best"),
        (EMBEDDED.replace("GIVEN", ""), "word"),
    ],
)
def test_a_gradient_by_what_has_none_is_refused_in_a_line(readers: str, name: str) -> None:
    net = Net(parse_net(INDICES + readers), TRAIN)
    net.forward(x=torch.ones(2, 3))
    with pytest.raises(InputError, match=f'^layer "{name}" .*: has no derivative by its bottom'):
        net.backward()


def test_indices_of_what_is_learned_are_taken_as_given_with_propagate_down_false() -> None:
    net = Net(parse_net(INDICES + EMBEDDED.replace("GIVEN", "propagate_down: false")), TRAIN)
    net.forward(x=torch.ones(2, 3))
    net.backward()
    assert net.params["word"][0].diff.any() and not net.params["ip"][0].diff.any()
