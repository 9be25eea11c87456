"""Converting CIFAR-10 to what Caffe reads: LMDBs of Datum records, and mean images."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
from torch import Tensor
from torch.nn.functional import pad as zero_pad

from imae.layers.data.cifar10_data import load_cifar10
from imae.layers.data.image_set import mean_image
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import temporary_folder, write_atomically
from imae.prototxt_like.schema import BlobProto, Datum

Progress = Callable[[int, int], None]
_COMMIT = 1000
"""Records a transaction."""


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
    total, done = sum(len(labels) for _, labels in databases.values()), 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out, ".convert_") as temporary:
            for name, (images, labels) in databases.items():
                for count in _write_lmdb(temporary / name, images, labels):
                    done += count
                    if progress:
                        progress(done, total)
            for name, images in means.items():
                write_atomically(temporary / name, _mean_blob(images))
            for target in targets:
                if target.is_dir():
                    shutil.rmtree(target)
                (temporary / target.name).replace(target)
    except (OSError, lmdb.Error) as error:
        raise InputError(f"{out}: cannot be written: {error}") from error
    return targets


def _write_lmdb(folder: Path, images: Tensor, labels: Tensor) -> Iterator[int]:
    """Write Datum records with the keys 00000, 00001, ...; yield how many each transaction held."""
    _, channels, height, width = images.shape
    room = images[0].numel() // 4096 + 2  # pages a record at most, of 4 KiB
    with lmdb.open(str(folder), map_size=len(images) * room * 4096 + 2**24) as database:
        for first in range(0, len(images), _COMMIT):
            last = min(first + _COMMIT, len(images))
            with database.begin(write=True) as transaction:
                for i in range(first, last):
                    data, label = images[i].numpy().tobytes(), int(labels[i])
                    datum = Datum(channels=channels, height=height, width=width, data=data, label=label)
                    transaction.put(f"{i:05d}".encode(), datum.SerializeToString(), append=True)
            yield last - first


def _mean_blob(images: Tensor) -> bytes:
    """Return the mean of `images` with the four old dimensions, which every version of Caffe reads."""
    mean = mean_image(images)
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width, data=mean.flatten().tolist())
    return bytes(blob.SerializeToString())
