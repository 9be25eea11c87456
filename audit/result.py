"""What an audit left in its folder, read again; `result_folder.py` says what is there."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes
from imae.prototxt_like.number_file import read_arrays

SUMMARY = "summary.json"
SCORES = ("label", "score", "p_wrong", "suggested", "p_suggested", "is_issue", "logits")
"""`label` and `suggested` are classes (int64), `is_issue` is bool, `logits` N x C, the others float64."""
KINDS = {"label": "i", "suggested": "i", "is_issue": "b"}


@dataclass(frozen=True)
class Result:
    """N samples with their scores."""

    folder: Path
    names: list[str]
    classes: list[str]
    scores: Mapping[str, NDArray[Any]]
    """An array for each name in `SCORES`."""
    source: str
    """What was audited."""
    root: Path | None
    """The folder that the names of image files are below."""
    outside: bool = False
    """Whether files outside of it are read."""

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The samples, the most suspicious first."""
        return np.argsort(-self.scores["score"], kind="stable")

    @cached_property
    def suspects(self) -> NDArray[np.int64]:
        """The labels to look at, the most suspicious first."""
        found: NDArray[np.int64] = self.order[self.scores["is_issue"][self.order]]
        return found


def review_command(folder: Path, suspects: int) -> str:
    """Return the command by which a person looks at the suspects, or without any at the most suspicious labels."""
    return shlex.join(["imae", "review", str(folder), *([] if suspects else ["--top", "20"])])


def read_result(folder: Path) -> tuple[Result, dict[str, Any]]:
    """Return the result in a folder, and its summary; raises InputError where there is none, or a damaged one."""
    if not (folder / SUMMARY).exists():
        raise InputError(f"{folder}: has no audit, {SUMMARY} is missing: imae audit DATA --output {folder}")
    try:
        summary = json.loads(read_bytes(folder / SUMMARY))
        root, source = summary["root"], str(summary["source"])
        classes = [str(name) for name in summary["classes"]]
        names = read_bytes(folder / "names.txt").decode(errors="surrogateescape").split("\n")[:-1]
        shapes = ((len(names),), (len(names), len(classes)))

        def check(shape: tuple[int, ...]) -> None:
            if shape not in shapes or not names:
                raise ValueError(f"{len(names)} names of {len(classes)} classes, scores of shape {shape}")

        scores = read_arrays(folder / "scores.npz", SCORES, check, "biuf")
        for name, array in scores.items():
            if array.ndim != 1 + (name == "logits") or array.dtype.kind != KINDS.get(name, "f"):
                raise ValueError(f"{name} are {array.dtype} of shape {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} are not all finite")
            if array.dtype.kind == "i" and not (array.min() >= 0 and array.max() < len(classes)):
                raise ValueError(f"{name} names classes beyond the {len(classes)} there are")
        folder_of_images, outside = None if root is None else Path(root), summary.get("outside") is True
        return Result(folder, names, classes, scores, source, folder_of_images, outside), summary
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = error if isinstance(error, InputError) else repr(error)
        raise InputError(f"{folder}: does not hold the files of one audit: {what}") from error
