"""HingeLoss with both norms."""

import torch
from layer_cases import Case, labels, normal, run
from torch import Tensor

from imae.layers.gradient_check import build_layer

TYPE = 'type: "HingeLoss"'


def hinge(settings: str, power: int, *shape: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        x = xs[0].flatten(1)
        sign = 1 - 2 * torch.nn.functional.one_hot(xs[1].flatten(), x.shape[1])
        return [(1 + sign * x).clamp_min(0).pow(power).sum() / len(x)]

    classes = torch.Size(shape[1:]).numel()
    return Case(f"{TYPE} {settings}", [normal(*shape), labels(classes, shape[0])], reference)


CASES = [
    hinge("", 1, 5, 4),
    hinge("hinge_loss_param { norm: L1 } loss_weight: 2", 1, 3, 6),
    hinge("hinge_loss_param { norm: L2 }", 2, 5, 4),
    hinge("hinge_loss_param { norm: L2 }", 2, 3, 2, 3, 2),
]

MISTAKES = [
    (TYPE, [(3, 4), (2,)], "needs bottoms of the same batch size, found 3x4 and 2"),
    (TYPE, [(3, 4), (3, 4)], "predictions of 3x4 with classes along axis 1 need labels of 3, found 3x4"),
]


def test_loss_param_has_no_effect() -> None:
    shapes = [(2, 3), (2,)]
    bottoms = [torch.tensor([[0.5, 0.0, -2.0], [1.0, 0.0, 3.0]]), torch.tensor([0, 1])]
    plain = run(build_layer(TYPE, shapes), bottoms)
    other = run(build_layer(f"{TYPE} loss_param {{ ignore_label: 1 normalization: NONE }}", shapes), bottoms)
    assert float(plain[0][0]) == (0.5 + 1 + 0 + 2 + 1 + 4) / 2
    assert torch.equal(plain[0][0], other[0][0]) and torch.equal(plain[1][0], other[1][0])
