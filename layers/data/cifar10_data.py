"""Cifar10Data: CIFAR-10 from the files its authors publish."""

import functools
import http.client
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imae.layers.data.image_set import ImageSetData
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import check_regular, read_bytes

_FOLDERS = {"cifar-10-batches-py": "data_batch_1", "cifar-10-batches-bin": "data_batch_1.bin"}
"""The published folders, each with a file by which it is known."""
_RECORD = 1 + 3 * 32 * 32


class Cifar10Data(ImageSetData):
    """Images of 3 x 32 x 32 with values 0 to 255, and labels 0 to 9: 50,000 for training and 10,000 for testing.

    `source` is the folder `cifar-10-batches-py` or `cifar-10-batches-bin`, or the folder that contains one of them, or,
    with `download: true`, the folder to download it to. Both hold the same images in the same, random order.
    """

    type = "Cifar10Data"
    field = "cifar10_data_param"

    @property
    def num_classes(self) -> int:
        return 10

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        param = self.param.cifar10_data_param
        if not param.source:
            raise InputError("cifar10_data_param needs source, the folder with CIFAR-10")
        return load_cifar10(self.context.find(param.source), train, download=param.download)


def load_cifar10(source: Path, train: bool, *, download: bool | None = None) -> tuple[Tensor, Tensor]:
    """Return the images (N x 3 x 32 x 32, uint8) and labels (N, int64) of one split: shared, never change them.

    `source` is as in `Cifar10Data`; so is `download`, None where it is no setting that a user can change. Raises
    InputError if CIFAR-10 is not there, is damaged, or cannot be downloaded.
    """
    candidates = [source, *(source / name for name in _FOLDERS)]
    found = next((c for c in candidates if any((c / name).exists() for name in _FOLDERS.values())), None)
    if found is None and download:
        found = _download(source)
    if found is None:
        raise InputError(
            f"CIFAR-10 not found: {source} is not and does not contain {' or '.join(_FOLDERS)}; unpack the archive "
            f"of https://www.cs.toronto.edu/~kriz/cifar.html there{', or set download: true' * (download is False)}"
        )
    return _load(found.resolve(), train)


@functools.lru_cache(maxsize=2)  # one copy for all nets of the process
def _load(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    return _load_pickled(folder, train) if (folder / "data_batch_1").exists() else _load_binary(folder, train)


def _load_pickled(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Read the Python version with torchvision, which unpickles no file whose MD5 sum is not the published one."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    class Cifar10(CIFAR10):  # type: ignore[misc]
        base_folder = ""

    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        if (folder / name).exists():
            check_regular(folder / name)  # torchvision would wait for a pipe
    try:
        dataset = Cifar10(folder, train=train)
    except (OSError, RuntimeError) as error:
        for name, md5 in (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])):
            if not (folder / name).is_file():
                raise InputError(f"{folder}: the file {name} of CIFAR-10 is missing") from error
            if not check_integrity(str(folder / name), md5):
                raise InputError(
                    f"{folder}: the file {name} is damaged: its MD5 sum is not the published {md5}"
                ) from error
        raise InputError(f"{folder}: cannot be read: {error}") from error
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)


def _load_binary(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Read the binary version: in each file records of 1 byte, the label, and 3072 bytes, the image."""
    images, labels = [], []
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]:
        content = np.frombuffer(read_bytes(folder / name), np.uint8)
        if not content.size or content.size % _RECORD:
            raise InputError(
                f"{folder / name}: {content.size} bytes, expected a multiple of {_RECORD}, the bytes of a record"
            )
        records = content.reshape(-1, _RECORD)
        if (wrong := records[:, 0] > 9).any():
            index = int(wrong.argmax())
            raise InputError(f"{folder / name}: record {index} has the label {records[index, 0]}, expected 0 to 9")
        images.append(records[:, 1:].reshape(-1, 3, 32, 32))
        labels.append(records[:, 0].astype(np.int64))
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def _download(root: Path) -> Path:
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(root, download=True)
    except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
        raise InputError(f"CIFAR-10 cannot be downloaded to {root} from {CIFAR10.url}: {error}") from error
    return root / str(CIFAR10.base_folder)
