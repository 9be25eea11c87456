"""Tables of features as files: .npy, .npz with the images' names, or Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import replacing


def check_format(path: Path) -> None:
    """Raise InputError if what writes files of this ending is not installed."""
    if path.suffix == ".parquet":
        _pyarrow(path)


def write_features(path: Path, features: NDArray[np.float32], images: Sequence[str] = ()) -> None:
    """Write a row for each image (images x features), or a number for each, in the format that the ending says.

    .npz has the arrays `features` and, where they are known, `images`; .parquet such columns, a list of numbers a row;
    any other ending is .npy's, without names. Raises InputError if it cannot be written.
    """
    with replacing(path) as file:
        if path.suffix == ".npz":
            named = {"images": np.array(images, np.str_)} if images else {}
            np.savez(file, features=features, **named)  # type: ignore[arg-type]
        elif path.suffix == ".parquet":
            _write_parquet(file, path, features, images)
        else:
            np.save(file, features)


def _write_parquet(file: Any, path: Path, features: NDArray[np.float32], images: Sequence[str]) -> None:
    pyarrow, parquet = _pyarrow(path)
    column = pyarrow.array(features.ravel())
    if features.ndim > 1:
        column = pyarrow.FixedSizeListArray.from_arrays(column, features.shape[1])
    columns: dict[str, Any] = {"images": pyarrow.array(images)} if images else {}
    parquet.write_table(pyarrow.table(columns | {"features": column}), file, write_page_checksum=True)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: writing Parquet needs pyarrow: pip install 'imae[tables]'") from None
    return pyarrow, parquet
