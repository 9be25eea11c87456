"""Tables with named columns as people have them: CSV and TSV files, also Excel's of other countries, and Parquet."""

import contextlib
import csv
import io
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.csv_file import is_ours, original, split_header
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import open_regular
from imae.prototxt_like.text import did_you_mean

MOST_COLUMNS = 65_536
"""Of a table: more are a mistake, or an attack."""
MOST_PER_BYTE, SUSPECTED = 100, 2**27
"""Numbers that a compressed file may hold for each of its bytes, where it says that it holds more than so many."""
LONGEST_LINE = 2**24
"""Characters."""
FEWEST_COUNTED = 20
"""Rows from which on a column of other whole numbers in each is taken for their numbers."""
_ROWS = 256
"""Of a CSV or TSV file, read at a time."""
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""What pandas calls the column of a table's row numbers, where it has no name."""
_ID = re.compile(r"(?i:(?:.*[^a-z])?(?:id|idx|index|uuid))|.*[a-z]I[dD]")
_log = logging.getLogger(__name__)


def open_table(path: Path) -> "Table":
    """Open a .csv, .tsv or .parquet; raises InputError for what is none."""
    return ParquetTable(path) if path.suffix.lower() == ".parquet" else TextTable(path)


class Table:
    """A table with named columns."""

    columns: list[str]
    index: frozenset[str] = frozenset()
    """Columns that are said to number or name the rows."""
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

    def features(self, without: Sequence[str]) -> NDArray[np.float32]:
        """Return the other columns (N x D), and warn of those that may number the rows.

        What surely does is left out, and that is said: pandas' index, and what counts up by one from row to row. Raises
        InputError for what is no finite number.
        """
        names = [name for name in self.columns if name not in without and name not in self.index]
        if not names:
            raise InputError(f"{self._path}: has no column beside the labels")
        values, owners = self._numbers(names)
        times = Counter(owners)
        if not np.isfinite(values.sum()) and not (finite := np.isfinite(values)).all():
            row, column = (int(place) for place in np.argwhere(~finite)[0])
            raise InputError(f'{self._path}: {self.line(row)}: column "{owners[column]}" is no finite number')
        alone = {i for i, name in enumerate(owners) if times[name] == 1}
        distinct = {*_distinct(values)} & alone
        index = {i for i in distinct if _INDEX.fullmatch(owners[i]) or (np.diff(values[:, i]) == 1).all()}
        if shown := [*self.index.difference(without), *(owners[i] for i in sorted(index))]:
            _log.warning("%s: left out %s: it numbers the rows", self._path, _listed(shown))
        named = {i for i in alone if _ID.fullmatch(owners[i])}
        if shown := [owners[i] for i in sorted((distinct | named) - index)]:
            _log.warning(
                "%s: %s may number the rows, and is taken for a feature; --ignore COLUMN leaves it out",
                self._path,
                _listed(shown),
            )
        if len(index) == len(owners):
            raise InputError(f"{self._path}: has no column of features beside the labels")
        return np.delete(values, sorted(index), 1) if index else values

    def _numbers(self, names: Sequence[str]) -> tuple[NDArray[np.float32], list[str]]:
        """Return columns (N x D), and for each of the D the name of the column that it is of."""
        raise NotImplementedError


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" * (len(names) > 5)
    return ", ".join(f'column "{name}"' for name in names[:5]) + more


def _distinct(values: NDArray[np.float32]) -> list[int]:
    """The columns that have another whole number in each row."""
    if len(values) < FEWEST_COUNTED:
        return []
    found = np.arange(values.shape[1])
    for rows in (values[:1000], values):  # most columns are told by the first
        found = found[(rows[:, found] == np.round(rows[:, found])).all(0)]
        found = found[np.array([len(np.unique(rows[:, i])) == len(rows) for i in found], np.bool_)]
    return [int(i) for i in found]


