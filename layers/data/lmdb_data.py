"""Data: images from an LMDB of Caffe's Datum records."""

import itertools
import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.counter_random import random_below
from imae.layers.data.data_layer import DataLayer
from imae.layers.data.image_decode import decode_image
from imae.layers.data.transform import Transform
from imae.layers.layer import Shapes, describe, register
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import Datum

Record = tuple[bytes, bytes]


@register
class Data(DataLayer):
    """Tops: images (B x C x H x W, of the net's dtype) and, if there is a second top, labels (B, int64).

    The records come in the order of their keys, over and over: batch n begins at record n B. As in Caffe, crop_size
    cuts at random in phase TRAIN and from the centre in TEST, while `mirror: true` mirrors in both. `rand_skip: n`
    starts at one of the first n records, by the net's seed.
    """

    type = "Data"

    def setup(self, bottoms: Shapes) -> Shapes:
        """Open the database and return the tops' shapes, by its first record."""
        param, transform = self.param.data_param, self.param.transform_param
        if param.backend != param.LMDB:
            raise self.error("a LEVELDB cannot be read: convert it to an LMDB, and say backend: LMDB")
        if not param.source:
            raise self.error("data_param needs source, the folder of an LMDB")
        if param.batch_size < 1:
            raise self.error("data_param needs a batch_size of at least 1")
        if transform.force_color and transform.force_gray:
            raise self.error("transform_param has both force_color and force_gray, it takes one of them")
        self._color = True if transform.force_color else False if transform.force_gray else None
        try:
            self._records = Records(self.context.find(param.source))
            image, _ = self._decode(self._records.read(0, 1)[0])
        except InputError as error:
            raise self.error(str(error)) from None
        self._skip = 0
        if param.rand_skip:
            zero = torch.zeros((), dtype=torch.int64)
            self._skip = int(random_below(param.rand_skip, self.context.seed, f"{self.name} rand_skip", zero))
        self._transform = Transform(self, random_crop=self.context.training, mirror=transform.mirror)
        self._shape = self._transform.shape(image.shape)
        return [(param.batch_size, *self._shape), (param.batch_size,)][: len(self.param.top)]

    @property
    def num_images(self) -> int:
        """How many records the database holds."""
        return self._records.count

    def batch(self, number: int) -> list[Tensor]:
        """Return the tops of forward pass `number`."""
        size, device = self.param.data_param.batch_size, self.context.device
        try:
            records = self._records.read(number * size + self._skip, size)
            images, labels = zip(*map(self._decode, records), strict=True)
        except InputError as error:
            raise self.error(str(error)) from None
        position = torch.arange(number * size, (number + 1) * size)
        for (key, _), image in zip(records, images, strict=True):
            if (shape := self._transform.shape(image.shape, f"record {_name(key)}")) != self._shape:
                raise self.error(
                    f"record {_name(key)} gives an image of {describe(shape)}, the first record one of "
                    f"{describe(self._shape)}: images of different sizes need crop_size, of different channels "
                    "force_color or force_gray"
                )
        if len({(image.shape, image.dtype) for image in images}) == 1:
            data = self._transform(torch.from_numpy(np.stack(images)).to(device), position.to(device))
        else:
            one_by_one = zip(images, position.split(1), strict=True)
            data = torch.cat(
                [self._transform(torch.from_numpy(x)[None].to(device), p.to(device)) for x, p in one_by_one]
            )
        return [data, torch.tensor(labels, device=device)][: len(self.param.top)]

    def _decode(self, record: Record) -> tuple[NDArray[Any], int]:
        """Return the image (C x H x W, uint8 or float32) and label of one record."""
        key, value = record
        try:
            datum = Datum.FromString(value)
        except DecodeError:
            raise InputError(f"record {_name(key)} ({len(value)} bytes) is no Datum") from None
        if datum.encoded:
            try:
                return decode_image(datum.data, self._color), datum.label
            except InputError as error:
                raise InputError(f"record {_name(key)} holds {error}") from None
        shape = (datum.channels, datum.height, datum.width)
        values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
        if min(shape) < 1 or math.prod(shape) != values.size:
            raise InputError(f"record {_name(key)} holds {values.size} values for an image of {describe(shape)}")
        return values.reshape(shape), datum.label


class Records:
    """The records of an LMDB in the order of their keys, over and over; cheap to read on where the last read stopped.

    Raises InputError, naming the folder, if it is missing, holds no LMDB, an empty one, or one that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._database = _open(folder)
        self.count = self._database.count
        self._next: int | None = None
        self._ahead: Iterator[Record] = iter(())

    def read(self, start: int, count: int) -> list[Record]:
        """Return (key, value) of `count` records from record `start` on; both may exceed the number of records."""
        start %= self.count
        if start != self._next:
            self._ahead = self._database.cycle(start)
        self._next = None  # should the reading fail
        records = list(itertools.islice(self._ahead, count))
        self._next = (start + count) % self.count
        return records


class _Database:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._env = lmdb.open(str(folder), readonly=True, lock=False)
            pages, page_size = self._env.info()["last_pgno"] + 1, self._env.stat()["psize"]
            self.count: int = self._env.stat()["entries"]
        except lmdb.Error as error:
            raise InputError(f"{folder}: no LMDB, or a damaged one: {error}") from error
        size = (folder / "data.mdb").stat().st_size
        if size < pages * page_size:  # reading the mapped memory behind the file's end would kill the process
            raise InputError(
                f"{folder / 'data.mdb'}: is cut short: {size} bytes, expected {pages} pages of {page_size} bytes"
            )
        if not self.count:
            raise InputError(f"{folder}: the LMDB has no records")

    def cycle(self, start: int) -> Iterator[Record]:
        """Yield the records from number `start` on, over and over."""
        try:
            with self._env.begin() as transaction, transaction.cursor() as cursor:
                while True:
                    there = cursor.first()
                    for _ in range(start):
                        there = there and cursor.next()
                    if not there:
                        raise lmdb.CorruptedError(f"it holds fewer than its {self.count} records")
                    yield from cursor.iternext()
                    start = 0
        except lmdb.Error as error:
            raise InputError(f"{self.folder}: the LMDB is damaged: {error}") from error


_databases: "weakref.WeakValueDictionary[tuple[int, int], _Database]" = weakref.WeakValueDictionary()


def _open(folder: Path) -> _Database:
    """Open the LMDB in `folder`, or share it with the layers that have it open: a process can open one only once."""
    try:
        status = (folder / "data.mdb").stat()
    except OSError as error:
        raise InputError(f"{folder}: no LMDB: expected a folder with a file data.mdb ({error.strerror})") from error
    key = (status.st_dev, status.st_ino)
    database = _databases.get(key)
    if database is None:
        database = _databases[key] = _Database(folder)
    return database


def _name(key: bytes) -> str:
    return f'"{key.decode(errors="backslashreplace")}"'
