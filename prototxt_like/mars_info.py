"""The tables and frame names that MARS is published with."""

import os
import re
import struct
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

IntArray = NDArray[np.int64]
Part = Literal["train", "test"]

# Element types of a MAT-file.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, _COMPRESSED = 14, 15
_LARGEST = 2**26


class Tracks(NamedTuple):
    """A track table, columns of (N,): frames from `first` to `last`, both inclusive and counted from 1.

    `person` is -1 for junk and 0 for a distractor; `camera` counts from 1.
    """

    first: IntArray
    last: IntArray
    person: IntArray
    camera: IntArray


def read_tracks(path: str | os.PathLike[str]) -> Tracks:
    """Read `info/tracks_train_info.mat` or `info/tracks_test_info.mat` (N x 4).

    Raises InputError, naming the file, if it is damaged, and the track, if its row cannot be one.
    """
    table = _read_matrix(path)
    if table.shape[1] != len(Tracks._fields) or not len(table):
        raise InputError(f"{path}: table of shape {table.shape}, expected (tracks, 4)")
    tracks = Tracks(*table.T)
    broken = (tracks.first < 1) | (tracks.last < tracks.first) | (tracks.person < -1) | (tracks.camera < 1)
    if broken.any():
        row = int(broken.argmax())
        raise InputError(
            f"{path}: track {row + 1} is {table[row].tolist()}, "
            "expected first frame >= 1, last frame >= first, person >= -1, camera >= 1"
        )
    return tracks


def read_query_index(path: str | os.PathLike[str]) -> IntArray:
    """Read `info/query_IDX.mat`: the rows of the test tracks that are the queries (queries,), here counted from 0.

    Raises InputError, naming the file, if it is damaged or no such index.
    """
    table = _read_matrix(path)
    if 1 not in table.shape or table.min(initial=1) < 1:
        raise InputError(f"{path}: array of shape {table.shape}, expected one row of indices from 1")
    return table.ravel() - 1


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read `info/train_name.txt` or `info/test_name.txt`: the frame file names, one a line, in the tracks' order.

    Raises InputError, naming the file and the line, for anything but a plain file name.
    """
    try:
        names = read_bytes(path).decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not ASCII, expected one file name a line") from error
    for line, name in enumerate(names, 1):
        # Names become paths: nothing in them may lead out of the data set's folder.
        if not re.fullmatch(r"[\w-]{4}[\w.-]+", name):
            raise InputError(f"{path}:{line}: {name!r:.80}, expected a file name such as 0001C1T0001F001.jpg")
    return names


def frame_path(root: str | os.PathLike[str], part: Part, name: str) -> Path:
    """Return where the frame `name` of `part` lies: `root`/bbox_`part`/<first 4 characters of the name>/`name`."""
    return Path(root) / f"bbox_{part}" / name[:4] / name


def _read_matrix(path: str | os.PathLike[str]) -> IntArray:
    data = read_bytes(path)
    try:
        values = _parse_mat(data).astype(np.float64)
    except (ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: not a MATLAB 5 file with one matrix of numbers: {error}") from error
    if not (np.isfinite(values) & (values == np.trunc(values)) & (np.abs(values) < 2**53)).all():
        raise InputError(f"{path}: holds a value that is not a whole number")
    return values.astype(np.int64)


def _parse_mat(data: bytes) -> NDArray[np.number]:
    """Return the only variable of a level 5 MAT-file; ValueError, struct.error or zlib.error if there is none.

    Source: "MAT-File Format", The MathWorks. Not scipy.io.loadmat: it crashes the process on some damaged files.
    """
    byte_order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(data[124:128])
    if byte_order is None:
        raise ValueError("wrong header (MATLAB writes the format with -v6 and -v7, not with -v7.3)")
    (variable,) = _elements(data[128:], byte_order, 1)
    if variable[0] == _COMPRESSED:
        inflate = zlib.decompressobj()
        (variable,) = _elements(inflate.decompress(variable[1], _LARGEST), byte_order, 1)
        if not inflate.eof:
            raise ValueError(f"its compressed variable is cut off or larger than {_LARGEST} bytes")
    if variable[0] != MATRIX:
        raise ValueError(f"its variable is of type {variable[0]}")
    # A complex, sparse, text or cell variable fails here: it has more parts, or parts of other types.
    _, (_, dimensions), _, (kind, values) = _elements(variable[1], byte_order, 4)
    if kind not in _NUMBERS:
        raise ValueError(f"its values are of type {kind}")
    rows, columns = np.frombuffer(dimensions, f"{byte_order}i4").tolist()
    matrix = np.frombuffer(values, byte_order + _NUMBERS[kind])
    if min(rows, columns) < 0 or matrix.size != rows * columns:
        raise ValueError(f"{matrix.size} values for {rows} x {columns}")
    return matrix.reshape(rows, columns, order="F")


def _elements(data: bytes, byte_order: str, expected: int) -> list[tuple[int, bytes]]:
    """Split into (type, content); the tag is 8 bytes, or 4 where the content is that small."""
    elements: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data) and len(elements) <= expected:
        kind, size = struct.unpack_from(f"{byte_order}II", data, at)
        begin, end = at + 8, at + 8 + size
        if kind >> 16:
            kind, size, begin, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        content = data[begin:end][:size]
        if len(content) < size:
            raise ValueError(f"an element of {size} bytes, found {len(content)}")
        elements.append((kind, content))
        # Compressed elements alone are not padded to 8 bytes.
        at = end if kind == _COMPRESSED else end + -end % 8
    if len(elements) != expected:
        raise ValueError(f"{'fewer' if len(elements) < expected else 'more'} than {expected} elements")
    return elements
