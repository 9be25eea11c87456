"""What a person decided in a review: one JSON object a line, added to a file and never changed.

`{"name": NAME, "index": I, "action": "keep" | "drop" | "relabel", "label": CLASS}`, or `{"undo": true}`, which takes
back the last one that stands.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from imae.audit.cleaned import Decision, one_line
from imae.audit.result import Result
from imae.prototxt_like.csv_file import DROP, KEEP, RELABEL
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

FILE = "decisions.jsonl"
GONE = -1
"""In place of the number of a sample, or of one whose class, is no longer there."""


class Decisions:
    """The decisions about the samples of an audit, as they stand."""

    def __init__(self, result: Result) -> None:
        """Read what is there; raises InputError, naming file and line, for what is no decision of this audit."""
        self._names, self._classes = [one_line(name) for name in result.names], result.classes
        self._path = result.folder / FILE
        self._read()

    def _read(self) -> int:
        """Take the decisions there are; return how many bytes they have, without what a kill broke off."""
        self.by_index: dict[int, Decision] = {}
        self._before: list[tuple[int, Decision | None]] = []  # the samples decided, in order, and what stood before
        data = read_bytes(self._path) if self._path.exists() else b""
        whole = data.rfind(b"\n") + 1
        self._numbers = {name: i for i, name in enumerate(self._names)} if data else {}
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise InputError(f"{self._path}: line {number}: is no decision: {error!r}") from error
        return whole

    def _take(self, entry: dict[str, Any]) -> None:
        if entry.get("undo"):
            index, decision = self._before.pop()
            if decision is None:
                del self.by_index[index]
            else:
                self.by_index[index] = decision
            return
        index, action, label = int(entry["index"]), entry["action"], -1
        if action not in (KEEP, DROP, RELABEL):
            raise ValueError(action)
        if not 0 <= index < len(self._names) or self._names[index] != entry["name"]:  # an audit that went on has more
            index = self._numbers.get(entry["name"], GONE)
        if action == RELABEL and entry["label"] in self._classes:
            label = self._classes.index(entry["label"])
        elif action == RELABEL:
            index = GONE
        self._before.append((index, self.by_index.get(index)))
        self.by_index[index] = Decision(action, label)

    def open(self) -> None:
        """Begin to write; raises InputError if another process does."""
        try:
            self._file = self._path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(self._read())
            _sync_folder(self._path.parent)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{self._path.parent}: is being reviewed by another process") from None
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Let others write."""
        self._file.close()

    def add(self, index: int, decision: Decision) -> None:
        """Decide; returns when that is on the disk."""
        entry: dict[str, Any] = {"name": self._names[index], "index": index, "action": decision.action}
        if decision.action == RELABEL:
            entry["label"] = self._classes[decision.label]
        self._write(entry)

    def undo(self) -> int | None:
        """Take the last decision back that stands; return its sample, None where there is none."""
        if not self._before:
            return None
        index = self._before[-1][0]
        self._write({"undo": True})
        return index

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written: {error.strerror or error}") from error
        self._take(entry)


def _sync_folder(folder: Path) -> None:
    """Have the file's name on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
