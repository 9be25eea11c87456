"""Arrays of numbers from .npy, .npz, .pt and text files, which are read as data: nothing in a file is ever run."""

import io
import math
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import FilePath, open_regular, read_bytes
from imae.prototxt_like.limits import LARGEST_INT32

Numbers = NDArray[Any]
CheckShape = Callable[[tuple[int, ...]], None]
_WITH_KEYS = (".npz", ".npy", ".pt", ".pth")
"""Files that may hold several arrays under names."""
_MAGIC_OF_OLD_PT = 0x1950A86A20F9469CFC6C
"""The first of the pickles in what torch.save wrote before it wrote zip files."""

_LARGEST_HEADER = 2**16
"""Bytes of a .npy file's header that are read; NumPy refuses long ones itself."""
_MAKING_ROOM = {"PUT", "BINPUT", "LONG_BINPUT", "FRAME"}
"""Instructions of a pickle for which as much memory is reserved as their argument says."""
_LONGEST_TEXT = 2**16
"""Bytes of each text in an array of such."""
_MOST_AXES = 64
"""NumPy's limit."""


def split_key(name: str) -> tuple[str, str]:
    """Split `path.npz:key` (or .npy, .pt, .pth) into path and `:key`; any other name is a path, with an empty key."""
    path, colon, key = name.rpartition(":")
    return (path, colon + key) if path.endswith(_WITH_KEYS) else (name, "")


def read_numbers(name: str | Path, check_shape: CheckShape, kinds: str = "iuf") -> Numbers:
    """Read one array of integers or floats: a .npy file, text (rows of numbers), or `file:key`.

    `kinds` are those of the NumPy types that are taken; "O" is for arrays of texts and numbers as objects.

    With a key it is that of an .npz, or of a dictionary of NumPy arrays that numpy.save or torch.save wrote, which is
    unpickled with nothing but such arrays allowed. `check_shape` is called as soon as the shape is known, for .npy and
    .npz before any number is read, and raises InputError for one that is not wanted. Raises InputError, naming the
    file, if it is missing, damaged, or holds anything else.
    """
    path, key = split_key(str(name))
    if not Path(path).exists() and ":" in path and Path(path.rpartition(":")[0]).exists():
        raise InputError(f"{path}: only of {', '.join(_WITH_KEYS)} files an array is chosen by FILE:KEY")
    content = read_bytes(path)
    with _naming(str(name)):
        if path.endswith(".npz"):
            return _from_npz(path, key[1:], content, check_shape, kinds)
        if path.endswith(_WITH_KEYS):
            found = (
                _from_npy(io.BytesIO(content), check_shape, kinds=kinds) if path.endswith(".npy") else _from_pt(content)
            )
            array = _chosen(path, key[1:], found)
        else:
            lines = content.decode().replace(",", " ").splitlines()
            array = np.array([line.split() for line in lines if line.strip()], np.float64)
            array = array.ravel() if 1 in array.shape else array
        if array.dtype.kind not in kinds:
            raise InputError(f"{name}: holds {array.dtype} values, expected numbers")
        check_shape(array.shape)
        return array


