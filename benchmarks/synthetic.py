"""Data of the right form and size to measure with: noise as an LMDB, and as the binary version of CIFAR-10."""

from pathlib import Path

import lmdb
import numpy as np

from imae.prototxt_like.schema import Datum

PADDED = (3, 40, 40)
"""CIFAR-10 with 4 zeros on each side, as Caffe's users crop from it."""
CIFAR10_IMAGE = 3 * 32 * 32


def write_lmdb(folder: Path, records: int) -> Path:
    """Write `records` Datum records of `PADDED` images with labels 0 to 9; return `folder`."""
    generator = np.random.default_rng(1)
    channels, height, width = PADDED
    size = channels * height * width
    with (
        lmdb.open(str(folder), map_size=records * 2 * (size + 4096) + 2**24) as database,
        database.begin(write=True) as transaction,
    ):
        for i in range(records):
            datum = Datum(channels=channels, height=height, width=width, data=generator.bytes(size), label=i % 10)
            transaction.put(f"{i:08d}".encode(), datum.SerializeToString(), append=True)
    return folder


def write_cifar10(folder: Path, images: int) -> Path:
    """Write the files of `cifar-10-batches-bin`, `images` for training and for testing; return `folder`."""
    generator = np.random.default_rng(1)
    inside = folder / "cifar-10-batches-bin"
    inside.mkdir(parents=True)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    for name, count in [*((name, images // 5) for name in names), ("test_batch.bin", images)]:
        content = generator.integers(256, size=(count, 1 + CIFAR10_IMAGE), dtype=np.uint8)
        content[:, 0] %= 10
        (inside / name).write_bytes(content.tobytes())
    return folder
