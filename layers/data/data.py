"""Data: images from an LMDB or a LevelDB of Caffe's Datum records."""

import math
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.data.data_layer import DataLayer, readers
from imae.layers.data.image_decode import decode_view
from imae.layers.data.leveldb_file import CURRENT_FILE, LevelDbFile
from imae.layers.data.lmdb_file import DATA_FILE, LmdbFile
from imae.layers.data.order import in_epochs
from imae.layers.data.transform import Transform
from imae.layers.layer import Shapes, describe
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import Datum

_ADVICE = (
    "images of different sizes need crop_size or a batch_size of 1, encoded ones of different channels force_color or "
    "force_gray"
)


class Data(DataLayer):
    """Tops: images (B x C x H x W, of the net's dtype) and, if there is a second top, labels (B, int64).

    The records come in the order of their keys, over and over: batch n begins at record n B; by `shuffle`, a field of
    forks, in a new permutation each epoch. As in Caffe, crop_size
    cuts at random in phase TRAIN and from the centre in TEST, while `mirror: true` mirrors in both. `rand_skip: n`
    starts at one of the first n records, by the net's seed. From batch to batch images may differ in size, and the net
    follows; within a batch they are of one size, as they are or cropped to it. Where the first record is an encoded
    image, they are decoded on all cores.
    """

    type = "Data"

    def setup(self, bottoms: Shapes) -> None:
        """Open the database, and read its first record."""
        param = self.settings("data_param", "the folder of an LMDB or a LevelDB")
        transform = self.param.transform_param
        if transform.force_color and transform.force_gray:
            raise self.error("transform_param has both force_color and force_gray, it takes one of them")
        self._color = True if transform.force_color else False if transform.force_gray else None
        self._transform = Transform(self, random_crop=self.training, mirror=transform.mirror)
        with self.naming():
            self._folder = self.context.find(param.source)
            self._records = self._open()
            key, image, _ = self._decode(0)
            encoded = Datum.FromString(self._records[0][1]).encoded
        self._map = readers(f"read {self.name}").map if encoded else map
        self._first_shape = self._transform.shape(image.shape, f"record {key}", self._folder)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The shapes by the first record; batches of other images have other shapes."""
        size = self.param.data_param.batch_size
        return [(size, *self._first_shape), (size,)][: len(self.param.top)]

    def _open(self) -> LmdbFile | LevelDbFile:
        """The records, by the backend; a folder that is of the other one is told as that."""
        param, folder = self.param.data_param, self._folder
        is_lmdb, is_leveldb = ((folder / file).exists() for file in (DATA_FILE, CURRENT_FILE))
        if param.backend == param.LMDB:
            if is_leveldb and not is_lmdb:
                raise InputError(f"{folder} is a LevelDB, which data_param must say: backend: LEVELDB")
            return LmdbFile(folder)
        if is_lmdb and not is_leveldb:
            raise InputError(f"{folder} is an LMDB, which data_param must say: backend: LMDB")
        return LevelDbFile(folder)

    @property
    def num_images(self) -> int:
        return len(self._records)

    def batch(self, number: int) -> list[Tensor]:
        param, device = self.param.data_param, self.context.device
        position = torch.arange(number * param.batch_size, (number + 1) * param.batch_size)
        stream = f"{self.name} shuffle" if param.shuffle else None
        order = in_epochs(position + self.skipped(param.rand_skip), self.num_images, self.context.passes.seed, stream)
        numbers = order.tolist()
        with self.naming():
            keys, images, labels = zip(*self._map(self._decode, numbers), strict=True)
        data = self._transform.together(images, position, "record", keys, self._folder, _ADVICE)
        return [data, torch.tensor(labels, device=device)][: len(self.param.top)]

    def _decode(self, number: int) -> tuple[str, NDArray[Any], int]:
        """Return the key, image (C x H x W, uint8 or float32) and label of record `number` modulo their count."""
        key_bytes, value = self._records[number % len(self._records)]
        key = f'"{key_bytes.decode(errors="backslashreplace")}"'
        return key, *decode_datum(value, f"{self._folder}: record {key}", self._color)


def decode_datum(value: bytes, record: str, color: bool | None = None) -> tuple[NDArray[Any], int]:
    """Return the image (C x H x W, uint8 or float32) and label of a serialised Datum, if encoded by `decode_view`.

    Raises InputError, beginning with `record`, if it is none.
    """
    try:
        datum = Datum.FromString(value)
    except DecodeError:
        raise InputError(f"{record} ({len(value)} bytes) is no Datum") from None
    if datum.encoded:
        try:
            return decode_view(datum.data, color), datum.label
        except InputError as error:
            raise InputError(f"{record} holds {error}") from None
    shape = (datum.channels, datum.height, datum.width)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if min(shape) < 1 or math.prod(shape) != values.size:
        raise InputError(f"{record} holds {values.size} values for an image of {describe(shape)}")
    return values.reshape(shape), datum.label
