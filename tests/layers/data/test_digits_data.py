"""The digits that come with scikit-learn, split once and for all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.digits_data import load_digits
from imae.layers.layer import TEST, TRAIN
from imae.prototxt_like.errors import InputError

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


def test_batches_are_prepared_on_one_thread_whatever_the_net_has(make: Make) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        layer, _ = make('type: "DigitsData" top: "data" top: "label" digits_data_param { batch_size: 500 }')
        layer.batch = lambda number: [torch.get_num_threads()]
        assert layer.forward([], {}) == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_on_a_gpu_batches_are_complete_and_made_on_a_stream_of_their_own(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown where there is none by what is asked of `torch.cuda`, in its order."""
    asked: list[str] = []

    @contextmanager
    def on(stream: SimpleNamespace) -> Iterator[None]:
        asked.append(f"on {stream.name}")
        yield
        asked.append("off")

    def batch(number: int) -> list[SimpleNamespace]:
        asked.append(f"batch {number}")
        return [SimpleNamespace(record_stream=lambda stream: asked.append(f"{number} read on {stream}"))]

    streams = (f"stream {i}" for i in range(9))
    own = SimpleNamespace(name="", synchronize=lambda: asked.append("complete"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: setattr(own, "name", next(streams)) or own)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the net's")
    layer, _ = make('type: "DigitsData" top: "data" digits_data_param { batch_size: 5 }')
    layer.batch, layer.context.device = batch, torch.device("cuda", 0)
    for number in range(2):
        layer.context.passes.number = number
        DataLayer.forward(layer, [], {})
    layer._worker.shutdown()
    made = [call for number in range(3) for call in ("on stream 0", f"batch {number}", "off", "complete")]
    assert [call for call in asked if "read" not in call] == made
    assert [call for call in asked if "read" in call] == ["0 read on the net's", "1 read on the net's"]


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


def test_training_images_are_random_windows_of_the_padded_ones(make: Make) -> None:
    settings = "transform_param { crop_size: 8 } digits_data_param { batch_size: 90 pad: 1 shuffle: false }"
    layer, shapes = make(f'type: "DigitsData" top: "data" top: "label" {settings}')
    assert shapes[0] == (90, 1, 8, 8)
    images = load_digits(True)[0].float()
    padded = torch.nn.functional.pad(images[:90] - images.mean(0), (1, 1, 1, 1))
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1).reshape(90, 9, 1, 8, 8)
    same = (windows - layer.batch(0)[0][:, None]).abs().amax((2, 3, 4)) < 1e-5
    assert same.any(1).all() and same.any(0).all()


def test_the_layers_own_phase_decides_on_split_order_and_augmentation(make: Make) -> None:
    settings = "transform_param { crop_size: 6 mirror: true } digits_data_param { batch_size: 500 }"
    prototxt = f'type: "DigitsData" top: "data" top: "label" {settings}'
    for own, other, name in ((TRAIN, TEST, "TRAIN"), (TEST, TRAIN, "TEST")):
        (expected, _), (frozen, _) = make(prototxt, own), make(f"{prototxt} phase: {name}", other)
        assert frozen.num_images == expected.num_images == (1297 if own == TRAIN else 500)
        for actual, wanted in zip(frozen.batch(1), expected.batch(1), strict=True):
            assert torch.equal(actual, wanted)


def test_chosen_digits_are_labelled_by_their_places_and_noise_stays_among_them(make: Make) -> None:
    settings = "batch_size: 10 digit: 7 digit: 3 intact_labels: true noise_rate: 1"
    prototxt = f'type: "DigitsData" top: "data" top: "label" top: "intact" digits_data_param {{ {settings} }}'
    layer, _ = make(prototxt)
    images, labels = load_digits(True)
    kept = (labels == 7) | (labels == 3)
    assert torch.equal(layer.images, images[kept])
    assert torch.equal(layer.intact, (labels[kept] == 3).long())
    assert set(layer.labels.tolist()) == {0, 1} and layer.num_classes == 2


@pytest.mark.parametrize("digits", ["digit: 3 digit: 3", "digit: 10"])
def test_digits_that_do_not_exist_or_repeat_are_refused(make: Make, digits: str) -> None:
    with pytest.raises(InputError, match="expected different ones of 0 to 9"):
        make(f'type: "DigitsData" top: "data" top: "label" digits_data_param {{ batch_size: 1 {digits} }}')


def test_a_batch_of_more_numbers_than_a_blob_holds_is_refused_before_there_is_memory_for_it(make: Make) -> None:
    for size in (2**31 - 1, 2**32 - 1):
        with pytest.raises(InputError, match=rf'layer "data" .* its top would be {size}x1x8x8, more than'):
            make(f'type: "DigitsData" top: "x" top: "y" digits_data_param {{ batch_size: {size} }}')
