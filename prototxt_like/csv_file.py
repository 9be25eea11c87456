"""CSVs as we write them: no cell is a formula to a spreadsheet, and each is read again as what it was."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

from imae.prototxt_like.files import write_atomically

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet may take for a formula; the last are the same signs, as wide as Chinese ones."""
_NUMBER = re.compile(r"[+-]([0-9]+\.?[0-9]*|\.[0-9]+|inf|nan)(e[+-]?[0-9]+)?", re.IGNORECASE)
CLEANED = ("index", "name", "label", "given", "action", "reason")
"""The columns of an audit's `cleaned.csv`: every sample, and what becomes of its label."""
SUSPECTS = ("rank", "index", "name", "label", "p_wrong", "suggested", "p_suggested")
"""The columns of an audit's `suspects.csv`."""
TEXT_TABLES = (".csv", ".tsv")
"""How the names of tables of text end."""
KEEP, DROP, RELABEL = "keep", "drop", "relabel"
"""What stands in the column "action"."""
NO_LABEL = frozenset({"", "nan", "nat", "<na>"})
"""What stands for no label in a table, in small letters."""


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV in which no cell is a formula."""
    write_atomically(path, "".join(csv_lines([header, *rows])).encode(errors="surrogateescape"))


def csv_lines(rows: Iterable[Sequence[object]]) -> list[str]:
    """Return rows as lines of a CSV in which no cell is a formula."""
    lines: list[str] = []
    # Of a cell with a line's end, Python quotes what has one of the writer's own: both are to be.
    file = SimpleNamespace(write=lambda line: lines.append(f"{line[:-2]}\n"))
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerows([harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return lines


def split_header(line: str, suffix: str) -> tuple[list[str], str]:
    """Return the cells of a table's first line, and what is between them.

    Of a .tsv that is a tab; else a comma, or without one ";", as spreadsheets write where a comma is the decimal one,
    or a tab. Raises csv.Error for what is no line of a table.
    """
    for delimiter in "\t" if suffix.lower() == ".tsv" else ",;\t,":  # a comma again, for a cell alone
        cells = next(csv.reader([line], delimiter=delimiter), [])
        if len(cells) > 1:
            break
    return cells, delimiter


def is_ours(columns: Iterable[str]) -> bool:
    """Whether a table has the columns of an audit's: what its cells are, `original` tells."""
    return {*CLEANED} <= {*columns} or {*SUSPECTS} <= {*columns}


def harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: with a quote before it, and before those it has."""
    return f"'{text}" if _is_formula(text.lstrip("'")) else text


def original(cell: str) -> str:
    """Return the text that `harmless` made a cell of."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell.lstrip("'")) else cell


def _is_formula(text: str) -> bool:
    return text.startswith(FORMULA) and not _NUMBER.fullmatch(text)
