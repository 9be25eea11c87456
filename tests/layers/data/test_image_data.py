"""ImageData: image files that a list names, as Caffe's ImageDataLayer reads them."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from imae.layers.data.data_layer import data_lines
from imae.layers.data.image_list import read_image
from imae.layers.data.label_noise import corrupt, save_labels
from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

Make = Callable[..., Any]
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), np.uint8)
"""Red, green, blue: image i has label i mod 3."""


def layer_text(own: str = "batch_size: 4", transform: str = "", tops: int = 2) -> str:
    top = 'top: "data" top: "label"' if tops == 2 else 'top: "data"'
    own = f'source: "list.txt" {own}'
    return f'type: "ImageData" {top} transform_param {{ {transform} }} image_data_param {{ {own} }}'


def write(folder: Path, images: Sequence[NDArray[np.uint8]] = PIXELS, name: str = "{}.png") -> Path:
    lines = []
    for i, pixels in enumerate(images):
        file = folder / name.format(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        lines.append(f"{name.format(i)} {i % 3}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def bgr(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([image[:, :, ::-1].transpose(2, 0, 1) for image in images]).astype(np.float32))


def which(images: torch.Tensor) -> list[int]:
    """Which of PIXELS each image is."""
    return [next(i for i, pixels in enumerate(bgr(PIXELS)) if torch.equal(image, pixels)) for image in images]


def test_batches_follow_the_list_over_and_over_blue_green_red(make: Make, tmp_path: Path) -> None:
    write(tmp_path)
    layer, shapes = make(layer_text())
    assert shapes == [(4, 3, 6, 8), (4,)] and (layer.num_images, layer.num_classes) == (10, 3)
    images, labels = layer.batch(0)
    assert torch.equal(images, bgr(PIXELS[:4])) and labels.tolist() == [0, 1, 2, 0]
    images, labels = layer.batch(2)
    assert which(images) == [8, 9, 0, 1] and labels.tolist() == [2, 0, 0, 1] and labels.dtype == torch.int64
    assert len(make(layer_text(tops=1))[0].batch(0)) == 1


def test_names_may_have_spaces_and_stand_behind_a_root_folder(make: Make, tmp_path: Path) -> None:
    """Caffe takes what stands before the last space, and writes root_folder before it as it is."""
    write(tmp_path, PIXELS[:3], "some folder/of images/a b  {}.png")
    list_ = (tmp_path / "list.txt").read_text().replace("some folder/", "")
    (tmp_path / "list.txt").write_text(list_.replace("\n", "\r\n") + "\n")
    layer, _ = make(layer_text('batch_size: 3 root_folder: "some folder/"'))
    assert which(layer.batch(0)[0]) == [0, 1, 2]


def test_shuffling_gives_each_image_once_an_epoch_as_a_function_of_seed_and_batch(make: Make, tmp_path: Path) -> None:
    write(tmp_path)
    for phase in (TRAIN, TEST):
        layer, _ = make(layer_text("batch_size: 4 shuffle: true"), phase, seed=3)
        batches = [layer.batch(number) for number in range(5)]
        drawn = [i for images, _ in batches for i in which(images)]
        assert sorted(drawn[:10]) == sorted(drawn[10:]) == [*range(10)]
        assert drawn[:10] != drawn[10:] and drawn[:10] != sorted(drawn[:10])
        assert [int(i) for _, labels in batches for i in labels] == [i % 3 for i in drawn]
        again, _ = make(layer_text("batch_size: 4 shuffle: true"), phase, seed=3)
        assert which(again.batch(3)[0]) == drawn[12:16]
        other, _ = make(layer_text("batch_size: 10 shuffle: true"), phase, seed=4)
        assert which(other.batch(0)[0]) != drawn[:10]


def test_rand_skip_begins_at_one_of_the_first_images(make: Make, tmp_path: Path) -> None:
    write(tmp_path)
    starts = set()
    for seed in range(20):
        layer, _ = make(layer_text("batch_size: 4 rand_skip: 3"), seed=seed)
        drawn = which(layer.batch(0)[0])
        assert drawn == [*range(drawn[0], drawn[0] + 4)]
        starts.add(drawn[0])
    assert starts == {0, 1, 2}


def test_colour_is_as_asked_for_whatever_the_file_has(make: Make, tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "colour.png")
    Image.fromarray(PIXELS[0]).convert("L").save(tmp_path / "gray.png")
    Image.fromarray(PIXELS[0]).convert("RGBA").save(tmp_path / "alpha.png")
    (tmp_path / "list.txt").write_text("colour.png 0\ngray.png 1\nalpha.png 2\n")
    images = make(layer_text("batch_size: 3"))[0].batch(0)[0]
    gray = make(layer_text("batch_size: 3 is_color: false"))[0].batch(0)[0]
    assert images.shape == (3, 3, 6, 8) and gray.shape == (3, 1, 6, 8)
    assert torch.equal(images[0], images[2]) and torch.equal(images[1], gray[1].expand(3, 6, 8))
    weights = torch.tensor([0.114, 0.587, 0.299]).view(3, 1, 1)
    assert ((images[0] * weights).sum(0) - gray[0, 0]).abs().max() <= 1


@pytest.mark.parametrize("size", [(6, 8), (12, 16), (3, 4), (5, 7), (20, 3), (1, 1), (2, 31)])
def test_resizing_is_opencvs_bilinear_to_within_one_level(tmp_path: Path, size: tuple[int, int]) -> None:
    """INTER_LINEAR: pixel i of n is read at (i + 1/2) N / n - 1/2, between its two neighbours, without antialiasing."""
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")

    def weights(large: int, small: int) -> NDArray[np.float64]:
        at = np.clip((np.arange(small) + 0.5) * large / small - 0.5, 0, large - 1)
        return np.maximum(0, 1 - abs(at[:, None] - np.arange(large)))

    image = bgr(PIXELS[:1])[0].numpy()
    expected = weights(6, size[0]) @ image @ weights(8, size[1]).T
    resized = read_image(tmp_path / "a.png", True, size)
    assert resized.dtype == np.uint8 and np.abs(resized - expected).max() <= 1


@pytest.mark.filterwarnings("error")
def test_a_gray_image_is_resized_as_each_plane_of_a_coloured_one(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0, :, :, 0]).save(tmp_path / "a.png")
    gray, colour = (read_image(tmp_path / "a.png", color, (9, 5)) for color in (False, True))
    assert gray.shape == (1, 9, 5) and all(np.abs(plane - gray[0].astype(int)).max() <= 1 for plane in colour)


def test_resize_comes_before_mean_crop_and_mirror(make: Make, tmp_path: Path) -> None:
    write(tmp_path)
    own, transform = "batch_size: 10 new_height: 9 new_width: 11", "crop_size: 5 mean_value: 3 scale: 0.5"
    layer, shapes = make(layer_text(own, transform), TEST)
    assert shapes[0] == (10, 3, 5, 5)
    whole = make(layer_text(own), TEST)[0].batch(0)[0]
    torch.testing.assert_close(layer.batch(0)[0], (whole[:, :, 2:7, 3:8] - 3) * 0.5)


def test_a_net_follows_images_of_different_sizes_batch_by_batch(tmp_path: Path) -> None:
    write(tmp_path, [np.zeros((4 + i, 5, 3), np.uint8) for i in range(3)])
    net = Net(parse_net(f'layer {{ name: "d" {layer_text("batch_size: 1")} }}', "net"), TEST, folder=tmp_path)
    assert [tuple(net.forward()["data"].shape) for _ in range(4)] == [(1, 3, n, 5) for n in (4, 5, 6, 4)]


def test_images_of_different_sizes_in_one_batch_are_cropped_alike_or_named(make: Make, tmp_path: Path) -> None:
    list_ = write(tmp_path, [np.full((4 + i, 5, 3), i, np.uint8) for i in range(3)])
    layer, _ = make(layer_text("batch_size: 3", "crop_size: 4"))
    assert layer.batch(0)[0][:, 0, 0, 0].tolist() == [0, 1, 2]
    write(tmp_path, [np.full((5 - i, 5, 3), i, np.uint8) for i in range(3)])
    layer, _ = make(layer_text("batch_size: 3", "crop_size: 4"))
    with pytest.raises(InputError, match=r'^layer "data" [^"]*list.txt: crop_size 4 exceeds line 3, 3x5$'):
        layer.batch(0)
    write(tmp_path, [np.full((4 + i, 5, 3), i, np.uint8) for i in range(3)])
    layer, _ = make(layer_text("batch_size: 3"))
    with pytest.raises(
        InputError, match="line 2 is an image of 3x5x5, the first of its batch, 1, one of 3x4x5"
    ) as error:
        layer.batch(0)
    assert str(list_) in str(error.value) and "new_height and new_width" in str(error.value)


def test_label_noise_is_the_other_data_layers(make: Make, tmp_path: Path) -> None:
    write(tmp_path)
    noise = "noise_rate: 0.6 noise_seed: 5"
    layer, _ = make(layer_text(f"batch_size: 10 {noise}"))
    expected = corrupt(np.arange(10) % 3, 3, "SYMMETRIC", 0.6, 5)
    assert layer.batch(0)[1].tolist() == expected.tolist()
    wrong = np.count_nonzero(expected != np.arange(10) % 3)
    assert layer.label_noise.startswith(f"symmetric noise at rate 0.6, {wrong} of 10 labels")
    save_labels(tmp_path / "labels.npy", (np.arange(10) + 1) % 3)
    layer, _ = make(layer_text('batch_size: 10 noise_kind: FILE noise_file: "labels.npy"'))
    assert layer.batch(0)[1].tolist() == [(i + 1) % 3 for i in range(10)]
    (tmp_path / "list.txt").write_text("0.png -1\n1.png 70000\n")
    assert make(layer_text("batch_size: 2"))[0].batch(0)[1].tolist() == [-1, 70000]
    with pytest.raises(InputError, match="label -1"):
        make(layer_text(f"batch_size: 2 {noise}"))


def damage(folder: Path) -> None:
    """Image 1 is missing, 4 is cut, 5 is something else."""
    (folder / "1.png").unlink()
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:80])
    (folder / "5.png").write_bytes(b"no image")


@pytest.mark.parametrize(("start", "said"), [(1, "cannot be read: No such file"), (4, "no image"), (5, "no image")])
def test_a_missing_or_broken_image_is_named_with_its_line(make: Make, tmp_path: Path, start: int, said: str) -> None:
    list_ = write(tmp_path)
    damage(tmp_path)
    list_.write_text("0.png 0\n\n" + "".join(list_.read_text().splitlines(keepends=True)[start:]))
    layer, _ = make(layer_text("batch_size: 2"))
    with pytest.raises(InputError) as error:
        layer.batch(0)
    assert str(error.value).startswith(f'layer "data" (ImageData): {list_}: line 3: ')
    assert f"{start}.png: {said}" in str(error.value)


def test_of_several_broken_images_that_are_cropped_the_first_is_named(make: Make, tmp_path: Path) -> None:
    """Whichever reader is done first."""
    list_ = write(tmp_path)
    damage(tmp_path)
    layer, _ = make(layer_text("batch_size: 10", "crop_size: 4"))
    for _ in range(5):
        with pytest.raises(InputError, match=rf"{list_}: line 2: .*1\.png: cannot be read"):
            layer.batch(0)


@pytest.mark.parametrize("how", ["field", "context"])
def test_broken_images_can_be_left_out_and_are_counted(make: Make, tmp_path: Path, how: str) -> None:
    list_ = write(tmp_path)
    damage(tmp_path)
    own = "batch_size: 7 noise_rate: 0.6 noise_seed: 5"
    if how == "field":
        layer, _ = make(layer_text(f"{own} skip_broken: true"))
    else:
        layer, _ = make(layer_text(own), skip_broken=True)
    images, labels = layer.batch(0)
    sound = [0, 2, 3, 6, 7, 8, 9]
    assert layer.num_images == 7 and which(images) == sound
    assert labels.tolist() == corrupt(np.arange(10) % 3, 3, "SYMMETRIC", 0.6, 5)[sound].tolist()
    assert layer.left_out == f"3 of 10 images cannot be read and are left out, the first at {list_}: line 2"
    assert f'Layer "data": {layer.left_out}' in data_lines([layer])


def test_a_list_of_broken_images_alone_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\n")
    with pytest.raises(InputError, match=r"line 1: .*No such file"):
        make(layer_text("batch_size: 2 skip_broken: true"))


@pytest.mark.parametrize(
    ("text", "own", "said"),
    [
        ("", "", "names no image"),
        ("\n \n", "", "names no image"),
        ("0.png 1\n0.png\n", "", "line 2: '0.png' is no label, expected an integer"),
        ("0.png 1.5\n", "", "line 1: '1.5' is no label"),
        ("\n7\n", "", "line 2: expected an image's name and its label, found only '7'"),
        ("0.png 99999999999\n", "", "line 1: the label 99999999999 exceeds"),
        ("0.png 1\n", "batch_size: 0", "batch_size of at least 1"),
        ("0.png 1\n", "new_height: 4", "both new_height and new_width, or none"),
        ("0.png 1\n", "new_height: 70000 new_width: 70000", "70000x70000, more than"),
        ("0.png 1\n", "noise_rate: 2", "noise_rate must lie between 0 and 1"),
        ("x\0y.png 1\n", "", "line 1: .*is no path"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(make: Make, tmp_path: Path, text: str, own: str, said: str) -> None:
    write(tmp_path)
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        make(layer_text(own))
    assert "\n" not in str(error.value) and 'layer "data" (ImageData)' in str(error.value)


def test_a_list_or_a_source_that_is_missing_is_said(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"list.txt: cannot be read: No such file"):
        make(layer_text())
    with pytest.raises(InputError, match="needs source"):
        make('type: "ImageData" top: "data" top: "label"')


def test_a_net_trains_on_files_ahead_of_which_they_are_read(tmp_path: Path) -> None:
    """JPEG files, read in the background: the outputs are those of a net that reads each batch alone."""
    lines = []
    for i, pixels in enumerate(PIXELS):
        file = io.BytesIO()
        Image.fromarray(pixels).resize((40, 30)).save(file, "JPEG")
        (tmp_path / f"{i}.jpg").write_bytes(file.getvalue())
        lines.append(f"{i}.jpg {i}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    text = f'layer {{ name: "d" {layer_text("batch_size: 4 shuffle: true", "crop_size: 20 mirror: true")} }}'
    net = Net(parse_net(text, "net"), TRAIN, folder=tmp_path, seed=1)
    passes = [{name: top.clone() for name, top in net.forward().items()} for _ in range(5)]
    alone = Net(parse_net(text, "net"), TRAIN, folder=tmp_path, seed=1)
    for number in (4, 0, 2):
        alone.reseed(1, number)
        for name, top in alone.forward().items():
            assert torch.equal(top, passes[number][name])
