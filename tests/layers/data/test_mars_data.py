"""MarsData: the frames of a miniature MARS, as section 5.2 of the paper feeds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from imae.experiments.mars_info import write_miniature
from imae.layers.data.image_decode import decode_image
from imae.layers.data.label_noise import corrupt, save_labels
from imae.layers.layer import TEST, TRAIN
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.mars_info import frame_path, read_names, read_tracks

Make = Callable[..., Any]
PERSONS, TRACKS, FRAMES = 3, 2, 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_miniature(tmp_path / "MARS", persons=PERSONS, tracks_per_person=TRACKS, frames_per_track=FRAMES, size=(16, 8))
    return tmp_path / "MARS"


def mars(own: str = "batch_size: 8", transform: str = "", tops: int = 2) -> str:
    top = 'top: "data" top: "label"' if tops == 2 else 'top: "data"'
    return f'type: "MarsData" {top} transform_param {{ {transform} }} mars_data_param {{ source: "MARS" {own} }}'


def frames(root: Path, part: str) -> list[torch.Tensor]:
    """All frames of a part, in its order, as the files have them."""
    names = read_names(root / "info" / f"{part}_name.txt")
    return [torch.from_numpy(decode_image(frame_path(root, part, name).read_bytes())).float() for name in names]


def numbers(images: torch.Tensor, among: list[torch.Tensor]) -> list[int]:
    """Which of the frames each image is."""
    return [next(i for i, frame in enumerate(among) if torch.equal(image, frame)) for image in images]


def test_training_draws_each_frame_once_an_epoch_with_its_persons_label(make: Make, root: Path) -> None:
    """Persons 1, 3 and 5 are classes 0, 1 and 2; a track is a set of images, and a batch runs over an epoch's end."""
    layer, shapes = make(mars())
    assert shapes == [(8, 3, 16, 8), (8,)]
    assert (layer.num_images, layer.num_classes, layer.persons.tolist()) == (24, PERSONS, [1, 3, 5])
    among = frames(root, "train")
    batches = [layer.batch(number) for number in range(6)]
    drawn = [number for images, _ in batches for number in numbers(images, among)]
    assert sorted(drawn[:24]) == sorted(drawn[24:]) == [*range(24)]
    assert drawn[:24] != drawn[24:] and drawn[:24] != sorted(drawn[:24])
    assert [int(i) for _, label in batches for i in label] == [i // (TRACKS * FRAMES) for i in drawn]
    assert batches[0][1].dtype == torch.int64


def test_a_batch_may_hold_several_epochs(make: Make, root: Path) -> None:
    layer, _ = make(mars("batch_size: 60"))
    among = frames(root, "train")
    drawn = [number for batch in range(2) for number in numbers(layer.batch(batch)[0], among)]
    assert sorted(drawn) == sorted([*range(24)] * 5)


def test_the_test_part_gives_all_frames_in_the_order_of_the_table(make: Make, root: Path) -> None:
    """Junk and distractors too: row i of the features belongs to frame i."""
    layer, shapes = make(mars("batch_size: 5", tops=1), TEST)
    among = frames(root, "test")
    assert shapes == [(5, 3, 16, 8)]
    assert layer.num_images == len(among) == (2 + PERSONS) * TRACKS * FRAMES == 40
    drawn = [number for batch in range(10) for number in numbers(layer.batch(batch)[0], among)]
    assert drawn == [*range(40), *range(10)]


def test_a_batch_depends_on_its_number_and_the_seed_alone(make: Make, root: Path) -> None:
    """Training resumed at any iteration sees what an uninterrupted run saw."""
    prototxt = mars("batch_size: 7 new_height: 20 new_width: 20", "crop_size: 16 mirror: true")
    layer, _ = make(prototxt, seed=3)
    once = [layer.batch(number) for number in range(6)]
    fresh, _ = make(prototxt, seed=3)
    for number in (5, 0, 3, 3):
        for a, b in zip(fresh.batch(number), once[number], strict=True):
            assert torch.equal(a, b)
    other, _ = make(prototxt, seed=4)
    assert not torch.equal(other.batch(0)[0], once[0][0])


def test_frames_are_resized_then_cropped_at_random_and_mirrored_for_training(make: Make, root: Path) -> None:
    layer, shapes = make(mars("batch_size: 24 new_height: 20 new_width: 18", "crop_size: 16 mirror: true"))
    assert shapes[0] == (24, 3, 16, 16)
    whole = F.interpolate(torch.stack(frames(root, "train")), (20, 18), mode="bilinear")
    windows = {
        (top, left, mirrored): (whole.flip(3) if mirrored else whole)[:, :, top : top + 16, left : left + 16]
        for top in range(5)
        for left in range(3)
        for mirrored in (False, True)
    }
    found = [
        next(place for place, images in windows.items() if torch.isclose(images, image).all((1, 2, 3)).any())
        for number in range(4)
        for image in layer.batch(number)[0]
    ]
    assert {top for top, _, _ in found} == set(range(5))
    assert {left for _, left, _ in found} == set(range(3))
    assert {mirrored for _, _, mirrored in found} == {False, True}


def test_testing_takes_the_centre_of_the_resized_frame(make: Make, root: Path) -> None:
    transform = "crop_size: 16 mirror: true mean_value: 1 mean_value: 2 mean_value: 3"
    layer, _ = make(mars("batch_size: 40 new_height: 20 new_width: 20", transform, tops=1), TEST)
    whole = F.interpolate(torch.stack(frames(root, "test")), (20, 20), mode="bilinear")
    mean = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    torch.testing.assert_close(layer.batch(0)[0], whole[:, :, 2:18, 2:18] - mean)


def test_resizing_is_opencvs_bilinear(make: Make, root: Path) -> None:
    """Pixels lie half a pixel off the corners: doubling takes 3/4 of the nearer pixel and 1/4 of the other."""
    layer, _ = make(mars("batch_size: 1 new_height: 16 new_width: 16", tops=1), TEST)
    row = frames(root, "test")[0][0, 0]
    doubled = layer.batch(0)[0][0, 0, 0]
    torch.testing.assert_close(
        doubled[1:3], torch.stack([0.75 * row[0] + 0.25 * row[1], 0.25 * row[0] + 0.75 * row[1]])
    )
    assert doubled[0] == row[0]


def test_split_chooses_the_part_whatever_the_phase(make: Make, root: Path) -> None:
    """The training part in phase TEST is in order, without augmentation: a pass for the training accuracy."""
    layer, _ = make(mars("batch_size: 24 split: TRAIN", "mirror: true"), TEST)
    images, label = layer.batch(0)
    assert torch.equal(images, torch.stack(frames(root, "train")))
    assert label.tolist() == [i // 8 for i in range(24)]
    assert make(mars("batch_size: 24 split: TEST", tops=1), TRAIN)[0].num_images == 40


def in_order(make: Make, own: str) -> np.ndarray:
    return make(mars(f"batch_size: 24 split: TRAIN {own}"), TEST)[0].batch(0)[1].numpy()


def test_labels_are_wrong_by_frame_or_by_track(make: Make, root: Path) -> None:
    intact = np.arange(24) // 8
    by_frame = in_order(make, "noise_rate: 0.5 noise_seed: 2 noise_kind: SYMMETRIC_EXCLUSIVE")
    np.testing.assert_array_equal(by_frame, corrupt(intact, PERSONS, "SYMMETRIC_EXCLUSIVE", 0.5, 2))
    by_track = in_order(make, "noise_rate: 0.5 noise_seed: 2 noise_kind: SYMMETRIC_EXCLUSIVE noise_unit: TRACK")
    of_tracks = corrupt(np.arange(6) // 2, PERSONS, "SYMMETRIC_EXCLUSIVE", 0.5, 2)
    np.testing.assert_array_equal(by_track, of_tracks.repeat(FRAMES))
    assert (by_frame != intact).any() and (of_tracks != np.arange(6) // 2).any()


def test_labels_of_tracks_may_come_from_a_file(make: Make, root: Path) -> None:
    save_labels(root / "labels.txt", np.array([2, 1, 0, 0, 1, 2]))
    labels = in_order(make, 'noise_kind: FILE noise_file: "MARS/labels.txt" noise_unit: TRACK')
    assert labels.tolist() == [label for label in (2, 1, 0, 0, 1, 2) for _ in range(FRAMES)]


def test_junk_and_distractors_in_the_training_part_are_left_out(make: Make, root: Path) -> None:
    """Only persons are classes."""
    for kind in ("info/tracks_{}_info.mat", "info/{}_name.txt", "bbox_{}"):
        (root / kind.format("train")).rename(root / f"old_{kind.format('train').replace('/', '_')}")
        (root / kind.format("test")).rename(root / kind.format("train"))
    layer, _ = make(mars("batch_size: 24"))
    assert (layer.num_images, layer.persons.tolist()) == (24, [2, 4, 6])
    tracks = read_tracks(root / "info/tracks_train_info.mat")
    assert len(tracks.person) == 10
    drawn = numbers(layer.batch(0)[0], frames(root, "train"))
    assert sorted(drawn) == [*range(16, 40)]


def test_frames_of_different_sizes_become_one_size(make: Make, root: Path) -> None:
    odd_size(root)
    layer, _ = make(mars("batch_size: 40 new_height: 20 new_width: 20", tops=1), TEST)
    expected = torch.cat([F.interpolate(frame[None], (20, 20), mode="bilinear") for frame in frames(root, "test")])
    torch.testing.assert_close(layer.batch(0)[0], expected)
    with pytest.raises(InputError, match=r"F003.jpg: a frame of 3x10x6, the first is 3x16x8: .*new_height"):
        make(mars("batch_size: 40", tops=1), TEST)[0].batch(0)


def odd_size(root: Path) -> None:
    from PIL import Image

    Image.new("RGB", (6, 10)).save(third(root))


def third(root: Path) -> Path:
    """The third frame of the test part."""
    return frame_path(root, "test", read_names(root / "info/test_name.txt")[2])


@pytest.mark.parametrize(
    ("prototxt", "phase", "message"),
    [
        (mars(""), TRAIN, "needs a batch_size of at least 1"),
        ('type: "MarsData" top: "data" mars_data_param { batch_size: 1 }', TRAIN, "needs source, the folder"),
        (mars("batch_size: 1 new_height: 3"), TRAIN, "both new_height and new_width"),
        (mars(), TEST, "it takes 1 top, the prototxt gives 2"),
        (mars("batch_size: 1", "crop_size: 9"), TRAIN, r"crop_size 9 exceeds the frame 0001C1T0001F001\.jpg, 16x8"),
        (mars("batch_size: 1 noise_rate: 2"), TRAIN, "noise_rate must lie between 0 and 1, not 2"),
        (mars("batch_size: 1 noise_kind: FILE"), TRAIN, "noise_kind: FILE needs a noise_file"),
    ],
)
def test_wrong_settings_are_named(make: Make, root: Path, prototxt: str, phase: int, message: str) -> None:
    with pytest.raises(InputError, match=rf'^layer "data" \(MarsData\): .*{message}'):
        make(prototxt, phase)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: third(root).unlink(), r"F003\.jpg: missing, as are 0 other frames that .*test_name\.txt names"),
        (lambda root: (root / "bbox_test").rename(root / "test"), r"F001\.jpg: missing, as are 39 other frames"),
        (lambda root: (root / "info/test_name.txt").unlink(), r"test_name\.txt: cannot be read"),
        (lambda root: (root / "info").rename(root / "information"), r"tracks_test_info\.mat: cannot be read"),
        (lambda root: (root / "info/tracks_test_info.mat").write_bytes(b"no table"), "not a MATLAB 5 file"),
        (
            lambda root: (root / "info/test_name.txt").write_text("00-1C1T0001F001.jpg\n"),
            r"test_name\.txt: has 1 frames, but tracks_test_info\.mat counts 40",
        ),
        (lambda root: (root / "info/test_name.txt").write_text("../../x\n"), r"test_name\.txt:1: '\.\./\.\./x'"),
    ],
)
def test_a_wrong_layout_is_one_line_before_training(
    make: Make, root: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(root)
    with pytest.raises(InputError, match=message) as caught:
        make(mars(tops=1), TEST)
    assert str(caught.value).startswith('layer "data" (MarsData): ') and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:100]), lambda path: path.unlink()])
