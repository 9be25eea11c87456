"""Reading LMDB files from anywhere: every offset is checked before it is followed.

The LMDB library trusts its files: behind the end of a cut one, or where an offset in a damaged one leads, it reads
memory that is not there, which kills the process. A mapped file does so too if it is cut while it is read, so that the
file is not mapped: a read behind the end is an error like any other. What is read here is the format of LMDB 0.9 on
64-bit little-endian machines, which is Caffe's: pages of two B+ trees, of which the main one holds the records; two
meta pages, of which the one of the later transaction counts.
"""

import os
import stat
import struct
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError

DATA_FILE = "data.mdb"  # the file of an LMDB that holds its records
_META = struct.Struct("<16x II 16x I44x 6xH24xQQ 8xQ")
"""magic, version; page size; the main tree's depth, entries and root page; transaction."""
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = struct.Struct("<QHHHH")
"""Page number, padding, flags, end and start of the free space: up to its start, two bytes a node say where it is."""
_BRANCH, _LEAF = 1, 2
_NODE = 8  # bytes before a node's key: its size or child in two or three parts, its flags, and the size of the key
_ELSEWHERE, _SUBTREE = 1, 6  # flags of a node: the value is on pages of its own; the value is a tree


class LmdbFile:
    """The records of the LMDB in `folder`, in the order of their keys.

    Raises InputError, naming the file, if it is missing, no LMDB, empty or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / DATA_FILE
        what = f"{folder}: no LMDB, which is a folder with a file {DATA_FILE}"
        try:
            about = self._path.stat()
            if not stat.S_ISREG(about.st_mode) or not about.st_size:
                raise InputError(f"{what}: {self._path} is {'empty' if stat.S_ISREG(about.st_mode) else 'no file'}")
            self._file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{what}: {error}") from error
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        self._records = self._find_records()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> tuple[bytes, bytes]:
        """Return the key and the value of record `number`, 0 .. len - 1.

        Raises InputError if the file has meanwhile become shorter than the record needs, or cannot be read.
        """
        key, key_size, value, value_size = self._records[number].tolist()
        return self._read(key, key_size), self._read(value, value_size)

    def _read(self, offset: int, size: int) -> bytes:
        """Return the `size` bytes at `offset`, which lie in the file as it was when it was opened."""
        try:
            data = os.pread(self._file, size, offset)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read: {error.strerror or error}") from error
        if len(data) < size:
            now = os.fstat(self._file).st_size
            raise InputError(
                f"{self._path}: was cut while it was read: it has {now} bytes, and had {self._size} when it was opened"
            )
        return data

    def _find_records(self) -> NDArray[np.int64]:
        """Return where each record's key begins, its size, where the value begins, and its size: a row for each."""
        metas = [self._meta(0)]
        metas.append(self._meta(metas[0][0]))
        self._page_size, depth, entries, root, _ = max(metas, key=lambda meta: meta[-1])
        if not entries:
            raise InputError(f"{self._path}: the LMDB has no records")
        pages = np.array([root], np.uint64)
        for _ in range(depth - 1):
            pages = np.concatenate([self._children(page) for page in pages.tolist()])
            if len(pages) * self._page_size > self._size:
                raise self._damaged("its tree has more pages than the file")
        records = np.concatenate([self._leaf(page) for page in pages.tolist()])
        if len(records) != entries:
            raise self._damaged(f"it holds {len(records)} records, but claims {entries}")
        return records

    def _meta(self, offset: int) -> tuple[int, int, int, int, int]:
        """Return page size, depth, entries, root and transaction of the meta page at `offset`."""
        if offset + _META.size > self._size:
            raise self._damaged("its first pages are missing")
        magic, version, page_size, depth, entries, root, transaction = _META.unpack(self._read(offset, _META.size))
        if magic != _MAGIC or version != _VERSION:
            raise InputError(f"{self._path}: no LMDB file, or one of another version or kind of machine")
        if page_size not in (2**bits for bits in range(9, 17)) or not 0 <= depth <= 32:
            raise self._damaged(f"pages of {page_size} bytes in a tree {depth} deep")
        return page_size, depth, entries, root, transaction

    def _children(self, page: int) -> NDArray[np.uint64]:
        """Return the page numbers that a branch page leads to."""
        _, _, nodes = self._nodes(page, _BRANCH)
        children: NDArray[np.uint64] = nodes[:, 0] | nodes[:, 1] << np.uint64(16) | nodes[:, 2] << np.uint64(32)
        return children

    def _leaf(self, page: int) -> NDArray[np.int64]:
        """Return the rows of `_find_records` for the records of a leaf page."""
        content, offset, nodes = self._nodes(page, _LEAF)
        low, high, flags, key_size = nodes.astype(np.int64).T
        if (flags & _SUBTREE).any():
            raise InputError(f"{self._path}: holds databases within the database, expected records alone")
        key, value_size = offset + _NODE, low | high << 16
        value, end = key + key_size, np.full_like(key, (page + 1) * self._page_size)
        apart = (flags & _ELSEWHERE).astype(bool)
        if apart.any():
            if (value[apart] + 8 > end[apart]).any():
                raise self._damaged(f"a record of page {page} exceeds it")
            at = value[apart, None] - page * self._page_size + np.arange(8)
            first_page = content[at].view("<u8").ravel()
            if (first_page >= self._size // self._page_size).any():
                raise self._damaged(f"page {first_page.max()} is behind its end, it has {self._size} bytes")
            value[apart] = first_page.astype(np.int64) * self._page_size + _HEADER.size
            end[apart] = self._size
        if (value + value_size > end).any():
            raise self._damaged(f"a record of page {page} exceeds {'the file' if apart.any() else 'it'}")
        return np.stack([key, key_size, value, value_size], axis=1)

    def _nodes(self, page: int, kind: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint64]]:
        """Return a page, where in the file each of its nodes begins, and the four 16-bit numbers it begins with."""
        start = page * self._page_size
        if start + self._page_size > self._size:
            raise self._damaged(f"page {page} is behind its end, it has {self._size} bytes")
        content = self._read(start, self._page_size)
        _, _, flags, lower, _ = _HEADER.unpack_from(content)
        if flags != kind or not _HEADER.size < lower <= self._page_size:
            raise self._damaged(f"page {page} is no {'leaf' if kind == _LEAF else 'branch'} of its tree")
        count = (lower - _HEADER.size) // 2
        nodes = np.frombuffer(content, "<u2", count, _HEADER.size).astype(np.int64)
        if (nodes + _NODE > self._page_size).any():
            raise self._damaged(f"a record of page {page} exceeds it")
        array = np.frombuffer(content, np.uint8)
        return array, nodes + start, array[nodes[:, None] + np.arange(_NODE)].view("<u2").astype(np.uint64)

    def _damaged(self, message: str) -> InputError:
        return InputError(f"{self._path}: the LMDB is damaged: {message}")
