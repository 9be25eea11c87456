"""Mean images as .binaryproto and .npy."""

from pathlib import Path

import numpy as np
import pytest

from imae.prototxt_like.binary import read_binaryproto
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.mean_file import read_mean, write_mean
from imae.prototxt_like.schema import BlobProto

MEAN = Path(__file__).resolve().parents[2] / "../shared/data/resnet20/mean.binaryproto"
IMAGE = np.random.default_rng(0).random((3, 4, 5), np.float32)


def test_a_mean_is_written_in_the_form_of_its_ending_and_read_the_same(tmp_path: Path) -> None:
    write_mean(IMAGE, tmp_path / "mean.binaryproto")
    write_mean(IMAGE, tmp_path / "mean.npy")
    blob = BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 4, 5) and not blob.HasField("shape")
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.binaryproto"), IMAGE[np.newaxis])
    np.testing.assert_array_equal(np.load(tmp_path / "mean.npy"), IMAGE)
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.npy"), IMAGE)


@pytest.mark.skipif(not MEAN.exists(), reason=f"{MEAN} is absent")
def test_a_real_mean_is_the_same_as_npy(tmp_path: Path) -> None:
    mean = read_mean(MEAN)
    write_mean(mean[0], tmp_path / "mean.npy")
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.npy"), read_binaryproto(MEAN)[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64, ">f4"])
def test_an_npy_of_other_numbers_becomes_floats(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", (100 * IMAGE).astype(dtype), allow_pickle=False)
    found = read_mean(tmp_path / "mean.npy")
    assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(found, (100 * IMAGE).astype(dtype))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"text", "holds no array of numbers"), (None, "value 1 is nan, expected a finite number")],
)
def test_what_is_no_mean_is_said_in_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    np.save(path, [1, np.nan])
    if content:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_mean(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"mean\.npy: "):
        read_mean(path)
