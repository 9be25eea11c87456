"""Where labelled images come from: a folder with a subfolder a class, a table, or a list of Caffe's."""

import csv
import glob
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imae.layers.data.image_list import ImageList, label_of, read_image_list
from imae.prototxt_like.csv_file import CLEANED, DROP, NO_LABEL, TEXT_TABLES, is_ours, original, split_header
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".tga"}
IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"}
IMAGE_SUFFIXES |= {".heic", ".heif", ".avif", ".jxl"}  # told of as unreadable where Pillow cannot, not passed over
_PATHS = ("path", "image", "file", "filename", "file_name", "name", "image_path", "filepath")
_LABELS = ("label", "class", "category", "target", "class_name", "label_name")
"""How tables call their columns."""


@dataclass(frozen=True)
class Labelled:
    """Images with labels, the folder before their names, and the names of the classes 0, 1, ... where they have any."""

    images: ImageList
    folder: Path
    classes: list[str]


def read_source(source: Path, columns: tuple[str, str] | None = None) -> Labelled:
    """Read what images `source` has: a folder, a .csv or .tsv, or else a list as `read_image_list` reads it.

    - Of a folder the classes are the subfolders in the order of their names, and of each all image files below it.
    - A table has a column of paths and one of labels, integers or names; names become 0, 1, ... in their order. The
      `columns` are named by the header, or numbered from 1; without, a header tells, else they are the first two. Of an
      audit's the labels are names, and what was dropped is left out.

    Raises InputError, naming file and line, for what is missing or no label, and where there is no image.
    """
    if source.is_dir():
        return _read_folder(source)
    if source.suffix.lower() in TEXT_TABLES:
        return _read_table(source, columns)
    if source.suffix.lower() == ".parquet":
        raise InputError(f"{source}: expected a .csv or .tsv, Parquet is for imae audit")
    return Labelled(read_image_list(source), source.parent, [])


def find_images(given: str) -> list[Path]:
    """Return the image files below a folder, or that a pattern with *, ? or [ matches, in order; any other path itself.

    Raises InputError for a folder or a pattern without any.
    """
    path, files = Path(given), [Path(given)]
    if path.is_dir():
        files = _image_files(path)
    elif not path.exists() and glob.has_magic(given):
        files = [path for path in sorted({*map(Path, _matches(given))}, key=str) if path.is_file()]
    if not files:
        raise InputError(f"{given}: {'has' if path.is_dir() else 'matches'} no image")
    return files


def is_image(file: str) -> bool:
    """Whether a file is an image by its name; those of macOS, "._1.jpg", are none."""
    return Path(file).suffix.lower() in IMAGE_SUFFIXES and not file.startswith(".")


def _matches(pattern: str) -> Iterator[str]:
    """What a pattern matches; ** is all folders below, but hidden ones, and links, of which one may lead back up."""
    above, *below = re.split(r"(?:^|(?<=/))\*\*(?:/+|$)", pattern, maxsplit=1)
    if not below:
        yield from glob.glob(pattern)  # noqa: PTH207  Path.glob takes no absolute pattern
    else:
        for top in glob.glob(above or "./"):  # noqa: PTH207
            for place, folders, _ in os.walk(top):
                folders[:] = [name for name in folders if not name.startswith(".")]
                yield from _matches(f"{glob.escape(place)}/{below[0] or '*'}")


def _image_files(folder: Path) -> list[Path]:
    """All image files below a folder, in order, but hidden ones and those in hidden folders."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if is_image(path.name)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _read_folder(folder: Path) -> Labelled:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    found = [
        (path.relative_to(folder).as_posix(), label)
        for label, name in enumerate(classes)
        for path in _image_files(folder / name)
    ]
    if not found:
        raise InputError(f"{folder}: has no image in a subfolder, expected a subfolder for each class")
    names, labels = zip(*found, strict=True)
    return Labelled(ImageList(folder, list(names), np.array(labels, np.int64), []), folder, classes)


def _read_table(path: Path, columns: tuple[str, str] | None) -> Labelled:
    text = read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    rows: list[tuple[int, list[str]]] = []
    ours = False
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        _, delimiter = split_header(text.partition("\n")[0], path.suffix)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in reader:
            if any(cell.strip() for cell in row):
                ours = ours or (not rows and is_ours(row))
                rows.append((reader.line_num, [original(cell) if ours else cell.strip() for cell in row]))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None
    header = rows[0][1] if rows else []
    places, headed = _columns(path, header, columns)
    rows = rows[headed or ours :]
    if {*CLEANED} <= {*header}:
        action = header.index("action")
        rows = [(line, row) for line, row in rows if row[action : action + 1] != [DROP]]
    if not rows:
        raise InputError(f"{path}: names no image")
    for line, row in rows:
        if len(row) <= max(places) or not row[places[0]] or row[places[1]].lower() in NO_LABEL:
            raise InputError(
                f"{path}: line {line}: expected a path and a label in columns {places[0] + 1} and "
                f"{places[1] + 1}, found {','.join(row)!r}"
            )
    lines, names, given = zip(*((line, row[places[0]], row[places[1]]) for line, row in rows), strict=True)
    classes: list[str] = []
    whole = all(re.fullmatch(r"[+-]?[0-9]+(\.0*)?", label) for label in given)
    if whole:  # 3.0, too, as pandas writes integers at times
        given = tuple(label.partition(".")[0] for label in given)
    if whole and not ours:
        labels = [label_of(label, f"{path}: line {line}") for line, label in zip(lines, given, strict=True)]
    else:
        classes = sorted(set(given), key=(lambda name: (int(name), name)) if whole else None)
        number = {name: label for label, name in enumerate(classes)}
        labels = [number[label] for label in given]
    return Labelled(ImageList(path, list(names), np.array(labels, np.int64), list(lines)), path.parent, classes)


def _columns(path: Path, first: list[str], asked: tuple[str, str] | None) -> tuple[tuple[int, int], int]:
    """Return the columns of paths and labels, from 0, and how many lines the header has."""
    header = [cell.lower() for cell in first]
    if asked is None:
        known = [next((i for i, cell in enumerate(header) if cell in names), -1) for names in (_PATHS, _LABELS)]
        return ((known[0], known[1]), 1) if min(known) >= 0 else ((0, 1), 0)
    if all(name.isdecimal() for name in asked):
        if 0 in map(int, asked):
            raise InputError(f"{path}: columns are numbered from 1, found {','.join(asked)}")
        return (int(asked[0]) - 1, int(asked[1]) - 1), 0
    for name in asked:
        if name not in first:
            raise InputError(f'{path}: line 1: has no column "{name}", only {", ".join(first)}')
    return (first.index(asked[0]), first.index(asked[1])), 1
