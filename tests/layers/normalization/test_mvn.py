"""MVN."""

import pytest
import torch
from layer_cases import Case, first_top, normal
from torch import Tensor


def mvn(settings: str, *shape: int, across: bool = False, variance: bool = True, eps: float = 1e-9) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        x = xs[0].reshape(*shape, *[1] * (4 - len(shape)))
        over = (1, 2, 3) if across else (2, 3)
        deviation = x - x.mean(over, keepdim=True)
        if not variance:
            return [deviation]
        std = (deviation**2).mean(over, keepdim=True).sqrt()
        slow = (std / (std + eps)).detach()  # Caffe's gradient is that of a deviation which moves by so much less
        return [deviation / (std.detach() + slow * (std - std.detach()) + eps)]

    return Case(f'type: "MVN" mvn_param {{ {settings} }}', [normal(*shape)], reference)


CASES = [
    mvn("", 2, 3, 4, 5),
    mvn("across_channels: true", 2, 3, 4, 5, across=True),
    mvn("normalize_variance: false", 2, 3, 4, 5, variance=False),
    mvn("normalize_variance: false across_channels: true", 2, 3, 2, 2, across=True, variance=False),
    mvn("eps: 0.5", 2, 3, 4, 5, eps=0.5),
    mvn("eps: 0.001 across_channels: true", 1, 3, 2, 2, across=True, eps=0.001),
    mvn("", 2, 3, 8),
    mvn("across_channels: true", 2, 8, across=True),
]

MISTAKES = [
    ('type: "MVN"', [(2, 3, 4, 5, 6)], "takes a bottom of at most 4 axes, found 2x3x4x5x6"),
    ('type: "MVN"', [(2, 3, 0, 5)], "has no statistics of a bottom of 2x3x0x5"),
]


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (3, 4, 5)])
def test_mvn_gives_four_axes(shape: tuple[int, ...]) -> None:
    assert first_top('type: "MVN"', torch.randn(shape)).shape == (*shape, *[1] * (4 - len(shape)))


def test_mvn_of_single_values_is_zero() -> None:
    assert not first_top('type: "MVN"', torch.randn(3, 4)).any()
