"""Labels as people have them, in columns, arrays and files, as the classes 0 .. C - 1 and what these are called."""

import csv
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.audit.features import check_labels
from imae.prototxt_like.csv_file import NO_LABEL, TEXT_TABLES, split_header
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes
from imae.prototxt_like.number_file import read_numbers, split_key

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.0*)?")
"""How whole numbers are written, as 3 and 3.0; 03 is a name."""
_PERHAPS = {"na", "n/a", "null", "none"}
"""What stands for no label where all others are numbers."""
_log = logging.getLogger(__name__)


def classes_of(
    source: str,
    labels: Sequence[Any] | NDArray[Any],
    count: int,
    line: Callable[[int], str] = lambda row: f"row {row + 1}",
) -> tuple[NDArray[np.int64], list[str]]:
    """Return labels as `check_labels` does; texts that are all whole numbers as these, so that 10 comes after 9.

    Raises InputError, naming `source`, and by `line` the row, as that does, and for a text that stands for no label.
    """
    array = np.asarray(labels)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "surrogateescape")
    if array.dtype.kind in "UO" and array.ndim == 1:
        array = _texts(source, ["" if label is None else str(label) for label in array.tolist()], line)
    try:
        return check_labels(array, count)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _texts(source: str, texts: list[str], line: Callable[[int], str]) -> NDArray[Any]:
    missing = {text for text in {*texts} if text.strip().lower() in NO_LABEL | _PERHAPS}
    whole = all(_WHOLE.fullmatch(text) for text in {*texts} - missing)
    none = missing if whole else {text for text in missing if text.strip().lower() in NO_LABEL}
    if none:
        row = next(row for row, text in enumerate(texts) if text in none)
        raise InputError(f"{source}: {line(row)} has no label" + f": {texts[row]!r}" * bool(texts[row]))
    if missing:
        _log.warning("%s: the label %s is taken for a class", source, ", ".join(sorted(missing)))
    return np.array([int(text.partition(".")[0]) for text in texts] if whole else texts)


def read_labels(name: str, count: int) -> NDArray[Any]:
    """Read `count` labels of FILE[:KEY]: numbers, texts, or rows with one 1 each; of a file of text one a line.

    Raises InputError, naming the file, for anything else.
    """

    def check(shape: tuple[int, ...]) -> None:
        if len(shape) not in (1, 2) or shape[0] != count or 0 in shape:
            raise InputError(f"{name}: holds labels of shape {shape}, expected {count} labels")

    path, _ = split_key(name)
    if path.endswith((".npy", ".npz", ".pt", ".pth")):
        labels: NDArray[Any] = read_numbers(name, check, "iufbUSO")
        if labels.ndim == 1 or labels.shape[1] == 1:
            return labels.reshape(-1)
        if labels.dtype.kind not in "iufb" or not (np.sort(labels, 1) == np.eye(labels.shape[1])[-1]).all():
            raise InputError(f"{name}: holds labels of shape {labels.shape}, expected {count} labels, or one-hot rows")
        hot: NDArray[np.int64] = labels.argmax(1)
        return hot
    lines = read_bytes(path).decode("utf-8-sig", "surrogateescape").split("\n")
    suffix = Path(path).suffix.lower()
    if table := suffix in TEXT_TABLES:
        try:
            _, delimiter = split_header(lines[0], suffix)
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error as error:
            raise InputError(f"{path}: {error}") from error
        if max(map(len, rows)) > 1:
            raise InputError(f"{path}: has several columns, expected one label a line")
        lines = ["".join(row) for row in rows]
    lines = [line.strip() for line in lines[: len(lines) - (not lines[-1].strip())]]
    if table and len(lines) == count + 1:  # the column's name
        del lines[0]
    check((len(lines),))
    return np.array(lines)