def test_a_frame_that_is_damaged_or_vanishes_is_named(make: Make, root: Path, damage: Callable[[Path], object]) -> None:
    layer, _ = make(mars(tops=1), TEST)
    damage(third(root))
    with pytest.raises(InputError, match=r'^layer "data" \(MarsData\): \S*bbox_test/00-1/00-1C1T0001F003\.jpg: \w+'):
        layer.batch(0)


def test_noise_by_track_is_told_in_frames(make: Make, root: Path) -> None:
    layer, _ = make(mars("batch_size: 8 noise_rate: 1 noise_kind: PAIR_FLIP noise_unit: TRACK"))
    noise = "pair flip noise at rate 1, 24 of 24 labels (100.0 %) differ from the intact ones, drawn by track"
    assert layer.label_noise == noise


def test_broken_frames_of_the_training_part_alone_can_be_left_out(make: Make, root: Path) -> None:
    first, second = (frame_path(root, "train", name) for name in read_names(root / "info/train_name.txt")[1:3])
    among = frames(root, "train")
    first.write_bytes(b"no image")
    second.unlink()
    own = "batch_size: 22 shuffle: false noise_rate: 0.5 noise_seed: 3"
    layer, _ = make(mars(own), skip_broken=True)
    images, labels = layer.batch(0)
    sound = [i for i in range(24) if i not in (1, 2)]
    assert layer.num_images == 22 and numbers(images, among) == sound
    assert labels.tolist() == corrupt(np.arange(24) // 8, PERSONS, "SYMMETRIC", 0.5, 3)[sound].tolist()
    assert layer.left_out == f"2 of 24 images cannot be read and are left out, the first at {first}"
    frame_path(root, "test", read_names(root / "info/test_name.txt")[0]).unlink()
    with pytest.raises(InputError, match="missing"):
        make(mars("batch_size: 2 split: TEST", tops=1), skip_broken=True)