class TextTable(Table):
    """A CSV or TSV file with a line of column names; where ";" is between them, numbers may have a decimal comma."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_regular(path) as file:
            header = file.readline(LONGEST_LINE)
        if len(header) == LONGEST_LINE:
            raise InputError(f"{path}: line 1 has more than {LONGEST_LINE:,} characters, expected column names")
        try:
            first = header.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path}: line 1: is not in UTF-8, expected column names in it") from None
        if "\r" in first.rstrip("\r\n"):
            raise InputError(f"{path}: line 1: has line ends of old Macs, CR, within; expected LF or CR LF")
        try:
            self.columns, self._delimiter = split_header(first, path.suffix)
        except csv.Error as error:
            raise InputError(f"{path}: line 1: {error}") from error
        if any("\n" in name for name in self.columns):
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

    def _numbers(self, names: Sequence[str]) -> tuple[NDArray[np.float32], list[str]]:
        places = [self.columns.index(name) for name in names]
        parts = [np.zeros((0, len(names)), np.float32)]
        for piece in self._pieces():
            if isinstance(piece[0], str):
                with contextlib.suppress(ValueError):  # which the loop below explains, or knows better
                    lines = [self._number(line) for line in piece]
                    parts.append(
                        np.loadtxt(lines, np.float32, comments=None, delimiter=self._delimiter, usecols=places, ndmin=2)
                    )
                    continue
                piece = [line.rstrip("\r\n").split(self._delimiter) for line in piece]
            first = len(self._lines) - len(piece)
            parts.append(np.stack([self._row(row, places, first + i) for i, row in enumerate(piece)]))
        return np.concatenate(parts), list(names)

    def _number(self, text: str) -> str:
        return text.replace(",", ".") if self._delimiter == ";" else text

    def _row(self, row: list[str], places: list[int], number: int) -> NDArray[np.float32]:
        try:
            return np.array([self._number(row[place]) for place in places], dtype=np.float32)
        except ValueError:
            place = next(place for place in places if not _is_number(self._number(row[place])))
            name = self.columns[place]
            raise InputError(
                f'{self._path}: {self.line(number)}: column "{name}": {row[place][:40]!r} is no number; '
                "--ignore COLUMN leaves one out, --image is for a column of paths"
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


class ParquetTable(Table):
    """A Parquet file; a column of lists of numbers, all of one length, is as many features."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise InputError(f"{path}: reading Parquet needs pyarrow: pip install 'imae[tables]'") from None
        self._path = path
        try:
            with open_regular(path) as file:
                self._file = parquet.ParquetFile(io.BytesIO(file.read()), page_checksum_verification=True)
            self.columns = [str(name) for name in self._file.schema_arrow.names]
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path}: is no Parquet file: {' '.join(str(error).split())}") from error
        _check_columns(path, self.columns)
        with contextlib.suppress(ValueError, LookupError, TypeError):  # what pandas notes, or another who writes so
            noted = json.loads(self._file.schema_arrow.metadata[b"pandas"])["index_columns"]
            self.index = frozenset(name for name in noted if isinstance(name, str))
        check_expansion(str(path), self._file.metadata.num_rows * len(self.columns), path.stat().st_size)

    def texts(self, name: str) -> list[str]:
        """Return a column."""
        return ["" if value is None else str(value) for value in self._column(self.known(name))]

    def _numbers(self, names: Sequence[str]) -> tuple[NDArray[np.float32], list[str]]:
        parts: list[NDArray[np.float32]] = []
        owners: list[str] = []
        for name in names:
            try:
                values = self._column(name)
                part = np.array([np.nan if value is None else value for value in values], np.float32)
            except (TypeError, ValueError):
                raise InputError(
                    f'{self._path}: column "{name}" holds no numbers, or lists of several lengths; '
                    "--ignore COLUMN leaves one out"
                ) from None
            parts.append(part.reshape(len(part), -1))
            owners += [name] * parts[-1].shape[1]
        return np.concatenate(parts, 1), owners

    def _column(self, name: str) -> list[Any]:
        try:
            values: list[Any] = self._file.read(columns=[name]).column(0).to_pylist()
        except Exception as error:
            raise InputError(f'{self._path}: column "{name}": {" ".join(str(error).split())}') from error
        return values


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if len(columns) > MOST_COLUMNS:
        raise InputError(f"{path}: has {len(columns):,} columns, expected at most {MOST_COLUMNS:,}")
    if twice := [name for name, times in Counter(columns).items() if times > 1]:
        raise InputError(f"{path}: has several columns of one name: {twice[0]!r}")


def check_expansion(name: str, numbers: int, size: int) -> None:
    """Refuse a file that says it holds far more than it can, or that was made to expand without end."""
    if numbers > max(SUSPECTED, MOST_PER_BYTE * size):
        raise InputError(f"{name}: says it holds {numbers:,} numbers in {size:,} bytes")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
