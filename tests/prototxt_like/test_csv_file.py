"""No cell of a CSV of ours is a formula, and each is read again as what it was."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imae.prototxt_like.csv_file import csv_lines, harmless, original


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("+cmd|x", "'+cmd|x"),
        ("\t=1", "'\t=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("-2.5e-05", "-2.5e-05"),
        ("'cat", "'cat"),
    ],
)
def test_no_cell_is_a_formula(text: str, written: str) -> None:
    assert harmless(text) == written


@given(st.lists(st.lists(st.text("'=+-@a1,\"\t\r\n \u2028\uff1d"), min_size=2), max_size=3))
def test_cells_are_read_as_they_were(rows: list[list[str]]) -> None:
    text = "".join(csv_lines(rows))
    assert [[original(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))] == rows
