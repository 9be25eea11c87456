"""InfogainLoss: its matrix as a bottom and from a file, axis and normalisation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from layer_cases import Case, Draw, labels, normal, run, uniform
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.binary import write_binaryproto
from imae.prototxt_like.errors import InputError

TYPE = 'type: "InfogainLoss"'


def infogain(settings: str, axis: int, divisor: object, shape: tuple[int, ...], ignored: int | None = None) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        classes = shape[axis]
        log_p = xs[0].movedim(axis, -1).reshape(-1, classes).log_softmax(1)
        y = xs[1].flatten()
        valid = y != (-1 if ignored is None else ignored)
        rows = xs[2].reshape(classes, classes)[torch.where(valid, y, 0)]
        total = -(rows * log_p).sum(1)[valid].sum()
        loss = total / (max(1, int(valid.sum())) if divisor == "valid" else divisor)
        return [loss, xs[0].softmax(axis)] if "top" in settings else [loss]

    bottoms = [
        normal(*shape),
        labels(shape[axis], *shape[:axis], *shape[axis + 1 :]),
        uniform(1, 1, shape[axis], shape[axis]),
    ]
    return Case(f"{TYPE} {settings}", bottoms, reference)


CASES = [
    infogain("", 1, "valid", (6, 4)),
    infogain('top: "loss" top: "prob"', 1, "valid", (4, 3, 2)),
    infogain("infogain_loss_param { axis: -1 } softmax_param { axis: 1 }", 2, "valid", (2, 3, 4)),
    infogain("loss_param { ignore_label: 1 }", 1, "valid", (6, 3, 2), 1),
    infogain("loss_param { ignore_label: 1 normalization: FULL }", 1, 12, (6, 3, 2), 1),
    infogain("infogain_loss_param { axis: 2 } loss_param { normalization: BATCH_SIZE }", 2, 6, (2, 3, 4)),
    infogain("loss_param { normalization: NONE } loss_weight: 0.5", 1, 1, (2, 3)),
]

MISTAKES = [
    (TYPE, [(3, 4), (3,)], "needs its matrix as a third bottom, or as infogain_loss_param { source }"),
    (TYPE, [(3, 4), (3,), (4, 3)], "4 classes need a matrix of 4x4, found 4x3"),
    (TYPE, [(3, 4), (2,), (4, 4)], "needs bottoms of the same batch size, found 3x4 and 2"),
    (TYPE, [(3, 4, 2), (3,), (4, 4)], "need labels of 3x2, found 3"),
    (f"{TYPE} loss_param {{ normalize: true }}", [(3, 4), (3,), (4, 4)], "takes no loss_param { normalize }"),
    (f"{TYPE} infogain_loss_param {{ source: 'gone' }}", [(3, 4), (3,)], "gone: "),
]


def test_the_matrix_from_a_file_is_the_matrix_as_a_bottom(tmp_path: Path) -> None:
    draw = Draw(0)
    x, y, matrix = draw.normal(5, 3), draw.integers(0, 3, 5), draw.uniform(1, 1, 3, 3).float()
    write_binaryproto(matrix.numpy(), tmp_path / "gains.binaryproto")
    source = f'{TYPE} infogain_loss_param {{ source: "{tmp_path}/gains.binaryproto" }}'
    from_file = run(build_layer(source, [(5, 3), (5,)]), [x, y])
    as_bottom = run(build_layer(TYPE, [(5, 3), (5,), (1, 1, 3, 3)]), [x, y, matrix])
    assert torch.equal(from_file[0][0], as_bottom[0][0])
    assert torch.equal(from_file[1][0], as_bottom[1][0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^layer .*: 4 classes need a matrix of 4x4, found 1x1x3x3$"):
        build_layer(source, [(5, 4), (5,)])


def test_the_identity_gives_the_cross_entropy() -> None:
    draw = Draw(1)
    x, y = draw.normal(5, 3), draw.integers(0, 3, 5)
    gains = run(build_layer(TYPE, [(5, 3), (5,), (3, 3)]), [x, y, torch.eye(3).double()])
    plain = run(build_layer('type: "SoftmaxWithLoss"', [(5, 3), (5,)]), [x, y])
    torch.testing.assert_close(gains[0], plain[0])
    torch.testing.assert_close(gains[1][0], plain[1][0])


def test_a_vanishing_probability_costs_as_much_as_caffe_says() -> None:
    """It bounds p by 1e-20."""
    layer = build_layer(TYPE, [(1, 2), (1,), (2, 2)])
    tops, _ = run(layer, [torch.tensor([[-1e4, 0.0]]), torch.tensor([0]), torch.eye(2)])
    assert float(tops[0]) == pytest.approx(-np.log(1e-20), rel=1e-6)
