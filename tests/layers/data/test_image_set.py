"""What Cifar10Data and DigitsData share: order, augmentation, mean and label noise, on a miniature of CIFAR-10."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from imae.layers.data.cifar10_data import load_cifar10
from imae.layers.data.image_set import ImageSetData
from imae.layers.data.label_noise import corrupt, save_labels
from imae.layers.layer import TEST, TRAIN, Context
from imae.prototxt_like.binary import write_binaryproto
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter

Make = Callable[..., Any]


@pytest.fixture
def train_images(mini_cifar10: Path) -> Tensor:
    return load_cifar10(mini_cifar10, True)[0].float()


def cifar10(own: str = "batch_size: 5", transform: str = "", tops: int = 2) -> str:
    top = " ".join(f'top: "{name}"' for name in ("data", "label", "intact")[:tops])
    return f'type: "Cifar10Data" {top} transform_param {{ {transform} }} cifar10_data_param {{ source: "root" {own} }}'


def indices(layer: Any, batches: range) -> list[int]:
    """Which images the batches hold: the first pixel of image i is i, where no mean is removed."""
    return [int(i) for number in batches for i in layer.batch(number)[0][:, 0, 0, 0]]


RAW = "mean_value: 0"


def test_training_gives_each_image_once_an_epoch_over_the_ends_of_epochs(make: Make, mini_cifar10: Path) -> None:
    layer, _ = make(cifar10("batch_size: 8", RAW))
    sequence = indices(layer, range(10))
    epochs = [sequence[i : i + 20] for i in range(0, 80, 20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_batches_larger_than_the_set_hold_each_image_equally_often(make: Make, mini_cifar10: Path) -> None:
    layer, _ = make(cifar10("batch_size: 50", RAW))
    assert sorted(indices(layer, range(2))) == sorted([*range(20)] * 5)


def test_without_shuffle_and_in_test_images_come_in_order_over_and_over(make: Make, mini_cifar10: Path) -> None:
    layer, _ = make(cifar10("batch_size: 8 shuffle: false", RAW))
    assert indices(layer, range(5)) == [*range(20)] * 2
    layer, _ = make(cifar10("batch_size: 4", RAW), TEST)
    assert indices(layer, range(3)) == [*range(20, 26)] * 2


def test_a_batch_depends_on_its_number_and_the_seed_alone(make: Make, mini_cifar10: Path) -> None:
    """Training resumed at any iteration sees what an uninterrupted run saw."""
    prototxt = cifar10("batch_size: 8 pad: 4", "crop_size: 32 mirror: true")
    layer, _ = make(prototxt, seed=3)
    once = [layer.batch(number) for number in range(6)]
    fresh, _ = make(prototxt, seed=3)
    for number in (5, 0, 3, 3):
        for a, b in zip(fresh.batch(number), once[number], strict=True):
            assert torch.equal(a, b)
    other, _ = make(prototxt, seed=4)
    assert not torch.equal(other.batch(0)[1], once[0][1])
    fresh.context.passes.seed = 4  # as a solver that is restored sets it
    assert torch.equal(fresh.batch(3)[0], other.batch(3)[0])


def test_a_prepared_batch_is_a_function_of_tensors(make: Make, mini_cifar10: Path) -> None:
    """What a CUDA graph captures: `gather` reads the number from a tensor."""
    layer, _ = make(cifar10("batch_size: 8 pad: 4", "crop_size: 32 mirror: true"))
    expected = [layer.batch(number) for number in range(6)]
    number = torch.zeros((), dtype=torch.int64)
    for i in range(6):
        layer.prepare(i)
        for a, b in zip(layer.gather(number.fill_(i)), expected[i], strict=True):
            assert torch.equal(a, b)


def test_training_removes_the_mean_pads_crops_at_random_and_flips(
    make: Make, mini_cifar10: Path, train_images: Tensor
) -> None:
    """He et al. 2016: each output is one of the 9 x 9 windows, or its mirror image, of an image padded by its mean."""
    layer, shapes = make(cifar10("batch_size: 200 pad: 4 shuffle: false", "crop_size: 32 mirror: true"))
    assert shapes == [(200, 3, 32, 32), (200,)]
    padded = pad(train_images - train_images.mean(0), (4,) * 4)
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1).permute(0, 2, 3, 1, 4, 5)  # image, top, left, C, H, W
    windows = torch.stack([windows, windows.flip(5)], 3)[..., :1, ::8, ::8]  # some of the pixels tell them apart
    seen = torch.zeros(9, 9, 2, dtype=torch.int64)
    for number in range(10):
        for i, image in enumerate(layer.batch(number)[0][:, :1, ::8, ::8]):
            found = (windows[i % 20] - image).abs().amax((3, 4, 5)) < 1e-3
            assert found.sum() == 1
            seen += found
    assert abs(seen[:, :, 1].sum() - 1000) < 4.5 * 500**0.5
    for axes in ((1, 2), (0, 2)):
        assert (seen.sum(axes) - 2000 / 9).abs().max() < 4.5 * (2000 / 9) ** 0.5


def test_testing_crops_the_centre_and_does_not_flip(make: Make, mini_cifar10: Path) -> None:
    train, test = (load_cifar10(mini_cifar10, split)[0].float() for split in (True, False))
    expected = test - train.mean(0)
    layer, _ = make(cifar10("batch_size: 6 pad: 4", "crop_size: 32 mirror: true"), TEST)
    torch.testing.assert_close(layer.batch(0)[0], expected)
    layer, shapes = make(cifar10("batch_size: 6", "crop_size: 27"), TEST)
    assert shapes[0] == (6, 3, 27, 27)
    torch.testing.assert_close(layer.batch(0)[0], expected[:, :, 2:29, 2:29])
    layer, shapes = make(cifar10("batch_size: 6 pad: 2"), TEST)
    torch.testing.assert_close(layer.batch(0)[0], pad(expected, (2,) * 4))


def test_the_mean_is_that_of_the_whole_training_split_unless_given(
    make: Make, mini_cifar10: Path, train_images: Tensor, tmp_path: Path
) -> None:
    write_binaryproto(np.full((1, 3, 32, 32), 7, np.float32), tmp_path / "mean.binaryproto")
    for transform, mean in (
        ("", train_images.mean(0)),
        ("mean_value: 0", torch.tensor(0.0)),
        ("mean_value: 1 mean_value: 2 mean_value: 3", torch.tensor([1.0, 2, 3])[:, None, None]),
        ('mean_file: "mean.binaryproto"', torch.tensor(7.0)),
    ):
        layer, _ = make(cifar10("batch_size: 4 subset: 4 shuffle: false", f"{transform} scale: 0.5"))
        torch.testing.assert_close(layer.batch(0)[0], (train_images[:4] - mean) * 0.5)


def test_a_subset_is_the_first_images_of_the_split(make: Make, mini_cifar10: Path) -> None:
    layer, _ = make(cifar10("batch_size: 7 subset: 7", RAW))
    assert sorted(indices(layer, range(1))) == list(range(7))
    assert layer.num_images == 7
    assert layer.num_classes == 10


def test_noise_is_drawn_once_for_the_whole_training_split(make: Make, mini_cifar10: Path) -> None:
    """Every epoch, every augmented copy and every subset shares a sample's label; the intact one is the third top."""
    intact = np.arange(20) % 10
    noisy = corrupt(intact, 10, "SYMMETRIC", 0.8, seed=5)
    noise = "noise_rate: 0.8 noise_seed: 5 intact_labels: true"
    layer, shapes = make(cifar10(f"batch_size: 20 {noise}", RAW, 3))
    assert shapes[1:] == [(20,), (20,)]
    for number in range(3):
        data, label, third = layer.batch(number)
        index = data[:, 0, 0, 0].long().numpy()
        assert label.dtype == third.dtype == torch.int64
        np.testing.assert_array_equal(label, noisy[index])
        np.testing.assert_array_equal(third, intact[index])
    layer, _ = make(cifar10(f"batch_size: 7 subset: 7 shuffle: false {noise}", "", 3))
    np.testing.assert_array_equal(layer.batch(0)[1], noisy[:7])


