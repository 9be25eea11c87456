"""Reads the tables that MARS is published with, and writes a miniature data set in the same layout."""

import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically

IntArray = NDArray[np.int64]
Part = Literal["train", "test"]

CAMERAS = 6

# Element types of a MAT-file.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
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


def write_miniature(
    root: str | os.PathLike[str],
    *,
    persons: int = 4,
    tracks_per_person: int = 4,
    frames_per_track: int = 3,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
) -> None:
    """Write a complete MARS in small under `root`, the same bytes for the same arguments.

    `persons` people are for training (1, 3, 5, ...) and as many others for testing (2, 4, 6, ...), each seen in
    `tracks_per_person` tracks by cameras 1, 2, ... in turn; the test part starts with as many tracks of junk and of
    distractors. Frames are `size` = (height, width) pixels; the colours of the clothes tell the person, the light
    depends on the camera, noise and place on the frame. A query is the first track of every test person and camera.

    Raises InputError for arguments out of range and if a file cannot be written.
    """
    if not 1 <= persons < 5000 or tracks_per_person < 2 or frames_per_track < 1 or min(size) < 8 or seed < 0:
        raise InputError(
            f"MARS in small: {persons} persons, {tracks_per_person} tracks each, {frames_per_track} frames each, "
            f"size {size}, seed {seed}: expected 1 to 4999, at least 2, at least 1, at least 8 x 8 pixels, at least 0"
        )
    train = list(range(1, 2 * persons, 2))
    test = [-1, 0, *range(2, 2 * persons + 1, 2)]
    parts: tuple[tuple[Part, list[int]], ...] = (("train", train), ("test", test))
    for part, people in parts:
        names: list[str] = []
        table: list[tuple[int, int, int, int]] = []
        for person in people:
            for track in range(tracks_per_person):
                camera = 1 + track % CAMERAS
                first = len(names) + 1
                for frame in range(frames_per_track):
                    folder = "00-1" if person == -1 else f"{person:04d}"
                    names.append(f"{folder}C{camera}T{track + 1:04d}F{frame + 1:03d}.jpg")
                    path = frame_path(root, part, names[-1])
                    _write(path, _jpeg(person, camera, size, np.random.default_rng((seed, person + 1, track, frame))))
                table.append((first, len(names), person, camera))
        info = Path(root) / "info"
        _write(info / f"{part}_name.txt", "".join(f"{name}\n" for name in names).encode())
        _write(info / f"tracks_{part}_info.mat", _mat(f"track_{part}_info", table))
    # The last table is the test part's; the cameras repeat after the first CAMERAS tracks of a person.
    queries = [row + 1 for row, track in enumerate(table) if track[2] > 0 and row % tracks_per_person < CAMERAS]
    _write(info / "query_IDX.mat", _mat("query_IDX", [queries]))


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
    if variable[0] != _MATRIX:
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


def _mat(name: str, rows: ArrayLike) -> bytes:
    matrix = np.array(rows, "<f8")
    parts = (
        (6, struct.pack("<II", 6, 0)),  # the class: double
        (5, struct.pack("<ii", *matrix.shape)),
        (1, name.encode()),
        (9, matrix.tobytes(order="F")),
    )
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + _element(_MATRIX, b"".join(_element(*p) for p in parts))


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _jpeg(person: int, camera: int, size: tuple[int, int], random: np.random.Generator) -> bytes:
    """Draw somebody in two colours of clothes under the camera's light, a little off the middle, with noise."""
    from PIL import Image

    height, width = size
    clothes = np.random.default_rng(person + 1).uniform(0.1, 1.0, (2, 3))
    picture = np.full((height, width, 3), 0.5)
    left = width // 4 + int(random.integers(-(width // 16), width // 16 + 1))
    for top, bottom, colour in ((height // 8, height // 2, clothes[0]), (height // 2, height * 7 // 8, clothes[1])):
        picture[top:bottom, left : left + width // 2] = colour
    picture = picture * (1 - 0.05 * (camera - 1)) + random.normal(0, 0.02, picture.shape)
    buffer = io.BytesIO()
    Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be made: {error.strerror or error}") from error
    write_atomically(path, data)
