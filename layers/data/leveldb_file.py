"""Reading LevelDBs, which are what Caffe's Data reads by default, by plyvel, an extra that is needed for them alone."""

import importlib
import os
import re
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import open_regular

CURRENT_FILE = "CURRENT"
"""The file of a LevelDB that names its newest manifest."""
_BLOCK, _HEADER = 32768, 7
"""Bytes of a block of a log, and of what a record in it begins with: a checksum, its size in 2 bytes, its kind."""
_ENDS = (1, 4)
"""Kinds of records that end one: whole, or the last part."""
_LIBRARIES = ("plyvel", "plyvel_next")
_open: "WeakValueDictionary[Path, _Database]" = WeakValueDictionary()


class LevelDbFile:
    """The records of the LevelDB in `folder`, in the order of their keys, which are all read at the start.

    LevelDB lets one process at a time open a folder, and writes its own log there; all layers of this process share it.
    Raises InputError, naming the folder, if it is missing, no LevelDB, empty, damaged or in use, or without plyvel.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / CURRENT_FILE).is_file():
            raise InputError(f"{folder}: no LevelDB, which is a folder with a file {CURRENT_FILE}")
        path = folder.resolve()
        self._database = _open[path] if path in _open else _Database(folder)
        _open[path] = self._database

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._database.keys)

    def __getitem__(self, number: int) -> tuple[bytes, bytes]:
        """Return the key and the value of record `number`, 0 .. len - 1; raises InputError where it is damaged."""
        return self._database.record(self._database.keys[number])


class _Database:
    """An open LevelDB and its keys."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._library = folder, _library(folder)
        for log in (*folder.glob("MANIFEST-*"), *folder.glob("*.log")):
            if not _is_whole_log(log):  # LevelDB would leave out what is behind the cut, and remove the tables there
                raise InputError(f"{folder}: the LevelDB is damaged: {log.name} is cut short")
        try:
            self._database = self._library.DB(str(folder), create_if_missing=False, paranoid_checks=True)
            try:
                with self._database.iterator(include_value=False, verify_checksums=True, fill_cache=False) as keys:
                    self.keys: list[bytes] = list(keys)
            except self._library.Error:
                self._database.close()
                raise
        except self._library.Error as error:
            raise self._failure(error) from error
        if not self.keys:
            raise InputError(f"{folder}: the LevelDB has no records")

    def record(self, key: bytes) -> tuple[bytes, bytes]:
        """Return the key and its value."""
        try:
            value = self._database.get(key, verify_checksums=True)
        except self._library.Error as error:
            raise self._failure(error) from error
        if value is None:
            raise InputError(f"{self._folder}: the LevelDB is damaged: the value of {key!r} is missing")
        return key, value

    def _failure(self, error: Exception) -> InputError:
        reason = re.sub(r"^b['\"]|['\"]$", "", str(error))
        if re.search(r"\block\b", reason):
            return InputError(
                f"{self._folder}: another process has this LevelDB open, which allows one alone: {reason}"
            )
        return InputError(f"{self._folder}: the LevelDB is damaged or cannot be opened: {reason}")


def _is_whole_log(path: Path) -> bool:
    """Whether the last record of a file in LevelDB's log format is whole: of its manifest, or of its newest writes.

    Source: "leveldb Log format", doc/log_format.md of LevelDB.
    """
    with open_regular(path) as file:
        size, position, kind = file.seek(0, os.SEEK_END), 0, _ENDS[0]
        while position < size:
            left = _BLOCK - position % _BLOCK
            if left < _HEADER:
                position += left
                continue
            file.seek(position)
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                return False
            length, kind = int.from_bytes(header[4:6], "little"), header[6]
            position += _HEADER + length
    return position == size and kind in _ENDS


def _library(folder: Path) -> Any:
    for name in _LIBRARIES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise InputError(
        f"{folder} is a LevelDB, for which plyvel is needed: pip install 'imae[leveldb]'; or convert it to an LMDB, "
        "and say backend: LMDB"
    )