def has_key(name: str | Path) -> bool:
    """Whether `read_numbers` would find the file that `name`, `file:key`, names, and an array under the key in it."""
    path, key = split_key(str(name))
    if not key:
        return False
    content = read_bytes(path)
    with _naming(str(name)):
        if path.endswith(".npz"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return f"{key[1:]}.npy" in archive.namelist()
        found = _from_npy(io.BytesIO(content), lambda _: None) if path.endswith(".npy") else _from_pt(content)
        return isinstance(found, dict) and key[1:] in found


def check_count(shape: tuple[int, ...]) -> None:
    """Raise ValueError for a shape of more numbers than a blob has."""
    if math.prod(shape) > LARGEST_INT32:
        raise ValueError(f"an array of shape {shape}, of more numbers than a blob has")


def read_arrays(
    path: FilePath, names: Collection[str] | None = None, check_shape: CheckShape = check_count, kinds: str = "iuf"
) -> dict[str, Numbers]:
    """Return all arrays of an .npz by their names, or those that are wanted; `kinds` are those of their NumPy types.

    Raises InputError, naming the file, as `read_numbers` does, and if one of `names` is missing.
    """
    with open_regular(path) as file, _naming(str(path)), zipfile.ZipFile(file) as archive:
        arrays = {}
        for name in archive.namelist() if names is None else [f"{name}.npy" for name in names]:
            with archive.open(name) as member:
                array: Numbers = _from_npy(member, check_shape, objects=False)
            if array.dtype.kind not in kinds:
                raise InputError(f"{path}:{name}: holds {array.dtype} values, expected numbers")
            arrays[name.removesuffix(".npy")] = array
        return arrays


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn what a damaged file makes zipfile, zlib, pickle and numpy raise into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())  # some are of several lines
        raise InputError(f"{name}: holds no array of numbers: {reason}") from error


def _from_npz(path: str, key: str, content: bytes, check_shape: CheckShape, kinds: str) -> Numbers:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if key not in names:
            raise _no_key(path, key, names)
        with archive.open(f"{key}.npy") as file:
            array: Numbers = _from_npy(file, check_shape, objects=False, kinds=kinds)
    if array.dtype.kind not in kinds:
        raise InputError(f"{path}:{key}: holds {array.dtype} values, expected numbers")
    return array


def _from_npy(file: IO[bytes], check_shape: CheckShape, *, objects: bool = True, kinds: str = "iuf") -> Any:
    """Return an array or, where it holds Python objects and may, the one object that it must be.

    With "O" in `kinds` the objects may also be as many texts and numbers.
    """
    shape, fortran, dtype = _read_header(file)
    if dtype.hasobject:
        found: Any = _unpickle(file.read()) if objects or "O" in kinds else None
        several = "O" in kinds and isinstance(found, list) and shape in ((len(found),), (len(found), 1))
        if several and all(isinstance(item, str | int | float | None) for item in found):
            check_shape(shape)
            return np.array(found, object)
        if isinstance(found, list) and len(found) == 1 and shape == ():
            return found[0]
        raise ValueError("an array of Python objects")
    check_shape(shape)
    if dtype.kind in "US" and dtype.itemsize > _LONGEST_TEXT:
        raise ValueError(f"texts of {dtype.itemsize} bytes each")
    size = math.prod(shape) * dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"{len(data)} bytes for an array of shape {shape}, which needs {size}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read what a .npy file begins with: shape, whether it is in Fortran's order, and type.

    NumPy's own functions would read a header of any size that a file claims, gigabytes of a small .npz.
    """
    head = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    version = np.lib.format.read_magic(io.BytesIO(head))
    size = file.read(2 if version == (1, 0) else 4)
    header = file.read(min(int.from_bytes(size, "little"), _LARGEST_HEADER))
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(io.BytesIO(size + header))
    if any(not 0 <= length < 2**63 for length in shape) or len(shape) > _MOST_AXES:
        raise ValueError(f"an array of shape {shape}")
    return shape, fortran, dtype


def map_numbers(path: str | Path, kinds: str = "iuf") -> Numbers:
    """Return the array of a .npy file as a map of the file, read as it is used: for more than memory holds.

    Raises InputError, naming the file, if it is missing, damaged, or holds anything but integers or floats, or
    other `kinds` of NumPy's types.
    """
    with open_regular(path) as file, _naming(str(path)):
        shape, fortran, dtype = _read_header(file)
        if dtype.kind not in kinds:
            raise InputError(f"{path}: holds {dtype} values, expected numbers")
        start, size = file.tell(), math.prod(shape) * dtype.itemsize
        if (found := file.seek(0, io.SEEK_END) - start) < size:
            raise ValueError(f"{found} bytes for an array of shape {shape}, which needs {size}")
        if not size:
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")


def new_map(path: Path, shape: tuple[int, ...], kind: np.dtype[Any]) -> Numbers:
    """Return a map of a new .npy file, to be filled; raises InputError where the disk has no room for all of it.

    What is written to a map without room for it ends the process.
    """
    try:
        table: Numbers = np.lib.format.open_memmap(path, "w+", kind, shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return table


def _from_pt(content: bytes) -> Any:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        file = io.BytesIO(content)
        if _unpickle(content, file) != _MAGIC_OF_OLD_PT:
            raise ValueError("not written by torch.save")
        for _ in range(2):  # the version of the protocol, and what machine wrote it
            _unpickle(content, file)
        return _unpickle(content, file)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
        if len(members) != 1 or members[0].file_size > len(content):
            raise ValueError("not written by torch.save")
        return _unpickle(archive.read(members[0]))


def _chosen(path: str, key: str, found: Any) -> Numbers:
    """The array that a file is, without a key, or the one that it has under the key."""
    if isinstance(found, dict):
        if key not in found:
            raise _no_key(path, key, [name for name in found if isinstance(name, str)])
        found = found[key]
    elif key:
        raise InputError(f"{path}: is one array, which takes no :{key}")
    if not isinstance(found, np.ndarray):
        raise ValueError(f"a Python {type(found).__name__}")
    return found


def _no_key(path: str, key: str, names: list[str]) -> InputError:
    missing = f'has no array "{key}", ' if key else ""
    return InputError(f"{path}: {missing}write {path}:KEY with one of its arrays, {', '.join(names)}")


class _Dtype:
    """What a pickled numpy.dtype is read as: of integers, floats or (for an array of one object) objects."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch("[iuf][1248]|O8|b1", code):
            raise ValueError(f"an array of the type {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in tuple("<>|="):
            raise ValueError(f"numbers in the byte order {state[1]!r}")
        self.order = state[1]


class _Array:
    """What a pickled numpy.ndarray is read as, before its contents are known."""

    contents: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            self.contents = data
            return
        data = data.encode("latin1") if isinstance(data, str) else data
        self.contents = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any = "C") -> Numbers:
    if dtype.code == "O8":
        raise ValueError("an array of Python objects")
    return np.frombuffer(data, np.dtype(dtype.order + dtype.code)).reshape(shape, order=order)


