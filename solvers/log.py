"""The training log: Caffe's lines in glog's form, and the same numbers for machines."""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import create_folder, read_bytes, write_atomically

_NAMED = 5  # lines that a warning names, at most
_log = logging.getLogger(__name__)


class Log:
    """Writes lines to a file and to `show`, and metrics (one JSON object a line) to a second file.

    Each line starts as glog's do, for the parsers of Caffe's logs: `I1122 13:05:09.123456  1234 solver.cpp:239] `.
    """

    def __init__(
        self, prefix: str | None = None, show: Callable[[str], None] = lambda line: None, *, folder: str | Path = ""
    ) -> None:
        """Append to `PREFIX.log`, in `folder` where one is given, and write `PREFIX.metrics.jsonl`; without a prefix,
        no files. Raises InputError if the log cannot be written.
        """
        self.show = show
        self.speaks = True  # whether it reports warnings: of several processes only the first does
        stem = Path(folder) / Path(prefix).name if prefix and folder else prefix
        self.log_path = Path(f"{stem}.log") if stem else None
        self.metrics_path = Path(f"{prefix}.metrics.jsonl") if prefix else None
        if self.log_path:
            create_folder(self.log_path.parent)
            self._append(self.log_path, time.strftime("Log file created at: %Y/%m/%d %H:%M:%S\n"))

    def line(self, message: str, source: str = "solver.cpp:239") -> None:
        """Write one line, as if from Caffe's `source`."""
        now = time.time()
        stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1e6):06d}"
        line = f"I{stamp} {threading.get_native_id():5d} {source}] {message}"
        self.show(line)
        if self.log_path:
            self._append(self.log_path, line + "\n")

    def metrics(self, **values: Any) -> None:
        """Write one record; a number that is not finite, which JSON has not, becomes null."""
        if self.metrics_path:
            finite = {name: _finite(value) for name, value in values.items()}
            self._append(self.metrics_path, json.dumps(finite, allow_nan=False) + "\n")

    def start_metrics(self, iteration: int) -> list[dict[str, Any]]:
        """Keep only the records from before `iteration`, where training starts or resumes, and return them.

        What is no record, as a damaged disk or another program may leave it, is left out with a warning.
        """
        if not self.metrics_path or not self.metrics_path.exists():
            return []
        records, others = _parse_metrics(self.metrics_path)
        if others:
            lines = ", ".join(f"{number} ({what})" for number, what in list(others.items())[:_NAMED])
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            _log.warning("%s: left out what is no record of metrics: line %s%s", self.metrics_path, lines, more)
        kept = [record for record in records if record["iteration"] < iteration]
        write_atomically(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        return kept

    @staticmethod
    def _append(path: Path, text: str) -> None:
        try:
            with path.open("a") as file:
                file.write(text)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a metrics file; a last line without an end, as a killed process leaves it, is skipped.

    Raises InputError, naming the line, for what is no record: a JSON object with an iteration.
    """
    records, others = _parse_metrics(path)
    for number, what in others.items():
        raise InputError(f"{path}:{number}: is no record of metrics: {what}")
    return records


def _parse_metrics(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return the records, and by its number what is wrong with any other line but a last one without an end."""
    records: list[dict[str, Any]] = []
    others: dict[int, str] = {}
    *lines, unfinished = read_bytes(path).split(b"\n")
    for number, line in enumerate([*lines, unfinished], 1):
        try:
            record = json.loads(line)
        except UnicodeDecodeError:
            others[number] = "no UTF-8"
        except (ValueError, RecursionError):
            others[number] = "no JSON"
        else:
            iteration = record.get("iteration") if isinstance(record, dict) else None
            if isinstance(iteration, int) and not isinstance(iteration, bool) and iteration >= 0:
                records.append(record)
            else:
                others[number] = "no object with an iteration"
    others.pop(len(lines) + 1, None)
    return records, others
