"""What is audited: features or images, and their labels, from the forms that people have them in."""

import contextlib
import csv
import io
import itertools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.audit.data_set_images import DataSetImages
from imae.audit.features import check_labels
from imae.prototxt_like.csv_file import is_ours, original
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import open_regular, read_bytes
from imae.prototxt_like.number_file import map_numbers, read_numbers, split_key
from imae.prototxt_like.text import did_you_mean

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
IMAGE_SUFFIXES |= {".heic", ".heif", ".avif", ".jxl"}  # told of as unreadable where Pillow cannot, not passed over
MOST_COLUMNS = 65_536
"""Of a table: more are a mistake, or an attack."""
MOST_PER_BYTE, SUSPECTED = 100, 2**27
"""Numbers that a compressed file may hold for each of its bytes, where it says that it holds more than so many."""
LONGEST_LINE = 2**24
"""Characters."""
_log = logging.getLogger(__name__)
_ROWS = 256
"""Of a CSV or TSV file, read at a time."""


@dataclass(frozen=True)
class Samples:
    """N samples; either `features` or `images` or `files` is given."""

    source: str
    """What the user named."""
    label: NDArray[np.int64]
    """N, classes 0 .. C - 1."""
    classes: list[str]
    names: list[str]
    """What each sample is called: its path below `root`, or its row."""
    features: NDArray[Any] | None = None
    """N x D numbers."""
    images: NDArray[np.uint8] | DataSetImages | None = None
    """N x C x H x W: gray, or blue, green, red; of a data set each of its own size."""
    root: Path | None = None
    """The folder that the names of image files are below."""
    outside: bool = False
    """Whether files outside of it are read."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Names of images that could not be read, and why."""

    def __len__(self) -> int:
        return len(self.label)


def read_samples(
    data: str, *, image: str = "", label: str = "", root: Path | None = None, allow_outside: bool = False
) -> Samples:
    """Read what `imae audit` is given.

    - `digits`; `cifar10:ROOT`, the 50,000 training images, with `label` a FILE[:KEY] in place of their own labels;
    - a folder: one subfolder a class, images in it, at any depth, but no hidden ones;
    - .csv, .tsv or .parquet: with `image`, a column of paths, relative to `root`, by default the table's folder;
      without it every column but `label` is a feature;
    - .npy, or .npz:KEY, of features: `label` is FILE[:KEY], or the key of the same .npz.

    A path that leads out of the root, by itself or by a link, is refused unless `allow_outside`. Raises InputError, one
    line that names file, line and column, for whatever is missing, damaged or does not fit.
    """
    path, _ = split_key(data)
    if data == "digits":
        return _digits(label)
    if data.startswith("cifar10:"):
        return _cifar10(data, label)
    place = Path(path)
    if place.is_dir():
        return _folder(place, allow_outside)
    if not place.exists():
        raise InputError(f'{path}: no such file or folder; expected one, "digits" or "cifar10:ROOT"')
    suffix = place.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _arrays(data, label)
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise InputError(f"{path}: expected a folder of images, or a .csv, .tsv, .parquet, .npy or .npz file")
    if not label:
        raise InputError(f"{path}: --label says which column has the labels")
    table: _Table = _Parquet(place) if suffix == ".parquet" else _Text(place, "\t" if suffix == ".tsv" else ",")
    table.known(label)
    if image:
        return _listed(place, table, image, label, root or place.parent, allow_outside)
    return _of(data, table.numbers([name for name in table.columns if name != label]), table.texts(label))


def _of(source: str, features: NDArray[Any], labels: Sequence[Any] | NDArray[Any]) -> Samples:
    given, classes = _labels(source, labels, len(features))
    width = len(str(len(given)))
    return Samples(source, given, classes, [f"row {i:0{width}}" for i in range(1, len(given) + 1)], features=features)


