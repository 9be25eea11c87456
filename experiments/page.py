"""Writes pages into folders, and says what all pages say alike."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from imae.prototxt_like.files import read_bytes, write_atomically
from imae.reports.pages import Part, page_files


def write_page(stem: Path, title: str, parts: Sequence[Part]) -> list[Path]:
    """Write `stem`.html and .md, and the files of their figures; link the folder's pages; return the paths of both.

    Raises InputError if a file cannot be read or written.
    """
    beside = {
        path.name: read_bytes(path).decode(errors="replace")
        for path in stem.parent.glob("*.*")
        if path.suffix in (".html", ".md")
    }
    for name, data in page_files(stem.name, title, parts, beside).items():
        write_atomically(stem.with_name(name), data)
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("html", "md")]


def mean_text(values: Sequence[float]) -> str:
    """Return the mean and, from two values on, the standard deviation of a sample, as text with one decimal.

    Of no values, as where every seed diverged, it is "diverged".
    """
    if not values:
        return "diverged"
    mean = f"{statistics.fmean(values):.1f}"
    return mean + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
