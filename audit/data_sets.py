"""Data sets of PyTorch and Hugging Face as samples to be audited."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from imae.audit.data_set_images import DataSetImages, looks_like_image
from imae.audit.features import IN_MEMORY, check_labels
from imae.audit.samples import Samples
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.number_file import new_map
from imae.prototxt_like.text import did_you_mean

_ROWS = 1000
"""Of columns of Hugging Face's, read at a time."""


def is_data_set(values: Any) -> bool:
    """Whether it is a data set of PyTorch or of Hugging Face, or a list of Pillow's images."""
    pictures = isinstance(values, list | tuple) and values and isinstance(values[0], Image.Image)
    return bool(pictures) or isinstance(values, Dataset) or _has_columns(values)


def read_data_set(data: Any, labels: Any = None, folder: Path | None = None) -> Samples:
    """Return the samples of a data set: features, or images that are read when they are needed.

    - Of PyTorch, or anything with a length and numbered items, (X, label): X is an image as `looks_like_image` has it,
      or numbers. A data set that keeps `targets` and `classes` as torchvision's do is not read for its labels.
    - Of Hugging Face: a column of images, else all other columns as numbers; the labels are the column of type
      ClassLabel, with its names, else that called "label", or the one that `labels` names.

    `labels` (N) go before its own. Many features are kept in `folder`. Raises InputError for anything else.
    """
    return (_of_columns if _has_columns(data) else _of_items)(data, labels, folder)


def _has_columns(values: Any) -> bool:
    return hasattr(values, "column_names") and hasattr(values, "with_format")


def _samples(labels: Any, names: Sequence[str] | None, count: int, **content: Any) -> Samples:
    given, classes = check_labels(np.asarray(labels), count)
    if names:
        numbers = [int(text) if text.isdecimal() else -1 for text in classes]
        if not 0 <= min(numbers) <= max(numbers) < len(names):
            wrong = int((given == [0 <= number < len(names) for number in numbers].index(False)).argmax())
            raise InputError(f"item {wrong} has the label {classes[given[wrong]]}, of {counted(len(names), 'class')}")
        classes = [str(names[number]) for number in numbers]
    return Samples("data set", given, classes, [f"item {i}" for i in range(count)], **content)


def _of_items(data: Any, labels: Any, folder: Path | None) -> Samples:
    """The samples of a data set of pairs, or with `labels`, of anything."""

    def pair(index: int) -> tuple[Any, Any]:
        item = data[index]
        if labels is not None and not isinstance(item, tuple | list):
            return item, None
        value, label = item
        return value, label

    try:
        count = len(data)
        if looks_like_image(pair(0)[0]):
            names = None
            if labels is None:
                labels, names = _kept_labels(data)
            if labels is None:
                labels = [np.asarray(pair(i)[1]) for i in range(count)]
            return _samples(labels, names, count, images=DataSetImages(lambda index: pair(index)[0], count))
        table, own = np.empty((0, 0)), []
        for i in range(count):
            value, label = pair(i)
            row = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value).ravel()
            if i == 0:
                table = _table((count, row.size), row.dtype, folder)
            if row.size != table.shape[1]:
                raise InputError(f"item {i}: has {counted(row.size, 'value')}, expected {table.shape[1]}")
            table[i] = row
            own.append(np.asarray(label))
    except (TypeError, ValueError, LookupError, NotImplementedError) as error:
        what = " ".join(str(error).split()) or repr(error)
        raise InputError(f"expected labels, or a data set whose items are (features, label): {what}") from error
    return _samples(own if labels is None else labels, None, count, features=table)


def _kept_labels(data: Any) -> tuple[Any, Sequence[str] | None]:
    """The labels and the names of the classes that a data set keeps beside its items, None where it does not."""
    if isinstance(data, Subset):
        labels, names = _kept_labels(data.dataset)
        return None if labels is None else np.asarray(labels)[list(data.indices)], names
    labels, names = getattr(data, "targets", None), getattr(data, "classes", None)
    if labels is None or len(labels) != len(data) or getattr(data, "target_transform", None) is not None:
        return None, None
    return labels, names if isinstance(names, list | tuple) else None


def _of_columns(data: Any, labels: Any, folder: Path | None) -> Samples:
    """The samples of a data set of Hugging Face's."""
    if isinstance(data.column_names, dict):
        raise InputError(f"expected one data set, of {', '.join(data.column_names)}")
    if not hasattr(data, "__len__"):
        raise InputError("expected a data set with a length, not a stream")
    kinds = {name: type(kind).__name__ for name, kind in data.features.items()}
    names, column = None, ""
    if labels is None or isinstance(labels, str):
        column = _label_column(kinds, labels)
        names = getattr(data.features[column], "names", None)
        labels = list(data.with_format(None)[column])
    count, others = len(data), [name for name in kinds if name != column]
    if pictures := [name for name in others if kinds[name] == "Image"]:
        shown = data.with_format(None).select_columns(pictures[:1])
        images = DataSetImages(lambda index: shown[index][pictures[0]], count)
        return _samples(labels, names, count, images=images)
    if not others:
        raise InputError("a data set without a column beside the labels")
    columns, table = data.with_format("numpy").select_columns(others), np.empty((0, 0))
    for start in range(0, count, _ROWS):
        part = columns[start : start + _ROWS]
        for name in others:
            if np.asarray(part[name]).dtype.kind not in "iufb":
                raise InputError(f'column "{name}" holds no images and no numbers, or lists of several lengths')
        rows = np.concatenate([np.asarray(part[name]).reshape(len(part[name]), -1) for name in others], 1)
        if start == 0:
            table = _table((count, rows.shape[1]), rows.dtype, folder)
        if rows.shape[1] != table.shape[1]:
            raise InputError(f"item {start}: has {counted(rows.shape[1], 'value')}, expected {table.shape[1]}")
        table[start : start + len(rows)] = rows
    return _samples(labels, names, count, features=table)


def _label_column(kinds: dict[str, str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in kinds:
            raise InputError(f'no column "{wanted}", it has {", ".join(kinds)}{did_you_mean(wanted, kinds)}')
        return wanted
    found = [name for name, kind in kinds.items() if kind == "ClassLabel"] or [n for n in kinds if n == "label"]
    if len(found) != 1:
        raise InputError(f"{counted(len(found), 'column')} of labels among {', '.join(kinds)}: name one by labels")
    return found[0]


def _table(shape: tuple[int, int], kind: np.dtype[Any], folder: Path | None) -> NDArray[Any]:
    """An array to be filled; a large one in a file, of which memory holds what is being used."""
    if folder is None or shape[0] * shape[1] * kind.itemsize <= IN_MEMORY:
        return np.empty(shape, kind)
    return new_map(folder / "items.npy", shape, kind)
