"""Which values the fields of a message may have, of those that their types allow: for text, files and command lines."""

import math
from collections.abc import Iterator
from typing import Any

from imae.prototxt_like.errors import InputError

LARGEST_INT32 = 2**31 - 1
LARGEST_INT64 = 2**63 - 1
BLOB_AXES = 32  # how many a blob may have: Caffe's kMaxBlobAxes

_NOT_NEGATIVE = (0, math.inf)
_POSITIVE = (1, math.inf)
_OF_A_SOLVER = """
base_lr momentum momentum2 rms_decay weight_decay delta test_iter test_interval display max_iter stepsize
stepvalue snapshot
"""
RANGES: dict[str, tuple[float, float]] = {
    **{f"SolverParameter.{name}": _NOT_NEGATIVE for name in _OF_A_SOLVER.split()},
    "SolverParameter.average_loss": _POSITIVE,
    "SolverParameter.iter_size": _POSITIVE,
    "ParamSpec.lr_mult": _NOT_NEGATIVE,
    "V1LayerParameter.blobs_lr": _NOT_NEGATIVE,
    "V0LayerParameter.blobs_lr": _NOT_NEGATIVE,
    "SolverState.iter": _NOT_NEGATIVE,
    "SolverState.current_step": _NOT_NEGATIVE,
    # So that the number of images drawn so far, of any batch size, remains an int64.
    "ImaeState.random_seed": (0, LARGEST_INT64),
    "ImaeState.train_forwards": (0, 2**40),
    "ImaeState.test_forwards": (0, 2**40),
    "ImaeState.batch_size": (0, 2**22),
    # A Reshape layer's may be 0 and -1; Caffe's numbers of axes and of values are ints.
    "BlobShape.dim": (-1, LARGEST_INT32),
    "FillerParameter.std": _NOT_NEGATIVE,
}
"""The least and the largest value of a field; all others take what their type holds, but no NaN and no infinity."""

_UNBOUNDED = {"ClipParameter.min", "ClipParameter.max"}  # fields in which an infinity has a meaning: no bound
_ANYTHING = {"ImaeState.recent_losses", "ImaeState.smoothed_loss"}  # records, which nothing is computed from
_VALUES = {f"BlobProto.{name}" for name in ("data", "diff", "double_data", "double_diff", "raw_data", "raw_diff")}
"""Checked where they are taken out as arrays, by `check_finite`'s callers."""


def check_message(message: Any, name: str) -> None:
    """Raise InputError, beginning with `name`, for the first field of a message that holds what it must not.

    That is a number outside its range in `RANGES`, a NaN or an infinity, a text with a zero byte (names of files could
    not be opened), and a shape of more axes than a blob can have.
    """
    for place, fault in _faults(message):
        raise InputError(f"{name}: {place} {fault}")


def _faults(message: Any) -> Iterator[tuple[str, str]]:
    kind = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        full_name = f"{kind}.{field.name}"
        if full_name in _VALUES:
            continue
        repeated = hasattr(value, "append") or hasattr(value, "add")
        if full_name == "BlobShape.dim" and len(value) > BLOB_AXES:
            yield field.name, f"has {len(value)} axes, a blob has at most {BLOB_AXES}"
        for index, item in enumerate(value if repeated else [value]):
            place = f"{field.name}[{index}]" if repeated else field.name
            if field.message_type:
                label = f' "{item.name}"' if getattr(item, "name", "") else ""
                yield from ((f"{place}{label}.{inner}", fault) for inner, fault in _faults(item))
            elif fault := _fault(full_name, item):
                yield place, fault


def _fault(full_name: str, value: Any) -> str | None:
    if isinstance(value, str):
        return "holds a zero byte" if "\0" in value else None
    if not isinstance(value, int | float) or full_name in _ANYTHING:
        return None
    if math.isnan(value) or (math.isinf(value) and full_name not in _UNBOUNDED):
        return f"is {value}, expected a finite number"
    low, high = RANGES.get(full_name, (-math.inf, math.inf))
    if low <= value <= high:
        return None
    shown = f"{value:g}" if isinstance(value, float) else value
    return f"is {shown}, expected {f'at least {low}' if value < low else f'at most {high}'}"
