"""WindowData: Caffe's WindowDataLayer, which R-CNN trains on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imae.layers.data.image_list import resize
from imae.layers.layer import TEST
from imae.prototxt_like.binary import write_binaryproto
from imae.prototxt_like.errors import InputError

Make = Callable[..., Any]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)
"""Red, green, blue."""
BGR = PIXELS[..., ::-1].transpose(0, 3, 1, 2)
LIST = """# 0
im/0.png
3
12
16
3
4 0.9 2 3 5 6
7 0.5 8 4 11 7
1 0.1 0 0 3 3
# 1
im/1.png
3 12 16
2
5 0.3 12 8 15 11
9 0.7 4 4 7 7
"""
OBJECTS = {4: (0, 2, 3), 7: (0, 8, 4), 9: (1, 4, 4)}
"""By class: the image, and the column and row at which its 4 x 4 window begins."""


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    (tmp_path / "im").mkdir()
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / "im" / f"{i}.png")
    (tmp_path / "list.txt").write_text(LIST)
    return tmp_path


def layer_text(own: str = "batch_size: 8", transform: str = "crop_size: 4") -> str:
    own = f'source: "list.txt" {own}'
    return (
        f'type: "WindowData" top: "data" top: "label" transform_param {{ {transform} }} window_data_param {{ {own} }}'
    )


def test_a_batch_is_background_then_objects_each_as_it_lies_in_its_image(make: Make, windows: Path) -> None:
    """fg_fraction 0.4 of 8: 3 objects. A window of crop_size is its pixels; background has label 0."""
    layer, shapes = make(layer_text("batch_size: 8 fg_fraction: 0.4"))
    assert shapes == [(8, 3, 4, 4), (8,)]
    seen: set[int] = set()
    background = [BGR[0][:, 0:4, 0:4], BGR[1][:, 8:12, 12:16]]
    for number in range(6):
        images, labels = layer.batch(number)
        assert labels[:5].tolist() == [0] * 5 and labels.dtype == torch.int64
        assert all(any(np.array_equal(image, known) for known in background) for image in images[:5].numpy())
        for image, label in zip(images[5:].numpy(), labels[5:].tolist(), strict=True):
            at, x, y = OBJECTS[label]
            assert np.array_equal(image, BGR[at][:, y : y + 4, x : x + 4])
            seen.add(label)
    assert seen == set(OBJECTS)


def test_what_is_drawn_is_a_function_of_seed_and_batch(make: Make, windows: Path) -> None:
    text = layer_text("batch_size: 20", "crop_size: 4 mirror: true")
    layer, _ = make(text, seed=1)
    passes = [layer.batch(number)[0] for number in range(3)]
    assert torch.equal(make(text, TEST, seed=1)[0].batch(2)[0], passes[2])
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(make(text, seed=2)[0].batch(0)[0], passes[0])


def only(folder: Path, box: str) -> None:
    (folder / "list.txt").write_text(f"# 0 im/0.png 3 12 16 2 4 0.9 {box} 1 0.1 0 0 3 3\n")


OBJECT = "batch_size: 16 fg_fraction: 1"


def test_windows_are_resized_and_mirrored(make: Make, windows: Path) -> None:
    only(windows, "2 3 9 7")
    images, _ = make(layer_text(OBJECT, "crop_size: 6 mirror: true"))[0].batch(0)
    whole = resize(BGR[0][:, 3:8, 2:10], (6, 6))
    mirrored = [np.array_equal(image, whole[:, :, ::-1]) for image in images.numpy()]
    assert all(m or np.array_equal(image, whole) for m, image in zip(mirrored, images.numpy(), strict=True))
    assert 0 < sum(mirrored) < 16


@pytest.mark.parametrize("mirror", ["", "mirror: true"])
def test_context_beyond_the_image_is_zero(make: Make, windows: Path, mirror: str) -> None:
    """Columns and rows 0 to 3, at crop_size 8 with 2 pixels of context: -2 to 6, of which 0 to 6 exist."""
    only(windows, "0 0 3 3")
    transform = f"crop_size: 8 mean_value: 10 mean_value: 20 mean_value: 30 {mirror}"
    images, _ = make(layer_text(f"{OBJECT} context_pad: 2 scale: 0.5", transform))[0].batch(0)
    part = resize(BGR[0][:, 0:7, 0:7], (6, 6)).astype(np.float32)  # 7 of 9 columns, at 8 / 9: 6.2
    values = (part - np.array([10, 20, 30], np.float32)[:, None, None]) * 0.5
    plain = np.zeros((3, 8, 8), np.float32)
    plain[:, 2:, 2:] = values
    mirrored = np.zeros((3, 8, 8), np.float32)
    mirrored[:, 2:, :6] = values[:, :, ::-1]
    for image in images.numpy():
        assert np.array_equal(image, plain) or (mirror and np.array_equal(image, mirrored))


def test_a_square_is_taken_around_a_window(make: Make, windows: Path) -> None:
    """Columns 6 to 7, rows 2 to 9: the square of 9 x 9 pixels with the same centre, as Caffe rounds it."""
    only(windows, "6 2 7 9")
    images, _ = make(layer_text(f'{OBJECT} crop_mode: "square"', "crop_size: 9"))[0].batch(0)
    assert np.array_equal(images[0].numpy(), BGR[0][:, 2:11, 3:12])


def test_a_mean_image_is_cut_at_its_centre(make: Make, windows: Path) -> None:
    only(windows, "2 3 5 6")
    mean = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    write_binaryproto(mean, windows / "mean.binaryproto")
    images, _ = make(layer_text(OBJECT, 'crop_size: 4 mean_file: "mean.binaryproto"'))[0].batch(0)
    np.testing.assert_allclose(images[0].numpy(), BGR[0][:, 3:7, 2:6] - mean[0, :, 2:6, 2:6], rtol=1e-6)


def test_cached_images_are_read_once(make: Make, windows: Path) -> None:
    layer, _ = make(layer_text("batch_size: 30 cache_images: true"))
    before = layer.batch(0)[0]
    for image in (windows / "im").iterdir():
        image.unlink()
    assert torch.equal(layer.batch(0)[0], before)


@pytest.mark.parametrize(
    ("own", "transform", "text", "said"),
    [
        ("batch_size: 0", "crop_size: 4", LIST, "batch_size of at least 1"),
        ("batch_size: 2", "", LIST, "needs a crop_size above 0"),
        ("batch_size: 2 context_pad: 2", "crop_size: 4", LIST, "crop_size above 4, twice the context_pad"),
        ('batch_size: 2 crop_mode: "x"', "crop_size: 4", LIST, '"warp" or "square", not "x"'),
        ("batch_size: 2 fg_fraction: 2", "crop_size: 4", LIST, "between 0 and 1"),
        ("batch_size: 2", "crop_size: 4", "", "has no window with an overlap of fg_threshold and more"),
        ("batch_size: 2 bg_threshold: 0", "crop_size: 4", LIST, "has no window with an overlap below bg_threshold"),
        ("batch_size: 2", "crop_size: 4", LIST.replace("3\n12", "1\n12"), "an image of 1 channels, expected 3"),
        ("batch_size: 2", "crop_size: 4", LIST[:-10], "line 15: found the end, expected"),
        ("batch_size: 2", "crop_size: 4", LIST.replace("# 1", "1"), "line 10: found '1', expected #"),
        (
            "batch_size: 2",
            "crop_size: 4",
            LIST.replace("4 0.9", "x 0.9"),
            "line 7: found 'x', expected a window",
        ),
        ("batch_size: 2", "crop_size: 4", LIST.replace("4 0.9", "0 0.9"), "line 7: an object of class 0"),
        ("batch_size: 40", "crop_size: 4", LIST.replace("im/0", "im/5"), "im/5.png: cannot be read: No such file"),
        (
            "batch_size: 40",
            "crop_size: 4",
            LIST.replace("11 7", "16 7"),
            "line 8: the window .* does not lie in im/0",
        ),
        (
            "batch_size: 40",
            "crop_size: 4",
            LIST.replace("11 7", "7 7"),
            "line 8: the window .* does not lie in im/0",
        ),
        ("batch_size: 2", 'crop_size: 4 mean_file: "no"', LIST, "no: cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    make: Make, windows: Path, own: str, transform: str, text: str, said: str
) -> None:
    (windows / "list.txt").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        make(layer_text(own, transform))[0].batch(0)
    assert 'layer "data" (WindowData)' in str(error.value) and "\n" not in str(error.value)


def test_broken_images_can_be_left_out_and_are_counted(make: Make, windows: Path) -> None:
    """With their windows: the classes 7 and 4 are of the other image."""
    (windows / "im" / "1.png").write_bytes(b"no image")
    layer, _ = make(layer_text("batch_size: 40 fg_fraction: 0.5"), skip_broken=True)
    assert set(layer.batch(0)[1].tolist()) == {0, 4, 7}
    assert layer.left_out == f"1 of 2 images cannot be read and are left out, the first at {windows}/list.txt: line 14"
    (windows / "im" / "0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png: cannot be read"):
        make(layer_text(), skip_broken=True)
