"""One training at a time writes at a prefix: a lock that ends with the process that holds it."""

import errno
import fcntl
import logging
import os
import time
from pathlib import Path
from typing import IO

from imae.prototxt_like.errors import InputError

_PATIENCE = 3.0  # seconds in which a process that was killed will have ended
_log = logging.getLogger(__name__)


class RunLock:
    """The right to write log, metrics and snapshots at a prefix; with none (""), no right is needed.

    It is a lock of the operating system's on PREFIX.lock, so a killed process leaves nothing that would block the next.
    A context manager that may be entered again inside.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix, self._path = prefix, Path(f"{prefix}.lock") if prefix else None
        self._file: IO[bytes] | None = None
        self._depth = 0

    def __enter__(self) -> "RunLock":
        """Take the lock; raises InputError if another training has it, or the folder cannot be written."""
        if self._path and not self._file:
            self._file = self._taken(self._path)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._path and self._file and not self._depth:
            with self._file:
                self._path.unlink(missing_ok=True)
            self._file = None

    def _taken(self, path: Path) -> IO[bytes]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("ab")
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    _log.warning("%s: cannot be locked (%s): no other training may use this prefix", path, error)
                    return file
                file.close()
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{self._prefix}: another training writes its log, metrics and snapshots there; "
                        "wait for its end or give another prefix"
                    ) from error
                time.sleep(0.1)
            else:
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
                file.close()  # whoever had it removed it in the meantime
