"""CIFAR-10 from the files its authors publish."""

import os
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imae.layers.data.cifar10_data import load_cifar10
from imae.layers.data.image_set import mean_image
from imae.layers.layer import TEST
from imae.prototxt_like.binary import read_binaryproto
from imae.prototxt_like.errors import InputError

Make = Callable[..., Any]
MEAN = Path(__file__).resolve().parents[3] / "../shared/data/resnet20/mean.binaryproto"


def test_the_binary_version_is_read_in_order(mini_cifar10: Path) -> None:
    for source in (mini_cifar10, mini_cifar10 / "cifar-10-batches-bin"):
        images, labels = load_cifar10(source, True)
        assert images.shape == (20, 3, 32, 32)
        assert images[:, 0, 0, 0].tolist() == list(range(20))
        assert labels.tolist() == [i % 10 for i in range(20)]
        images, labels = load_cifar10(source, False)
        assert images[:, 0, 0, 0].tolist() == list(range(20, 26))
    first = np.fromfile(mini_cifar10 / "cifar-10-batches-bin/data_batch_1.bin", np.uint8)
    np.testing.assert_array_equal(load_cifar10(mini_cifar10, True)[0][0].flatten(), first[1:3073])


def test_nets_of_a_process_share_one_copy(mini_cifar10: Path) -> None:
    assert load_cifar10(mini_cifar10, True)[0] is load_cifar10(mini_cifar10 / "cifar-10-batches-bin", True)[0]


@pytest.mark.slow
def test_the_real_data_is_read_and_is_what_was_published(cifar10_root: Path) -> None:
    images, labels = load_cifar10(cifar10_root, True)
    assert images.shape == (50_000, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images[0, :, 0, 0].tolist() == [59, 62, 63]
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert labels.bincount().tolist() == [5000] * 10
    images, labels = load_cifar10(cifar10_root / "cifar-10-batches-py", False)
    assert images.shape == (10_000, 3, 32, 32)
    assert labels[:5].tolist() == [3, 8, 8, 0, 6]


@pytest.mark.slow
@pytest.mark.skipif(not MEAN.exists(), reason="Caffe's mean image is not at ../shared/data/resnet20")
def test_the_mean_image_is_caffes(cifar10_root: Path) -> None:
    np.testing.assert_array_equal(mean_image(load_cifar10(cifar10_root, True)[0]), read_binaryproto(MEAN)[0])


def test_a_missing_data_set_says_where_it_was_looked_for(make: Make, tmp_path: Path) -> None:
    prototxt = 'type: "Cifar10Data" top: "data" cifar10_data_param { batch_size: 1 source: "nowhere" }'
    with pytest.raises(
        InputError, match=r'layer "data" \(Cifar10Data\): CIFAR-10 not found: nowhere is not and does not'
    ):
        make(prototxt)
    with pytest.raises(InputError, match="needs source"):
        make('type: "Cifar10Data" top: "data" cifar10_data_param { batch_size: 1 }')


def test_a_file_with_another_checksum_is_named_and_not_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trap = b"cbuiltins\nexec\n(Vraise SystemExit\ntR."  # a pickle that ends the process
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(trap)
    with pytest.raises(InputError, match=r"the file data_batch_1 is damaged: its MD5 sum is not") as error:
        load_cifar10(tmp_path, True)
    assert str(folder) in str(error.value)


def test_a_file_missing_from_the_real_data_is_named(cifar10_part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").symlink_to(cifar10_part / folder.name / "data_batch_1")
    with pytest.raises(InputError, match="the file data_batch_2 of CIFAR-10 is missing"):
        load_cifar10(tmp_path, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3072), "3072 bytes, expected a multiple of 3073"),
        (b"", "0 bytes, expected a multiple of 3073"),
        (bytes(3073) + b"\x0a" + bytes(3072), "record 1 has the label 10, expected 0 to 9"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_binary_file_is_named(mini_cifar10: Path, content: bytes | None, message: str) -> None:
    path = mini_cifar10 / "cifar-10-batches-bin/data_batch_4.bin"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_cifar10(mini_cifar10, True)
    assert "data_batch_4.bin" in str(error.value)


def test_a_download_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    from torchvision.datasets import CIFAR10

    def download(self: CIFAR10) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(CIFAR10, "download", download)
    with pytest.raises(InputError, match=r"CIFAR-10 cannot be downloaded to new from https://.*no network"):
        make('type: "Cifar10Data" top: "data" cifar10_data_param { batch_size: 1 source: "new" download: true }', TEST)


def test_a_download_is_advised_only_where_it_is_a_setting(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unpack the archive .* there, or set download: true$"):
        make('type: "Cifar10Data" top: "data" cifar10_data_param { batch_size: 1 source: "nowhere" }')
    with pytest.raises(InputError, match=r"unpack the archive .* there$"):
        load_cifar10(tmp_path / "nowhere", True)


def test_a_pipe_in_the_folder_is_named_and_not_waited_for(make: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data_batch_1")
    with pytest.raises(InputError, match="data_batch_1: is a named pipe, expected a regular file"):
        load_cifar10(tmp_path, True)
