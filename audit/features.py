"""Features as the heads read them: rows of numbers, standardised, from memory or from a file that is mapped into it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imae.prototxt_like.errors import InputError, counted

IN_MEMORY = 2**31
"""Bytes up to which the standardised rows are kept; larger tables are read, and standardised, batch by batch."""
FARTHEST = 10.0
"""Standard deviations from the mean at which a value is cut off."""
_ROWS = 65536
"""Read at a time."""


class Features:
    """N rows of D numbers, each column with mean 0 and standard deviation 1; a column that does not vary is 0.

    `table` (N x D, any type of number) may be a map of a file. Raises InputError for one without rows or columns, of
    another number of axes, or with a value that is not finite.
    """

    def __init__(self, table: NDArray[Any], *, source: str = "features") -> None:
        if table.ndim > 2:
            table = table.reshape(len(table), -1)
        if table.ndim != 2 or 0 in table.shape:
            raise InputError(f"{source}: has the shape {table.shape}, expected a row of numbers for each sample")
        if table.dtype.kind not in "iufb":
            raise InputError(f"{source}: holds {table.dtype} values, expected numbers")
        self._table = table
        self.width = int(table.shape[1])
        self.mean, self.scale = self._moments(source)
        self._rows: NDArray[np.float32] | None = None
        if table.shape[0] * table.shape[1] * 4 <= IN_MEMORY:
            parts = [self._standardised(table[start : start + _ROWS]) for start in self._starts()]
            self._rows = torch.cat(parts).numpy()

    def __len__(self) -> int:
        return len(self._table)

    def rows(self, index: Tensor) -> Tensor:
        """Return the standardised rows of `index` as float32."""
        if self._rows is not None:
            return torch.from_numpy(self._rows).index_select(0, index)  # [index] takes four times as long
        return self._standardised(self._table[index.numpy()])

    def subset(self, index: Tensor) -> "Features":
        """Return some of the rows, in memory, standardised as they are here."""
        part = object.__new__(Features)
        part._table, part.width, part.mean, part.scale = self._table[index.numpy()], self.width, self.mean, self.scale
        part._rows = self.rows(index).numpy()
        return part

    def __getstate__(self) -> dict[str, Any]:
        """One table for another process: an array, always the same, of which joblib makes a map that all share."""
        return self.__dict__ if self._rows is None else {**self.__dict__, "_table": self._rows}

    def _starts(self) -> range:
        return range(0, len(self._table), _ROWS)

    def _moments(self, source: str) -> tuple[Tensor, Tensor]:
        """The mean of each column, and what it is multiplied by: 1 over its standard deviation, or 0."""
        count, mean, squares = 0, torch.zeros(self.width).double(), torch.zeros(self.width).double()
        for start in self._starts():
            rows = self._numbers(self._table[start : start + _ROWS])
            if not torch.isfinite(rows.sum()) and not (finite := torch.isfinite(rows)).all():
                row, column = (int(place) + 1 for place in (~finite).nonzero()[0])
                raise InputError(f"{source}: row {start + row}, column {column} is no finite number")
            variance, own = torch.var_mean(rows, 0, correction=0)
            step, total = own.double() - mean, count + len(rows)
            mean = mean + step * len(rows) / total
            squares = squares + variance.double() * len(rows) + step**2 * (count * len(rows) / total)
            count = total
        deviation = (squares / count).sqrt()
        varies = deviation > 1e-6 * mean.abs().clamp_min(1e-30)
        return mean, torch.where(varies, 1 / deviation.where(varies, 1.0), 0.0)

    @staticmethod
    def standardised(rows: NDArray[Any], mean: Tensor, scale: Tensor) -> Tensor:
        """Return rows as the heads take them: float32."""
        x = Features._numbers(rows)
        x = (x - mean.to(x.dtype)).mul_(scale.to(x.dtype)).float()
        return x.clamp_(-FARTHEST, FARTHEST)

    def _standardised(self, rows: NDArray[Any]) -> Tensor:
        return self.standardised(rows, self.mean, self.scale)

    @staticmethod
    def _numbers(rows: NDArray[Any]) -> Tensor:
        """Rows as float32, or as float64 where they may not fit into that."""
        exact = rows.dtype.itemsize <= (4 if rows.dtype.kind == "f" else 2)
        return torch.from_numpy(np.require(rows, np.float32 if exact else np.float64, ["C", "W"]))


def check_labels(labels: NDArray[Any], samples: int) -> tuple[NDArray[np.int64], list[str]]:
    """Return labels as classes 0 .. C - 1 (N), and what each class is called, in sorted order.

    Labels may be integers, texts or anything that numpy.unique sorts. Raises InputError unless there is one for each of
    `samples` and at least two classes.
    """
    labels = np.asarray(labels)
    if labels.shape != (samples,):
        raise InputError(f"labels of shape {labels.shape}, expected one for each of {counted(samples, 'sample')}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(f"label {int(np.isfinite(labels).argmin()) + 1} is missing or not finite")
    if labels.dtype.kind == "O" and (missing := [i for i, label in enumerate(labels) if _is_missing(label)]):
        raise InputError(f"label {missing[0] + 1} is missing")
    if not samples:
        raise InputError("no samples, expected some of at least two classes")
    names, classes = np.unique(labels.astype(str) if labels.dtype.kind == "O" else labels, return_inverse=True)
    if len(names) < 2:
        raise InputError(f"all {counted(samples, 'label')} are {names.tolist()[0]!r}: expected at least two classes")
    if len(names) > 10_000:
        raise InputError(f"{len(names)} different labels: expected classes, at most 10,000 of them")
    return classes.reshape(-1).astype(np.int64), [_name(name) for name in names.tolist()]


def _is_missing(label: object) -> bool:
    """Whether it is None, NaN, NaT or pandas' NA."""
    return not isinstance(label, str) and str(label) in ("None", "nan", "NaT", "<NA>")


def _name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