def _unpickle(content: bytes, file: IO[bytes] | None = None) -> Any:
    """Return the dictionary, list, number or array that a pickle holds (the next of `file`, a view of `content`)."""
    file = file or io.BytesIO(content)
    start = file.tell()
    # The unpickler reserves memory for what the arguments claim before it looks whether the file has as much.
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _MAKING_ROOM and not 0 <= int(argument or 0) <= len(content):
            raise ValueError(f"{opcode.name} {argument} in a pickle of {len(content)} bytes")
    file.seek(start)
    return _plain(_Unpickler(file, len(content)).load())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item.contents if isinstance(item, _Array) else item for key, item in value.items()}
    if isinstance(value, _Array):
        contents = value.contents
        return [_plain(item) for item in contents] if isinstance(contents, list) else contents
    return value


class _Unpickler(pickle.Unpickler):
    """Knows no function or class but those that stand for NumPy's arrays of numbers."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file)
        self._left = 4 * size
        """How many bytes texts may yet be encoded to: each is in the pickle once."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): _Dtype,
            ("numpy", "ndarray"): _Array,
            ("multiarray", "_reconstruct"): lambda *_: _Array(),
            ("numeric", "_frombuffer"): _array,
            ("_codecs", "encode"): self._encode,
        }
        place = re.sub(r"^numpy\._?core\.", "", module)
        if (place, name) in known:
            return known[place, name]
        advice = ": save it as a NumPy array" if module.split(".")[0] == "torch" else ""
        raise ValueError(f"a {module}.{name}{advice}; only dictionaries of NumPy arrays are read")

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("a torch.Tensor: save it as a NumPy array")

    def _encode(self, text: str, encoding: str) -> bytes:
        self._left -= len(text)
        if encoding != "latin1" or self._left < 0:
            raise ValueError("no array as NumPy pickles it")
        return text.encode("latin1")