def _labels(source: str, labels: Sequence[Any] | NDArray[Any], count: int) -> tuple[NDArray[np.int64], list[str]]:
    array = np.asarray(labels)
    if array.dtype.kind in "US" and all(text.strip().lstrip("-").isdecimal() for text in array.tolist()):
        with contextlib.suppress(ValueError, OverflowError):  # "--1", or more digits than an integer has: a name
            array = array.astype(np.int64)  # so that class 10 comes after class 9
    elif array.dtype.kind == "U" and (array == "").any():
        raise InputError(f"{source}: row {int((array == '').argmax()) + 1} has no label")
    try:
        return check_labels(array, count)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _digits(label: str) -> Samples:
    import torch

    from imae.layers.data.digits_data import load_digits

    images, own = (torch.cat(parts).numpy() for parts in zip(load_digits(True), load_digits(False), strict=True))
    given, classes = _labels("digits", _given(label, len(own)) if label else own, len(own))
    return Samples("digits", given, classes, [f"digit {i:04}" for i in range(len(own))], images=images * 15)


def _cifar10(data: str, label: str) -> Samples:
    from imae.layers.data.cifar10_data import load_cifar10

    images, own = (part.numpy() for part in load_cifar10(Path(data.partition(":")[2]), True))
    labels = _given(label, len(own)) if label else own
    given, classes = _labels(label or data, labels, len(own))
    if len(classes) == 10:
        classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return Samples(data, given, classes, [f"image {i:05}" for i in range(len(own))], images=images[:, ::-1])


def _given(name: str, count: int) -> NDArray[Any]:
    """The labels of a file."""

    def check(shape: tuple[int, ...]) -> None:
        if shape not in ((count,), (count, 1)):
            raise InputError(f"{name}: holds labels of shape {shape}, expected {count} labels")

    labels: NDArray[Any] = read_numbers(name, check).reshape(-1)
    return labels


def _arrays(data: str, label: str) -> Samples:
    """Features of a .npy or .npz file."""
    path, key = split_key(data)
    if not label:
        raise InputError(f"{data}: --label says where the labels are: FILE[:KEY]{', or a key' * path.endswith('.npz')}")
    if path.endswith(".npz") and not Path(split_key(label)[0]).exists():
        label = f"{path}:{label}"

    def check(shape: tuple[int, ...]) -> None:
        _check_expansion(data, math.prod(shape), Path(path).stat().st_size)

    features = map_numbers(path) if path.endswith(".npy") and not key else read_numbers(data, check)
    if features.ndim < 2:
        raise InputError(f"{data}: has the shape {features.shape}, expected a row of numbers for each sample")
    if split_key(label)[0].endswith((".npy", ".npz", ".pt", ".pth")):
        return _of(data, features, _given(label, len(features)))
    lines = read_bytes(label).decode(errors="replace").split("\n")
    return _of(data, features, [line.strip() for line in lines[: len(lines) - (not lines[-1].strip())]])


def _folder(folder: Path, allow_outside: bool) -> Samples:
    """One subfolder a class."""
    names, labels = [], []
    with os.scandir(folder) as listed:
        entries = sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda entry: entry.name)
    classes = [entry.name for entry in entries if entry.is_dir()]
    base = folder.resolve()
    for name in classes:
        for place, folders, files in os.walk(folder / name):  # follows no links to folders
            folders[:] = [each for each in folders if not each.startswith(".")]
            for file in sorted(file for file in files if _is_image(file)):
                path = Path(place) / file
                if path.is_symlink():
                    _within(path, base, allow_outside, str(path))
                names.append(str(path.relative_to(folder)))
                labels.append(name)
    if len({*labels}) < 2:
        raise InputError(
            f"{folder}: has images in {counted(len({*labels}), 'subfolder')}, expected one subfolder for each class"
        )
    if empty := sorted({*classes} - {*labels}):
        _log.warning("%s: no image in %s", folder, ", ".join(empty[:5]) + ", ..." * (len(empty) > 5))
    if loose := sum(_is_image(entry.name) and entry.is_file() for entry in entries):
        _log.warning("%s: left out %s beside the subfolders, of no class", folder, counted(loose, "image"))
    given, found_classes = check_labels(np.array(labels), len(labels))
    order = np.argsort(np.array(names), kind="stable")
    return Samples(
        str(folder), given[order], found_classes, [names[i] for i in order], root=folder, outside=allow_outside
    )