def test_the_training_split_can_be_evaluated_in_a_test_net(
    make: Make, mini_cifar10: Path, train_images: Tensor
) -> None:
    """The paper's Table 2: fit of the corrupted and of the intact training labels, in order, without augmentation."""
    own = "batch_size: 20 split: TRAIN noise_rate: 0.8 noise_seed: 5 intact_labels: true pad: 4"
    layer, _ = make(cifar10(own, "crop_size: 32 mirror: true", 3), TEST)
    data, label, intact = layer.batch(0)
    torch.testing.assert_close(data, train_images - train_images.mean(0))
    np.testing.assert_array_equal(intact, np.arange(20) % 10)
    np.testing.assert_array_equal(label, corrupt(np.arange(20) % 10, 10, "SYMMETRIC", 0.8, seed=5))


def test_the_labels_of_the_test_split_stay_intact(make: Make, mini_cifar10: Path) -> None:
    layer, _ = make(cifar10("batch_size: 6 noise_rate: 1 noise_kind: PAIR_FLIP"), TEST)
    assert layer.batch(0)[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_noise_comes_from_files_beside_the_prototxt(make: Make, mini_cifar10: Path, tmp_path: Path) -> None:
    labels = (np.arange(20) + 3) % 10
    save_labels(tmp_path / "labels.txt", labels)
    np.savez(tmp_path / "labels.npz", human=labels)
    np.savetxt(tmp_path / "matrix.txt", np.roll(np.eye(10), 3, axis=1))
    for kind, file in (("FILE", "labels.txt"), ("FILE", "labels.npz:human"), ("MATRIX", "matrix.txt")):
        layer, _ = make(cifar10(f'batch_size: 20 shuffle: false noise_kind: {kind} noise_file: "{file}"'))
        np.testing.assert_array_equal(layer.batch(0)[1], labels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_images_have_the_dtype_of_the_net(make: Make, mini_cifar10: Path, dtype: torch.dtype) -> None:
    layer, _ = make(cifar10(), dtype=dtype)
    data, label = layer.batch(0)
    assert data.dtype == dtype
    assert data.is_contiguous()
    assert label.dtype == torch.int64


def test_the_images_are_freed_with_the_last_reference_to_the_layer(
    make: Make, mini_cifar10: Path, no_garbage_collection: None
) -> None:
    """As they may fill a GPU, not at some time later."""
    layer, _ = make(cifar10())
    layer.batch(0)
    left = weakref.ref(layer)
    del layer
    assert left() is None


def test_labels_are_optional(make: Make, mini_cifar10: Path) -> None:
    layer, shapes = make(cifar10(tops=1))
    assert shapes == [(5, 3, 32, 32)]
    assert len(layer.batch(0)) == 1


@pytest.mark.parametrize(
    ("prototxt", "message"),
    [
        (cifar10(""), "needs a batch_size of at least 1"),
        (cifar10(tops=3), "takes 1 or 2 tops \\(a third needs intact_labels: true\\), the prototxt gives 3"),
        (cifar10("batch_size: 5 intact_labels: true"), "takes 3 tops, the prototxt gives 2"),
        (cifar10("batch_size: 5 subset: 21"), "subset 21 exceeds the 20 images of the split"),
        (cifar10("batch_size: 5 noise_rate: 1.5"), "noise_rate must lie between 0 and 1, not 1.5"),
        (cifar10("batch_size: 5 noise_rate: nan"), "noise_rate must lie between 0 and 1, not nan"),
        (cifar10("batch_size: 5 noise_kind: FILE"), "noise_kind: FILE needs a noise_file"),
        (cifar10('batch_size: 5 noise_file: "x"'), "noise_kind: SYMMETRIC takes no noise_file"),
        (cifar10('batch_size: 5 noise_kind: FILE noise_file: "x.npy"'), "x.npy: cannot be read"),
        (cifar10('batch_size: 5 noise_kind: FILE noise_file: "five.txt"'), "expected 20 labels"),
        (cifar10(transform="crop_size: 33"), "crop_size 33 exceeds the image, 32x32"),
        (cifar10(transform="mean_value: 1 mean_value: 2"), "2 mean values do not fit the image, 3x32x32"),
        (cifar10(transform='mean_file: "none"'), "none: cannot be read"),
        (cifar10(transform='mean_file: "small"'), "the mean image, 3x8x8, does not fit the image, 3x32x32"),
        (cifar10(transform='mean_file: "two"'), "has the shape 2x3x32x32, expected one image"),
        (cifar10(transform='mean_file: "small" mean_value: 1'), "both mean_file and mean_value"),
    ],
)
def test_mistakes_name_the_layer(make: Make, mini_cifar10: Path, tmp_path: Path, prototxt: str, message: str) -> None:
    (tmp_path / "five.txt").write_text("0\n" * 5)
    write_binaryproto(np.zeros((1, 3, 8, 8), np.float32), tmp_path / "small")
    write_binaryproto(np.zeros((2, 3, 32, 32), np.float32), tmp_path / "two")
    with pytest.raises(InputError, match=message) as error:
        make(prototxt, TRAIN)
    assert str(error.value).startswith('layer "data" (Cifar10Data): ')
    assert str(error.value).count("layer ") == 1
    assert "\n" not in str(error.value)


class ThreeClasses(ImageSetData):
    """Three classes of one's own, of which the test split has two."""

    field = "digits_data_param"

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([0, 1, 2] * 100 if train else [0, 1])
        return torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels


def test_a_subclass_has_as_many_classes_as_its_training_labels() -> None:
    param = LayerParameter(name="data", top=["data", "label"], digits_data_param={"batch_size": 1, "noise_rate": 1})
    train, test = (ThreeClasses(param, Context(phase)) for phase in (TRAIN, TEST))
    train.setup([])
    test.setup([])
    assert sorted(set(train.labels.tolist())) == [0, 1, 2]
    assert train.num_classes == test.num_classes == 3
