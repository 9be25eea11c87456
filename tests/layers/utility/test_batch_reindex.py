"""BatchReindex."""

import pytest
import torch
from layer_cases import Case, first_top, labels, normal
from torch import Tensor

from imae.prototxt_like.errors import InputError


def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    return [xs[0][xs[1].long()]]


CASES = [
    Case('type: "BatchReindex"', [normal(5, 3, 2), labels(5, 7)], reference),
    Case('type: "BatchReindex"', [normal(4), labels(4, 2)], reference),
    Case('type: "BatchReindex"', [normal(3, 2, 4, 2), labels(3, 1)], reference),
]

MISTAKES = [
    ('type: "BatchReindex"', [(5, 3), (2, 1)], "indices along one, found bottoms of 5x3 and 2x1"),
    ('type: "BatchReindex"', [(), (2,)], "found bottoms of scalar and 2"),
    ('type: "BatchReindex"', [(0, 3), (2,)], "has 2 indices, but no items: a bottom of 0x3"),
    ('type: "BatchReindex"', [(5, 3)], "takes 2 bottom blobs, the prototxt gives 1"),
]


def test_an_index_is_cut_at_its_point() -> None:
    x = torch.arange(3.0)
    assert first_top('type: "BatchReindex"', x, torch.tensor([2.9, 0.5])).tolist() == [2, 0]


@pytest.mark.parametrize("index", [-1.0, -0.5, 3.0, float("nan")])
def test_an_index_of_no_item_is_an_error(index: float) -> None:
    with pytest.raises(
        InputError, match=r'^layer "BatchReindex" .*: index -?\d+ is out of range: there are 3 items, 0'
    ):
        first_top('type: "BatchReindex"', torch.arange(3.0), torch.tensor([1.0, index]))


def test_no_index_gives_no_items() -> None:
    assert first_top('type: "BatchReindex"', torch.ones(3, 2), torch.zeros(0)).shape == (0, 2)
