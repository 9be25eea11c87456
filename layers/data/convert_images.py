"""Converting image files to an LMDB of Datum records, as Caffe's convert_imageset does."""

import io
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imae.layers.data.data_layer import readers
from imae.layers.data.image_list import ImageList, read_image
from imae.layers.data.image_sources import Labelled
from imae.layers.layer import describe
from imae.layers.random_streams import permutation
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import read_bytes, temporary_folder, write_atomically
from imae.prototxt_like.schema import Datum

CLASSES = "classes.txt"
"""In the folder of the LMDB: the names of the classes, one a line, where they have any."""
_OWN = {"data.mdb", "lock.mdb", CLASSES}
_COMMIT = 2**26
"""Bytes of a transaction, and one more record."""
_AHEAD = 16
"""Images that are read before they are written."""
_LONGEST_KEY = 511
"""Bytes, of LMDB."""


@dataclass(frozen=True)
class Stored:
    """How images are stored: resized to `size` (H, W), gray, encoded as files of a type ("" for its own)."""

    size: tuple[int, int] | None = None
    gray: bool = False
    encode_type: str | None = None


def convert_images(
    source: Labelled,
    out: Path,
    stored: Stored,
    *,
    root: Path | None = None,
    shuffle: bool = False,
    seed: int = 0,
    check_size: bool = False,
    skip_broken: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write the images of `source` to an LMDB in the folder `out`; return how to name those that were left out.

    The keys are an image's number, of 8 digits, `_` and its name. A Datum holds channels, height, width, the planes
    blue, green, red, and the label; or, by `encode_type`, a file, which is the image's own where that has the type and
    is not resized. With `shuffle` they come in an order drawn by `seed`. The names are looked up in `root`, else as
    they stand, else beside the list. `progress` is called with (images done, all images). Interrupted, nothing is left.

    Raises InputError, naming its line, for an image that cannot be read, unless `skip_broken`, and by `check_size` for
    one of another size than the first; if `out` exists, unless by `force` it is a database; if it cannot be written.
    """
    if out.exists() and not force:
        raise InputError(f"{out} exists already, and is overwritten only with --force")
    if out.exists() and not (out.is_dir() and {entry.name for entry in out.iterdir()} <= _OWN):
        raise InputError(f"{out} is no LMDB, and is not overwritten")
    images, left_out = source.images, []
    order = permutation(len(images.names), seed, "convert images").tolist() if shuffle else [*range(len(images.names))]
    pool = readers("convert images")

    def read(index: int) -> tuple[Datum, tuple[int, ...]]:
        path = root / images.names[index] if root else _found(source.folder, images.names[index])
        try:
            return _datum(path, int(images.labels[index]), stored)
        except InputError as error:
            raise InputError(f"{images.where(index)}: {error}" if images.lines else str(error)) from None

    def records() -> Iterator[tuple[bytes, bytes]]:
        first: tuple[tuple[int, ...], int] | None = None
        for done, (index, future) in enumerate(_in_order(order, lambda index: pool.submit(read, index)), 1):
            try:
                datum, shape = future.result()
            except InputError as error:
                if not skip_broken:
                    raise
                left_out.append(str(error))
                continue
            finally:
                if progress:
                    progress(done, len(order))
            first = first or (shape, index)
            if check_size and shape != first[0]:
                raise InputError(
                    f"{_name(images, index)} is an image of {describe(shape)}, the first, {_name(images, first[1])}, "
                    f"one of {describe(first[0])}"
                )
            key = f"{done - 1:08d}_{images.names[index]}".encode(errors="surrogateescape")
            if len(key) > _LONGEST_KEY:
                raise InputError(f"{_name(images, index)}: a name of {len(key) - 9} bytes, expected at most 502")
            yield key, datum.SerializeToString()

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent, ".convert_") as temporary:
            written = write_lmdb(temporary / out.name, records())
            if not written:
                raise InputError(f"{images.path}: none of {counted(len(order), 'image')} can be read: {left_out[0]}")
            if source.classes:
                names = "".join(f"{name}\n" for name in source.classes)
                write_atomically(temporary / out.name / CLASSES, names.encode(errors="surrogateescape"))
            if out.exists():
                shutil.rmtree(out)
            (temporary / out.name).replace(out)
    except (OSError, lmdb.Error) as error:
        raise InputError(f"{out}: cannot be written: {error}") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return left_out


def _in_order(order: list[int], begin: Callable[[int], Future[Any]]) -> Iterator[tuple[int, Future[Any]]]:
    """Begin a few ahead; yield each index with what was begun for it."""
    begun: deque[tuple[int, Future[Any]]] = deque()
    for index in order:
        begun.append((index, begin(index)))
        if len(begun) > _AHEAD:
            yield begun.popleft()
    yield from begun


def _found(folder: Path, name: str) -> Path:
    return Path(name) if Path(name).exists() else folder / name


def _name(images: ImageList, index: int) -> str:
    return f"{images.where(index)}: {images.names[index]}"


def _datum(path: Path, label: int, stored: Stored) -> tuple[Datum, tuple[int, ...]]:
    """Return an image file as Caffe's ReadImageToDatum does, with the same fields set, and its C x H x W."""
    image = read_image(path, not stored.gray, stored.size)
    if stored.encode_type is None:
        channels, height, width = image.shape
        data = np.ascontiguousarray(image).tobytes()
        datum = Datum(channels=channels, height=height, width=width, data=data, label=label, encoded=False)
    else:
        own = path.suffix[1:].lower()
        kind = stored.encode_type or own
        same = kind == own or (kind == "jpg" and own == "jpeg")
        data = read_bytes(path) if same and not stored.size else _encoded(image, kind, path)
        datum = Datum(data=data, label=label, encoded=True)
    return datum, image.shape


def _encoded(image: NDArray[np.uint8], kind: str, path: Path) -> bytes:
    """Return the file of an image (blue, green, red) of the type that has the ending `kind`."""
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, Image.registered_extensions()[f".{kind}"], quality=95)  # OpenCV's
    except (KeyError, OSError, ValueError) as error:
        raise InputError(f'{path}: cannot be encoded as "{kind}": {error}') from None
    return file.getvalue()


def write_lmdb(folder: Path, records: Iterator[tuple[bytes, bytes]]) -> int:
    """Write records in the order of their keys; return how many. The file grows as it is needed."""
    written, size, part = 0, 0, []
    with lmdb.open(str(folder), map_size=2**28) as database:
        for record in records:
            part.append(record)
            size += len(record[1])
            if size > _COMMIT:
                written += _commit(database, part)
                size, part = 0, []
        return written + _commit(database, part)


def _commit(database: Any, part: list[tuple[bytes, bytes]]) -> int:
    """Put these records in one transaction."""
    while True:
        try:
            with database.begin(write=True) as transaction:
                for key, value in part:
                    transaction.put(key, value, append=True)
            return len(part)
        except lmdb.MapFullError:
            database.set_mapsize(2 * database.info()["map_size"])
