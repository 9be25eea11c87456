"""The digits that come with scikit-learn, split once and for all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from imae.layers.data.digits_data import load_digits
from imae.layers.layer import TEST

Make = Callable[..., Any]


def test_both_splits_together_are_scikit_learns_digits() -> None:
    from sklearn.datasets import load_digits as published

    images, labels = published(return_X_y=True)
    ours = [torch.cat([x.flatten(1), y[:, None]], 1) for x, y in (load_digits(True), load_digits(False))]
    assert [len(split) for split in ours] == [1297, 500]
    rows = torch.cat(ours).numpy()
    expected = np.column_stack([images, labels]).astype(int)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_the_split_never_changes_and_has_all_classes() -> None:
    (_, train), (_, test) = load_digits(True), load_digits(False)
    assert train[:8].tolist() == [5, 0, 0, 1, 0, 2, 1, 3]
    assert test[:8].tolist() == [3, 2, 4, 9, 9, 4, 8, 0]
    assert train.bincount(minlength=10).min() > 110
    assert test.bincount(minlength=10).min() > 35


def test_the_layer_gives_8_by_8_images_with_the_mean_removed(make: Make) -> None:
    prototxt = 'type: "DigitsData" top: "data" top: "label" digits_data_param { batch_size: 500 }'
    layer, shapes = make(prototxt, TEST)
    assert shapes == [(500, 1, 8, 8), (500,)]
    data, label = layer.batch(0)
    images, labels = load_digits(False)
    torch.testing.assert_close(data, images.float() - load_digits(True)[0].float().mean(0))
    assert torch.equal(label, labels)
    assert images.max() == 16
    layer, _ = make(prototxt)
    assert layer.num_images == 1297
