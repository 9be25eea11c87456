"""What an audit left in its folder, read again; `result_folder.py` says what is there."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes

SUMMARY = "summary.json"
SCORES = ("label", "score", "p_wrong", "suggested", "p_suggested", "is_issue", "logits")
"""`label` and `suggested` are classes (int64), `is_issue` is bool, `logits` N x C, the others float64."""


@dataclass(frozen=True)
class Result:
    """N samples with their scores."""

    folder: Path
    names: list[str]
    classes: list[str]
    scores: Mapping[str, NDArray[Any]]
    """By `SCORES`."""
    source: str
    """What was audited."""
    root: Path | None
    """The folder that the names of image files are below."""

    @property
    def suspects(self) -> NDArray[np.int64]:
        """The labels to look at, the most suspicious first."""
        order = np.argsort(-self.scores["score"], kind="stable")
        found: NDArray[np.int64] = order[self.scores["is_issue"][order]]
        return found


def read_result(folder: Path) -> tuple[Result, dict[str, Any]]:
    """Return the result in a folder, and its summary; raises InputError where there is none, or a damaged one."""
    if not (folder / SUMMARY).exists():
        raise InputError(f"{folder}: has no audit, {SUMMARY} is missing: imae audit DATA --output {folder}")
    try:
        summary = json.loads(read_bytes(folder / SUMMARY))
        root, source = summary["root"], str(summary["source"])
        with np.load(io.BytesIO(read_bytes(folder / "scores.npz")), allow_pickle=False) as file:
            scores = {name: file[name] for name in SCORES}
            classes = [str(name) for name in file["classes"]]
        names = read_bytes(folder / "names.txt").decode(errors="surrogateescape").split("\n")[:-1]
        count = len(names)
        if not count or any(len(array) != count for array in scores.values()):
            raise ValueError(f"{count} names, scores of {sorted({len(array) for array in scores.values()})} samples")
        for name in ("label", "suggested"):
            if not (scores[name].min() >= 0 and scores[name].max() < len(classes)):
                raise ValueError(f"{name} names classes beyond the {len(classes)} there are")
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder}: does not hold the files of one audit: {error!r}") from error
    return Result(folder, names, classes, scores, source, None if root is None else Path(root)), summary
