"""Reading regular files only, and writing files so that a crash never leaves half of one."""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from imae.prototxt_like.errors import InputError

FilePath = str | os.PathLike[str]
Buffer = bytes | bytearray | memoryview

_PIECE = 2**20  # bytes to be read at a time of what is larger than it was, or has no size, as in /proc
_OTHER_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISSOCK: "a socket",
}
_OWNER = re.compile(r"\.(\d+)\.tmp$")  # how the name of a temporary file or folder ends: the process that writes it


def open_regular(path: FilePath) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises InputError, naming the file, if it is missing, cannot be read, or is a folder, a pipe or a device, which
    could be waited for or read for ever.
    """
    return os.fdopen(_open(path)[0], "rb")


def _open(path: FilePath) -> tuple[int, int]:
    """Return the descriptor of a regular file and its size; raises InputError as `open_regular` does."""
    try:
        # Checked before it is opened, as opening a pipe waits and opening a device may act; O_NONBLOCK guards against a
        # pipe that takes the file's place in between.
        _check_regular(path, os.stat(path).st_mode)  # noqa: PTH116  the path may be no valid one
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            _check_regular(path, status.st_mode)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte, or a surrogate
        raise InputError(f"{os.fspath(path)!r}: is no path: {error}") from error
    return descriptor, status.st_size


def check_regular(path: FilePath) -> None:
    """Raise InputError as `open_regular` does; for a file that another library opens."""
    open_regular(path).close()


def read_bytes(path: FilePath) -> bytes:
    """Return the whole file; raises InputError as `open_regular` does, or if it does not fit into memory."""
    descriptor, size = _open(path)
    try:
        data = os.read(descriptor, size + 1)  # in one call, as at each of them another thread may take its turn
        while len(data) != size and (more := os.read(descriptor, max(size - len(data), _PIECE))):
            data += more
        return data
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path}: its {size} bytes do not fit into memory") from error
    finally:
        os.close(descriptor)


def write_atomically(path: FilePath, data: Buffer | Iterable[Buffer]) -> None:
    """Write `data` (bytes, whole or in pieces) to `path`; raises InputError as `replacing` does."""
    with replacing(path) as file:
        for piece in [data] if isinstance(data, Buffer) else data:
            file.write(piece)


@contextlib.contextmanager
def replacing(path: FilePath) -> Iterator[BinaryIO]:
    """Give a file to be written, by itself or by its name: at the end it is flushed and renamed to `path`.

    It lies beside `path` under a temporary name, and goes if anything is raised. What killed processes left of the
    same file is removed. Raises InputError if the folder is missing or cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        clear_leftovers(target.parent, target.name)
        with temporary.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{os.fspath(path)!r}: is no path: {error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_each(stem: FilePath, files: Mapping[str, bytes]) -> list[Path]:
    """Write `stem`.SUFFIX for each suffix of `files`, as `write_atomically` does; return the paths."""
    paths = [Path(f"{os.fspath(stem)}.{suffix}") for suffix in files]
    for path, data in zip(paths, files.values(), strict=True):
        write_atomically(path, data)
    return paths


def create_folder(path: Path) -> None:
    """Create a folder, and those above it, unless it exists; raises InputError if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be created: {error.strerror}") from error


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Give a new folder in `parent`, removed at the end; those that killed processes left under `name` go first."""
    clear_leftovers(parent, name, ownerless=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=f".{os.getpid()}.tmp", dir=parent))
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(folder: Path, name: str, *, ownerless: bool = False) -> None:
    """Remove what killed processes left in `folder`: temporary files and folders of a name that begins with `name`.

    Those of a running process stay: its id is in the name, and it holds a lock, which other machines see too. With
    `ownerless` those without an id in their name go as well; `name` must then be that of temporary things alone.
    """
    if not folder.is_dir():
        return
    for entry in list(os.scandir(folder)):
        owner = _OWNER.search(entry.name)
        if not entry.name.startswith(name) or not (owner or ownerless) or (owner and _is_another(int(owner[1]))):
            continue
        with contextlib.suppress(OSError):  # gone, or another's: no reason to fail
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
            finally:
                os.close(descriptor)


def _check_regular(path: FilePath, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _OTHER_KINDS.items() if is_kind(mode)), "something else")
        raise InputError(f"{path}: is {kind}, expected a regular file")


def _is_another(process: int) -> bool:
    """Whether a process of this number lives that is not this one, whose own files its locks protect."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
