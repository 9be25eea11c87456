"""Accuracy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import TEST, TRAIN, Case, first_top, labels, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.prototxt_like.errors import InputError


def hits(scores: Tensor, y: Tensor, k: int, axis: int = 1) -> Tensor:
    """Whether fewer than k other scores are as high as the label's."""
    scores = scores.movedim(axis, -1)
    return (scores >= scores.gather(-1, y[..., None])).sum(-1) <= k


def of_classes(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
    right = hits(*xs, 1).float()
    each = [right[xs[1] == label].mean().nan_to_num(0.0) for label in range(xs[0].shape[1])]
    return [right.mean(), torch.stack(each)]


CASES = [
    Case('type: "Accuracy"', [normal(6, 4), labels(4, 6)], lambda xs, blobs: [hits(*xs, 1).float().mean()]),
    Case(
        'type: "Accuracy" accuracy_param { top_k: 2 axis: -1 }',
        [normal(2, 3, 4), labels(4, 2, 3)],
        lambda xs, blobs: [hits(*xs, 2, 2).float().mean()],
    ),
    Case(
        'type: "Accuracy" accuracy_param { ignore_label: 1 }',
        [normal(3, 3, 2, 2), labels(3, 3, 2, 2)],
        lambda xs, blobs: [hits(*xs, 1)[xs[1] != 1].float().mean()],
    ),
    Case(
        'type: "Accuracy" accuracy_param { top_k: 0 }',
        [normal(4, 3), labels(3, 4)],
        lambda xs, blobs: [torch.zeros(())],
    ),
    Case('type: "Accuracy" top: "a" top: "c"', [normal(9, 4), labels(4, 9)], of_classes),
    Case('type: "Accuracy" top: "a" top: "c"', [normal(9, 4), labels(4, 9)], of_classes, TEST),
]

MISTAKES = [
    (
        'type: "Accuracy" accuracy_param { top_k: 4 }',
        [(2, 3), (2,)],
        "top_k must be at most the number of classes, 3, not 4",
    ),
]

SCORES = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.5, 0.1], [0.2, 0.3, 0.5], [0.4, 0.1, 0.2]])


def accuracy(settings_text: str, y: list[int], scores: Tensor = SCORES, tops: str = "") -> list[Tensor]:
    layer = build_layer(f'type: "Accuracy" {tops} {settings_text}', [tuple(scores.shape), (len(y),)], phase=TEST)
    return layer.forward([scores, torch.tensor(y)], {})


def test_accuracy_counts_labels_with_the_highest_score_and_no_tie() -> None:
    """Caffe: correct if fewer than top_k others score at least as much, so a tie for the first place is wrong."""
    assert float(accuracy("", [1, 0, 2, 0])[0]) == 0.75
    assert float(accuracy("", [1, 1, 2, 1])[0]) == 0.5
    assert float(accuracy("accuracy_param { top_k: 2 }", [0, 0, 1, 1])[0]) == 0.75
    assert float(accuracy("accuracy_param { top_k: 3 }", [0, 0, 1, 1])[0]) == 1


def test_accuracy_calls_nan_wrong() -> None:
    """A net that has diverged, or has no statistics yet, must not have the best accuracy of a run."""
    scores = torch.tensor([[float("nan")] * 3, [float("nan"), 1.0, 0.0], [0.0, 1.0, 0.5]])
    assert float(first_top('type: "Accuracy"', scores, torch.tensor([1, 1, 1]))) == pytest.approx(1 / 3)


def test_accuracy_leaves_out_the_ignored_label() -> None:
    assert float(accuracy("accuracy_param { ignore_label: 0 }", [1, 0, 2, 0])[0]) == 1
    assert float(accuracy("accuracy_param { ignore_label: 255 }", [255, 255, 2, 1])[0]) == 0.5
    assert float(accuracy("accuracy_param { ignore_label: 1 }", [1, 1, 1, 1])[0]) == 0


def test_accuracy_of_each_class() -> None:
    overall, classes = accuracy("", [1, 1, 1, 0], tops='top: "a" top: "c"')
    assert float(overall) == 0.5
    torch.testing.assert_close(classes, torch.tensor([1, 1 / 3, 0]))


def test_accuracy_of_each_class_over_several_passes_counts_all_labels_alike() -> None:
    """Class 1 is right in 1 of 3 and in 0 of 2, class 2 is in the second alone, class 0 in none."""
    layer = build_layer('type: "Accuracy" top: "a" top: "c"', [(3, 3), (3,)], phase=TEST)
    scores = torch.eye(3)
    for y in ([1.0, 1.0, 1.0], [1.0, 1.0, 2.0]):
        layer.forward([scores[[1, 0, 0] if y[2] == 1 else [0, 0, 2]], torch.tensor(y)], {})
    place = layer.state[0].data_ptr()
    torch.testing.assert_close(layer.of_each_class(), torch.tensor([math.nan, 1 / 5, 1]).double(), equal_nan=True)
    layer.reset()
    assert layer.of_each_class().isnan().all() and layer.state[0].data_ptr() == place
    training = build_layer('type: "Accuracy" top: "a" top: "c"', [(3, 3), (3,)], phase=TRAIN)
    assert not training.state


def test_loss_param_has_no_effect_on_accuracy() -> None:
    """What is ignored stands in accuracy_param."""
    value, other = (accuracy(text, [1, 0, 2, 0])[0] for text in ("", "loss_param { ignore_label: 1 }"))
    assert torch.equal(value, other)
    assert not torch.equal(value, accuracy("accuracy_param { ignore_label: 1 }", [1, 0, 2, 0])[0])


def test_accuracy_of_spatial_predictions() -> None:
    z = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    y = torch.randint(5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    layer = build_layer('type: "Accuracy"', [(2, 5, 3, 4), (2, 3, 4)], phase=TEST)
    torch.testing.assert_close(layer.forward([z, y], {})[0], (z.argmax(1) == y).float().mean())


def test_accuracy_names_a_label_that_is_no_class() -> None:
    with pytest.raises(InputError, match=r'layer "Accuracy".*label 3 is out of range: there are 3 classes, 0 to 2'):
        accuracy("", [1, 0, 2, 3])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), n=st.integers(1, 6), c=st.integers(1, 5))
def test_accuracy_is_the_fraction_with_fewer_than_k_others_at_or_above(data: st.DataObject, n: int, c: int) -> None:
    scores = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=c, max_size=c), min_size=n, max_size=n))
    y = data.draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    k = data.draw(st.integers(1, c))
    right = [sum(s >= row[label] for s in row) - 1 < k for row, label in zip(scores, y, strict=True)]
    actual = accuracy(f"accuracy_param {{ top_k: {k} }}", y, torch.tensor(scores).float())[0]
    assert float(actual) == pytest.approx(sum(right) / n)
