"""Writing files so that a crash never leaves half of one."""

import os
from collections.abc import Mapping
from pathlib import Path

from imae.prototxt_like.errors import InputError


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` (bytes) to `path`: to a temporary name beside it, flushed to the disk, then renamed over it.

    Raises InputError if the folder is missing or cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error


def write_each(stem: str | os.PathLike[str], files: Mapping[str, bytes]) -> list[Path]:
    """Write `stem`.SUFFIX for each suffix of `files`, as `write_atomically` does; return the paths."""
    paths = [Path(f"{os.fspath(stem)}.{suffix}") for suffix in files]
    for path, data in zip(paths, files.values(), strict=True):
        write_atomically(path, data)
    return paths


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the whole file; raises InputError, naming it, if it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