def _is_image(file: str) -> bool:
    """Whether a file is an image by its name; those of macOS, "._1.jpg", are none."""
    return Path(file).suffix.lower() in IMAGE_SUFFIXES and not file.startswith(".")


def _listed(path: Path, table: "_Table", image: str, label: str, root: Path, allow_outside: bool) -> Samples:
    """A table of paths and labels."""
    names, labels = table.texts(image), table.texts(label)
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; --root is the one that the paths in {path} begin at")
    base = root.resolve()
    for number, name in enumerate(names):
        where = f"{path}: {table.line(number)}"
        if not name or "\0" in name:
            raise InputError(f'{where}: no path in column "{image}"')
        _within(root / name, base, allow_outside, f"{where}: {name!r}")
    given, classes = _labels(str(path), labels, len(names))
    return Samples(str(path), given, classes, names, root=root, outside=allow_outside)


def image_below(root: Path, name: str, outside: bool) -> Path:
    """Return the path of an image; raises InputError where it has come to lead out of `root` since it was listed."""
    path = root / name
    _within(path, root.resolve(), outside, str(path))
    return path


def _within(path: Path, base: Path, allowed: bool, where: str) -> None:
    """Refuse a path that leads out of `base`."""
    try:
        inside = path.resolve().is_relative_to(base)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a name that is too long
        raise InputError(f"{where}: is no path: {error}") from error
    if not allowed and not inside:
        raise InputError(f"{where}: lies outside {base}, from where alone files are read; --allow-outside reads it")


