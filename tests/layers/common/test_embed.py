"""Embed."""

import pytest
import torch
import torch.nn.functional as F
from layer_cases import Case, first_top, labels
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.indices import add_rows
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net


def embed(settings: str, *shape: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        weight, *bias = blobs
        return [F.embedding(xs[0], weight) + (bias[0] if bias else 0)]

    text = f'type: "Embed" embed_param {{ num_output: 4 input_dim: 5 {settings} }}'
    return Case(text, [labels(5, *shape)], reference)


CASES = [embed("", 3, 2), embed("bias_term: false", 7), embed("", 2, 1, 3, 1), embed("", *())]

MISTAKES = [
    ('type: "Embed" embed_param { input_dim: 5 }', [(3,)], "num_output is missing or 0"),
    ('type: "Embed" embed_param { num_output: 5 }', [(3,)], "input_dim is missing or 0"),
    (
        'type: "Embed" embed_param { num_output: 65536 input_dim: 65536 }',
        [(3,)],
        "its blob would be 65536x65536, more than the 2147483647 numbers of a blob",
    ),
]
TEXT = 'type: "Embed" embed_param { num_output: 2 input_dim: 3 weight_filler { type: "uniform" } }'


@pytest.mark.parametrize("index", [-1.0, 3.0])
def test_an_index_of_no_row_is_an_error(index: float) -> None:
    with pytest.raises(
        InputError, match=r'^layer "Embed" .*: index -?\d is out of range: there are 3 rows .*, 0 to 2$'
    ):
        first_top(TEXT, torch.tensor([1.0, index]))


def test_an_index_is_cut_at_its_point() -> None:
    assert torch.equal(first_top(TEXT, torch.tensor([2.7, -0.5])), first_top(TEXT, torch.tensor([2.0, 0.0])))


def test_the_gradient_is_the_same_bits_on_any_number_of_threads() -> None:
    index, rows, threads = torch.randint(7, (4000,)), torch.randn(4000, 256), torch.get_num_threads()
    sums = []
    for count in (1, 2):
        torch.set_num_threads(count)
        sums.append(torch.zeros(7, 256))
        add_rows(sums[-1], index, rows)
    torch.set_num_threads(threads)
    assert torch.equal(*sums) and torch.allclose(sums[0], F.one_hot(index).float().T @ rows, atol=1e-3)


def test_an_index_of_no_row_in_a_pass_that_is_replayed_is_told_afterwards() -> None:
    layer = build_layer(TEXT, [(2,)])
    layer.context.passes.on_device = torch.zeros((), dtype=torch.int64)
    layer.forward([torch.tensor([0, 2])], {})
    layer.context.checks.look()
    layer.forward([torch.tensor([1, 4])], {})
    layer.forward([torch.tensor([0, 2])], {})
    with pytest.raises(InputError, match="index 4 is out of range"):
        layer.context.checks.look()


def test_rows_are_of_the_nets_precision_and_indices_keep_theirs() -> None:
    net = Net(
        parse_net("""
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
            layer { name: "y" type: "Embed" bottom: "x" top: "y"
              embed_param { num_output: 2 input_dim: 1000 weight_filler { type: "uniform" } } }
        """),
        dtype=torch.bfloat16,
    )  # fmt: skip
    y = net.forward(x=torch.tensor([999, 511]))["y"]
    assert y.dtype == torch.bfloat16 and torch.equal(y, net.params["y"][0].data[[999, 511]].bfloat16())
