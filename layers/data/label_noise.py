"""Labels that are wrong on purpose: the corruptions of a training set's labels, and labels from files.

Everything is drawn from `numpy.random.Generator(numpy.random.PCG64(seed))` in the order given at each kind, so that the
same labels can be drawn elsewhere.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.number_file import has_key, read_numbers, split_key
from imae.prototxt_like.schema import NoiseKind

Labels = NDArray[np.int64]
_CLEAN = ":clean_label"
_MOST = 2**26  # numbers that a transition matrix may have: those of 8,192 classes


def corrupt(
    labels: Labels, classes: int, kind: int | str, rate: float, seed: int, *, matrix: ArrayLike | None = None
) -> Labels:
    """Return corrupted `labels` (N, each 0 .. classes - 1) by one of the `NoiseKind`s, a number or a name.

    With draw = rng.random(N), and chosen = draw < rate:

    - SYMMETRIC: where chosen, rng.integers(0, classes, N), which may be the label itself (the paper's);
    - SYMMETRIC_EXCLUSIVE: where chosen, (label + rng.integers(1, classes, N)) mod classes, always another class;
    - PAIR_FLIP: where chosen, (label + 1) mod classes;
    - MATRIX: the number of entries of cumsum(matrix[label]) that are <= draw: class j with probability
      matrix[label, j]. `rate` is not used.

    Raises InputError for a rate outside [0, 1], a label out of range, or a `matrix` that is not classes x classes
    with rows that sum to 1.
    """
    name = kind if isinstance(kind, str) else NoiseKind.Name(kind)
    _check_range(labels, classes, "label")
    rng = np.random.Generator(np.random.PCG64(seed))
    draw = rng.random(len(labels))
    if name == "MATRIX":
        below = np.cumsum(_check_matrix(matrix, classes), axis=1)[labels] <= draw[:, None]
        drawn: Labels = np.minimum(below.sum(axis=1), classes - 1)  # the last sum may round to just below 1
        return drawn
    if not 0 <= rate <= 1:
        raise InputError(f"noise_rate must lie between 0 and 1, not {rate:g}")
    if name == "SYMMETRIC":
        wrong = rng.integers(0, classes, len(labels))
    elif name == "SYMMETRIC_EXCLUSIVE":
        wrong = (labels + rng.integers(1, classes, len(labels))) % classes
    elif name == "PAIR_FLIP":
        wrong = (labels + 1) % classes
    else:
        raise InputError(f"labels cannot be drawn by the noise kind {name}")
    return np.where(draw < rate, wrong, labels)


def corrupt_by(param: Any, labels: Labels, classes: int, find: Callable[[str], Path]) -> Labels:
    """Return `labels` (N) corrupted as a data layer's parameter message says, by `noise_kind` and what belongs to it.

    `find` gives the path of its `noise_file`. Raises InputError as `corrupt`, `load_labels` and `load_matrix` do.
    """
    kind = NoiseKind.Name(param.noise_kind)
    if (kind in ("MATRIX", "FILE")) != param.HasField("noise_file"):
        raise InputError(f"noise_kind: {kind} {'takes no' if param.HasField('noise_file') else 'needs a'} noise_file")
    file, key = split_key(param.noise_file)
    path = f"{find(file)}{key}"
    if kind == "FILE":
        return load_labels(path, len(labels), classes, intact=labels)
    matrix = None
    if kind == "MATRIX":
        try:
            matrix = _check_matrix(load_matrix(path), classes)
        except InputError as error:
            raise InputError(str(error) if path in str(error) else f"{path}: {error}") from None
    return corrupt(labels, classes, kind, _rate(param), param.noise_seed, matrix=matrix)


def noise_wanted(param: Any) -> bool:
    """Whether a data layer's parameter message asks for noise; labels that are no classes stay as they are without."""
    return bool(param.noise_rate or param.noise_kind or param.HasField("noise_file"))


def describe_noise(param: Any, labels: Labels, intact: Labels) -> str:
    """Return in words what noise a data layer's parameter message asks for, and how many `labels` are not the `intact`.

    Such as `symmetric noise at rate 0.5, 554 of 1297 labels (42.7 %) differ from the intact ones`; empty where no noise
    is asked for.
    """
    kind = NoiseKind.Name(param.noise_kind)
    if kind == "FILE":
        noise = f"labels of {param.noise_file}"
    elif kind == "MATRIX":
        noise = f"noise by the matrix of {param.noise_file}"
    elif param.noise_rate:
        noise = f"{kind.lower().replace('_', ' ')} noise at rate {_rate(param):g}"
    else:
        return ""
    wrong, total = np.count_nonzero(labels != intact), len(labels)
    return f"{noise}, {wrong} of {total} labels ({100 * wrong / total:.1f} %) differ from the intact ones"


def _rate(param: Any) -> float:
    """Return noise_rate as it was written, such as 0.2, not the float32 next to it."""
    return float(str(np.float32(param.noise_rate)))


def _check_matrix(matrix: ArrayLike | None, classes: int) -> NDArray[np.float64]:
    array = np.asarray(matrix, np.float64)
    if array.shape != (classes, classes):
        raise InputError(f"the noise matrix has the shape {array.shape}, expected {classes} x {classes}")
    sums = array.sum(axis=1)
    wrong = ~(np.isclose(sums, 1, atol=1e-5) & (array >= 0).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"row {row} of the noise matrix is no distribution, its sum is {sums[row]:g}")
    normalised: NDArray[np.float64] = array / sums[:, None]
    return normalised


def load_matrix(path: str | Path) -> NDArray[np.float64]:
    """Read a transition matrix, row: true class, column: label, from a file or `file:key` as `read_numbers` does.

    Raises InputError, naming the file, if it is missing or holds no numbers, or more than a matrix of labels can.
    """

    def check(shape: tuple[int, ...]) -> None:
        if math.prod(shape) > _MOST:
            raise InputError(f"{path}: holds numbers of shape {shape}, expected a matrix")

    return read_numbers(path, check).astype(np.float64)


def load_labels(path: str | Path, count: int, classes: int, *, intact: Labels | None = None) -> Labels:
    """Read `count` labels, each 0 .. classes - 1, from a file or `file:key` as `read_numbers` does, in text one a line.

    Where the file has an array `clean_label` beside them, as CIFAR-10N's, and the `intact` labels are given, both must
    agree: else the labels belong to other images, or to these in another order. Raises InputError, naming the file,
    if they do not, or if it is missing, holds no integers, too few, too many, or one out of range.
    """

    def check(shape: tuple[int, ...]) -> None:
        if shape not in ((count,), (count, 1)):
            raise InputError(f"{path}: holds labels of shape {shape}, expected {count} labels")

    array = read_numbers(path, check).ravel()
    file, key = split_key(str(path))
    if intact is not None and key and key != _CLEAN and has_key(file + _CLEAN):
        clean = load_labels(file + _CLEAN, count, classes)
        if different := np.count_nonzero(clean != intact):
            raise InputError(
                f"{file}: clean_label differs from the labels of the data for {different} of {count} images: the file "
                "is of other images, or has them in another order"
            )
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.int64)
    if not np.array_equal(labels, array):
        raise InputError(f"{path}: the labels are not integers")
    _check_range(labels, classes, f"{path}: label")
    return labels


def save_labels(path: str | Path, labels: Labels) -> None:
    """Write `labels` for `load_labels`: .npy if the path ends so, else text, one a line."""
    file = io.BytesIO()
    if Path(path).suffix == ".npy":
        np.save(file, labels)
    else:
        np.savetxt(file, labels, fmt="%d")
    write_atomically(path, file.getvalue())


def _check_range(labels: Labels, classes: int, what: str) -> None:
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        index = int(wrong.argmax())
        raise InputError(f"{what} {labels[index]} (sample {index}) is out of range: there are {classes} classes")
