"""Results on disk: dataclasses as JSON, read back with every value checked."""

import json
import math
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

Saved = TypeVar("Saved")


def read_saved(path: Path, kind: type[Saved], what: str) -> Saved:
    """Return the `kind` that a file holds as JSON; raises InputError if it holds another thing than `what`."""
    try:
        return parse_saved(kind, read_bytes(path))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is no {what} ({error}); delete it to train again") from error


def parse_saved(kind: type[Saved], text: str | bytes) -> Saved:
    """Return the `kind` that JSON stands for; raises ValueError or TypeError, which say what is wrong with it."""
    saved: Saved = _checked(kind, json.loads(text))
    return saved


def _checked(kind: Any, value: Any) -> Any:
    """`value`, as JSON has it, as a `kind`: a dataclass, list, dict, number, text, path, or None where that may be."""
    if get_origin(kind) is UnionType:
        return None if value is None else _checked(get_args(kind)[0], value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if unknown := value.keys() - hints:
            raise ValueError(f'it has "{min(unknown)}"')
        return kind(**{name: _checked(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    container = get_origin(kind)
    if container is list and isinstance(value, list):
        return [_checked(get_args(kind)[0], item) for item in value]
    if container is dict and isinstance(value, dict):
        return {name: _checked(get_args(kind)[1], item) for name, item in value.items()}
    raise ValueError(f"{getattr(kind, '__name__', kind)} expected, not {json.dumps(value)[:40]}")
