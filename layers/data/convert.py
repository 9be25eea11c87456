"""Converting CIFAR-10 to what Caffe reads: LMDBs of Datum records, and mean images."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad as zero_pad

from imae.layers.data.cifar10_data import load_cifar10
from imae.layers.data.convert_images import write_lmdb
from imae.layers.data.data import decode_datum
from imae.layers.data.image_set import mean_image
from imae.layers.data.leveldb_file import CURRENT_FILE, LevelDbFile
from imae.layers.data.lmdb_file import LmdbFile
from imae.layers.layer import describe
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import temporary_folder
from imae.prototxt_like.mean_file import write_mean
from imae.prototxt_like.schema import Datum

Progress = Callable[[int, int], None]


def convert_cifar10(
    root: Path, out: Path, *, pad: int = 0, force: bool = False, progress: Progress | None = None
) -> list[Path]:
    """Write CIFAR-10, read from `root` (as `Cifar10Data`'s source), to the folder `out`; return what was written.

    - `cifar10_train_lmdb` and `cifar10_test_lmdb`, 50,000 and 10,000 records in the published order, as Caffe's
      convert_cifar_data writes them, and `mean.binaryproto`, the mean of the training images, as compute_image_mean;
    - with `pad`, also `cifar10_pad{pad}_train_lmdb`, the training images with `pad` zeros on each side, and its
      `mean_pad.binaryproto`.

    `progress` is called with (records written, all records). Everything is complete before anything takes its name.
    Raises InputError if CIFAR-10 is not in `root`, something is in the way (unless `force`), or `out` is not writable.
    """
    (images, labels), test = load_cifar10(root, True), load_cifar10(root, False)
    databases = {"cifar10_train_lmdb": (images, labels), "cifar10_test_lmdb": test}
    means = {"mean.binaryproto": images}
    if pad:
        padded = zero_pad(images, (pad,) * 4)
        databases[f"cifar10_pad{pad}_train_lmdb"] = (padded, labels)
        means["mean_pad.binaryproto"] = padded
    targets = [out / name for name in (*databases, *means)]
    if not force and (existing := next((target for target in targets if target.exists()), None)):
        raise InputError(f"{existing} exists already, and is overwritten only with --force")
    total, done = sum(len(labels) for _, labels in databases.values()), itertools.count(1)

    def records(images: Tensor, labels: Tensor) -> Iterator[tuple[bytes, bytes]]:
        """Datum records with the keys 00000, 00001, ..."""
        _, channels, height, width = images.shape
        for number, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
            datum = Datum(channels=channels, height=height, width=width, data=image.tobytes(), label=label)
            yield f"{number:05d}".encode(), datum.SerializeToString()
            if progress:
                progress(next(done), total)

    try:
        out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out, ".convert_") as temporary:
            for name, (images, labels) in databases.items():
                write_lmdb(temporary / name, records(images, labels))
            for name, images in means.items():
                write_mean(mean_image(images).numpy(), temporary / name)
            for target in targets:
                if target.is_dir():
                    shutil.rmtree(target)
                (temporary / target.name).replace(target)
    except (OSError, lmdb.Error) as error:
        raise InputError(f"{out}: cannot be written: {error}") from error
    return targets


def convert_mean(source: Path, out: Path, progress: Progress | None = None) -> NDArray[np.float32]:
    """Write the mean image of a database, as compute_image_mean, to a .binaryproto or .npy; return it, C x H x W.

    Sums are of doubles, where Caffe's are of floats. `progress` is called as by `convert_cifar10`. Raises InputError if
    `source` is no LMDB or LevelDB of Datum records, or an image differs from the first in shape.
    """
    records = LevelDbFile(source) if (source / CURRENT_FILE).exists() else LmdbFile(source)
    total = np.zeros(0)
    for number in range(len(records)):
        key, value = records[number]
        record = f'{source}: record "{key.decode(errors="backslashreplace")}"'
        image, _ = decode_datum(value, record)
        if not number:
            total = np.zeros(image.shape)
        if image.shape != total.shape:
            raise InputError(
                f"{record} is an image of {describe(image.shape)}, the first one of {describe(total.shape)}"
            )
        total += image
        if progress:
            progress(number + 1, len(records))
    mean: NDArray[np.float32] = (total / len(records)).astype(np.float32)
    write_mean(mean, out)
    return mean