class _Table:
    """A table with named columns."""

    columns: list[str]
    _path: Path

    def known(self, name: str) -> str:
        """Return a column's name; raises InputError if there is none of it."""
        if name not in self.columns:
            shown = ", ".join(self.columns[:20]) + ", ..." * (len(self.columns) > 20)
            raise InputError(
                f'{self._path}: has no column "{name}", it has {shown or "none"}{did_you_mean(name, self.columns)}'
            )
        return name

    def line(self, row: int) -> str:
        """Return how to name a row in a message."""
        return f"row {row + 1}"

    def texts(self, name: str) -> list[str]:
        """Return a column."""
        raise NotImplementedError

    def numbers(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return columns (N x D)."""
        raise NotImplementedError


class _Text(_Table):
    """A CSV or TSV file with a line of column names."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self._path, self._delimiter = path, delimiter
        with open_regular(path) as file:
            header = file.readline(LONGEST_LINE)
        if len(header) == LONGEST_LINE:
            raise InputError(f"{path}: line 1 has more than {LONGEST_LINE:,} characters, expected column names")
        try:
            self.columns = next(csv.reader([header.decode("utf-8-sig")], delimiter=delimiter), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: line 1: {error}") from error
        if any("\n" in name or "\r" in name for name in self.columns):
            raise InputError(f"{path}: line 1: a column's name goes on in the next line, expected one line of names")
        _check_columns(path, self.columns)
        self._lines: list[int] = []

    def line(self, row: int) -> str:
        """Return how to name a row in a message."""
        return f"line {self._lines[row]}"

    def texts(self, name: str) -> list[str]:
        """Return a column."""
        place = self.columns.index(self.known(name))
        found, text = [], original if is_ours(self.columns) else str.strip
        for piece in self._pieces():
            rows = (
                row.rstrip("\r\n").split(self._delimiter, place + 1) if isinstance(row, str) else row for row in piece
            )
            found += [text(row[place]) for row in rows]
        return found

    def numbers(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return columns (N x D)."""
        if not names:
            raise InputError(f"{self._path}: has no column beside the labels")
        places = [self.columns.index(name) for name in names]
        parts = [np.zeros((0, len(names)), np.float32)]
        for piece in self._pieces():
            if isinstance(piece[0], str):
                with contextlib.suppress(ValueError):  # which the loop below explains, or knows better
                    parts.append(
                        np.loadtxt(piece, np.float32, comments=None, delimiter=self._delimiter, usecols=places, ndmin=2)
                    )
                    continue
                piece = [line.rstrip("\r\n").split(self._delimiter) for line in piece]
            first = len(self._lines) - len(piece)
            parts.append(np.stack([self._numbers(row, places, first + i) for i, row in enumerate(piece)]))
        return np.concatenate(parts)

    def _numbers(self, row: list[str], places: list[int], number: int) -> NDArray[np.float32]:
        try:
            return np.array([row[place] for place in places], dtype=np.float32)
        except ValueError:
            place = next(place for place in places if not _is_number(row[place]))
            raise InputError(
                f'{self._path}: {self.line(number)}: column "{self.columns[place]}": '
                f"{row[place][:40]!r} is no number; --image is for a column of paths"
            ) from None

    def _pieces(self) -> Iterator[list[Any]]:
        """Rows of as many cells as there are columns, some at a time: as lines, split in cells from a quote on."""
        self._lines = []
        with open_regular(self._path) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
            before, reader = 0, csv.reader(text, delimiter=self._delimiter)
            try:
                next(reader, None)
                before = reader.line_num
                while (piece := list(itertools.islice(text, _ROWS))) and self._is_plain(piece):
                    self._lines += range(before + 1, before + 1 + len(piece))
                    before += len(piece)
                    yield piece
                reader = csv.reader(itertools.chain(piece, text), delimiter=self._delimiter)
                while rows := list(itertools.islice(self._split(reader, before), _ROWS)):
                    yield rows
            except csv.Error as error:
                raise InputError(f"{self._path}: line {before + reader.line_num}: {error}") from error

    def _is_plain(self, lines: list[str]) -> bool:
        delimiters = len(self.columns) - 1
        return all(
            '"' not in line and line.count(self._delimiter) == delimiters and not line.isspace() for line in lines
        )

    def _split(self, reader: Any, before: int) -> Iterator[list[str]]:
        for row in filter(None, reader):
            line = before + reader.line_num
            if len(row) != len(self.columns):
                raise InputError(
                    f"{self._path}: line {line}: {counted(len(row), 'cell')}, expected "
                    f"{len(self.columns)}, one for each column"
                )
            self._lines.append(line)
            yield row


class _Parquet(_Table):
    """A Parquet file; a column of lists of numbers, all of one length, is as many features."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'imae[tables]'") from None
        self._path = path
        try:
            with open_regular(path) as file:
                self._file = parquet.ParquetFile(io.BytesIO(file.read()))
            self.columns = [str(name) for name in self._file.schema_arrow.names]
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path}: is no Parquet file: {' '.join(str(error).split())}") from error
        _check_columns(path, self.columns)
        _check_expansion(str(path), self._file.metadata.num_rows * len(self.columns), path.stat().st_size)

    def texts(self, name: str) -> list[str]:
        """Return a column."""
        return ["" if value is None else str(value) for value in self._column(self.known(name))]

    def numbers(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return columns (N x D)."""
        if not names:
            raise InputError(f"{self._path}: has no column beside the labels")
        parts = []
        for name in names:
            try:
                values = self._column(name)
                part = np.array([np.nan if value is None else value for value in values], np.float32)
            except (TypeError, ValueError):
                raise InputError(
                    f'{self._path}: column "{name}" holds no numbers, or lists of several lengths'
                ) from None
            parts.append(part.reshape(len(part), -1))
        return np.concatenate(parts, 1)

    def _column(self, name: str) -> list[Any]:
        try:
            values: list[Any] = self._file.read(columns=[name]).column(0).to_pylist()
        except Exception as error:
            raise InputError(f'{self._path}: column "{name}": {" ".join(str(error).split())}') from error
        return values


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if len(columns) > MOST_COLUMNS:
        raise InputError(f"{path}: has {len(columns):,} columns, expected at most {MOST_COLUMNS:,}")
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None) if len(columns) < 2000 else None
    if twice is not None or len({*columns}) < len(columns):
        raise InputError(f"{path}: has several columns of one name{f': {twice!r}' if twice is not None else ''}")


def _check_expansion(name: str, numbers: int, size: int) -> None:
    """Refuse a file that says it holds far more than it can, or that was made to expand without end."""
    if numbers > max(SUSPECTED, MOST_PER_BYTE * size):
        raise InputError(f"{name}: says it holds {numbers:,} numbers in {size:,} bytes")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
