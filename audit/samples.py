"""What is audited: features or images, and their labels, from the forms that people have them in."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.audit.data_set_images import DataSetImages
from imae.audit.features import check_labels
from imae.audit.given_labels import classes_of, read_labels
from imae.audit.tables import Table, check_expansion, open_table
from imae.layers.data.image_sources import is_image
from imae.prototxt_like.csv_file import TEXT_TABLES
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.number_file import has_key, map_numbers, read_numbers, split_key

_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""What the parts of a data set are called, each with the classes in it."""
TABLES = (*TEXT_TABLES, ".parquet")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """N samples: `features`, or `images`, or with neither, image files below `root`."""

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
    data: str,
    *,
    image: str = "",
    label: str = "",
    root: Path | None = None,
    allow_outside: bool = False,
    ignore: Sequence[str] = (),
) -> Samples:
    """Read what `imae audit` is given.

    - `digits`; `cifar10:ROOT`, the 50,000 training images, with `label` a FILE[:KEY] in place of their own labels;
    - a folder: one subfolder a class, images in it, at any depth, but no hidden ones;
    - .csv, .tsv or .parquet: with `image`, a column of paths, relative to `root`, by default the table's folder;
      without it every column but `label` and those to `ignore` is a feature, as `Table.features` has it;
    - .npy, or .npz:KEY, of features: `label` is FILE[:KEY], or the key of the same .npz.

    A path that leads out of the root, by itself or by a link, is refused unless `allow_outside`. Raises InputError, one
    line that names file, line and column, for whatever is missing, damaged or does not fit.
    """
    path, _ = split_key(data)
    place = Path(path)
    suffix = place.suffix.lower()
    if (image or root or ignore) and (place.is_dir() or suffix not in TABLES):
        raise InputError(f"{data}: --image, --root and --ignore are for tables: {', '.join(TABLES)}")
    if data == "digits":
        return _digits(label)
    if data.startswith("cifar10:"):
        return _cifar10(data, label)
    if place.is_dir():
        if label:
            raise InputError(f"{data}: the labels of a folder are its subfolders, it takes no --label")
        return _folder(place, allow_outside)
    if not place.exists():
        raise InputError(f'{path}: no such file or folder; expected one, "digits" or "cifar10:ROOT"')
    if suffix in (".npy", ".npz"):
        return _arrays(data, label)
    if suffix not in TABLES:
        raise InputError(f"{path}: expected a folder of images, or a .csv, .tsv, .parquet, .npy or .npz file")
    if not label:
        raise InputError(f"{path}: --label says which column has the labels")
    table = open_table(place)
    for name in (label, *ignore):
        table.known(name)
    if image:
        return _listed(place, table, image, label, root or place.parent, allow_outside)
    features = table.features([label, *ignore])
    return _of(data, features, *classes_of(path, table.texts(label), len(features), table.line))


def _of(source: str, features: NDArray[Any], given: NDArray[np.int64], classes: list[str]) -> Samples:
    width = len(str(len(given)))
    return Samples(source, given, classes, [f"row {i:0{width}}" for i in range(1, len(given) + 1)], features=features)


def _digits(label: str) -> Samples:
    import torch

    from imae.layers.data.digits_data import load_digits

    images, own = (torch.cat(parts).numpy() for parts in zip(load_digits(True), load_digits(False), strict=True))
    given, classes = classes_of("digits", read_labels(label, len(own)) if label else own, len(own))
    return Samples("digits", given, classes, [f"digit {i:04}" for i in range(len(own))], images=images * 15)


def _cifar10(data: str, label: str) -> Samples:
    from imae.layers.data.cifar10_data import load_cifar10

    images, own = (part.numpy() for part in load_cifar10(Path(data.partition(":")[2]), True))
    labels = read_labels(label, len(own)) if label else own
    given, classes = classes_of(label or data, labels, len(own))
    if len(classes) == 10:
        classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return Samples(data, given, classes, [f"image {i:05}" for i in range(len(own))], images=images[:, ::-1])


def _arrays(data: str, label: str) -> Samples:
    """Features of a .npy or .npz file."""
    path, key = split_key(data)
    if not label:
        raise InputError(f"{data}: --label says where the labels are: FILE[:KEY]{', or a key' * path.endswith('.npz')}")
    file, of_file = split_key(label)
    if path.endswith(".npz") and not of_file and (has_key(own := f"{path}:{label}") or not Path(file).exists()):
        label = own

    def check(shape: tuple[int, ...]) -> None:
        check_expansion(data, math.prod(shape), Path(path).stat().st_size)

    features = map_numbers(path, "iufb") if path.endswith(".npy") and not key else read_numbers(data, check, "iufb")
    if features.ndim < 2:
        raise InputError(f"{data}: has the shape {features.shape}, expected a row of numbers for each sample")
    return _of(data, features, *classes_of(label, read_labels(label, len(features)), len(features)))


def _folder(folder: Path, allow_outside: bool) -> Samples:
    """One subfolder a class."""
    names, labels = [], []
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    classes = [path.name for path in entries if path.is_dir()]
    base = folder.resolve()
    for name in classes:
        for place, folders, files in os.walk(folder / name, onerror=_refuse):  # follows no links to folders
            folders[:] = [each for each in folders if not each.startswith(".")]
            for file in sorted(file for file in files if is_image(file)):
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
    if parts := [name for name in classes if name.lower() in _PARTS and any((folder / name).glob("*/"))]:
        _log.warning("%s: %s are taken for classes; for those in them, audit each", folder, ", ".join(parts))
    if loose := sum(is_image(path.name) and path.is_file() for path in entries):
        _log.warning("%s: left out %s beside the subfolders, of no class", folder, counted(loose, "image"))
    given, found_classes = check_labels(np.array(labels), len(labels))
    order = np.argsort(np.array(names), kind="stable")
    return Samples(
        str(folder), given[order], found_classes, [names[i] for i in order], root=folder, outside=allow_outside
    )


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _listed(path: Path, table: Table, image: str, label: str, root: Path, allow_outside: bool) -> Samples:
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
    given, classes = classes_of(str(path), labels, len(names), table.line)
    return Samples(str(path), given, classes, names, root=root, outside=allow_outside)


def image_below(root: Path, name: str, outside: bool) -> Path:
    """Return the path of an image; raises InputError where it has come to lead out of `root` since it was listed."""
    path = root / name
    _within(path, root.resolve(), outside, str(path))
    return path


def _within(path: Path, base: Path, allowed: bool, where: str) -> None:
    """Refuse a path that leads out of `base`."""
    try:
        inside = Path(os.path.realpath(path)).is_relative_to(base)  # Path.resolve fails at a circle of links
    except ValueError as error:
        raise InputError(f"{where}: is no path: {error}") from error
    if not allowed and not inside:
        raise InputError(f"{where}: lies outside {base}, from where alone files are read; --allow-outside reads it")
