"""Which labels are kept, changed and dropped: `cleaned.csv`, and `cleaned.txt` for ImageData."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from imae.audit.result import Result
from imae.prototxt_like.csv_file import CLEANED, DROP, KEEP, RELABEL, write_csv
from imae.prototxt_like.errors import counted
from imae.prototxt_like.files import write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thresholds:
    """What becomes of a label: relabelled, else dropped, else kept. None: never."""

    drop_above: float | None = None
    """Dropped where it is wrong with a greater probability."""
    relabel_above: float | None = None
    """Relabelled where the suggested label is right with a greater probability."""


@dataclass(frozen=True)
class Decision:
    """What a person said of a label; `label` is the class that it becomes by RELABEL."""

    action: str
    label: int


def write_cleaned(result: Result, thresholds: Thresholds, decisions: Mapping[int, Decision]) -> dict[str, int]:
    """Write `cleaned.csv` and, of images in files, `cleaned.txt`; return how many labels each action has.

    `decisions`, by the number of the sample, go before the thresholds.
    """
    counts = dict.fromkeys((KEEP, RELABEL, DROP), 0)
    rows, lines, classes = [], [], result.classes
    scores = (result.scores[name].tolist() for name in ("label", "suggested", "p_wrong", "p_suggested"))
    for i, (name, label, suggested, p_wrong, p_suggested) in enumerate(zip(result.names, *scores, strict=True)):
        action, reason = _decide(p_wrong, p_suggested, thresholds)
        final = suggested if action == RELABEL else label
        if i in decisions:
            action, reason = decisions[i].action, "reviewed"
            final = decisions[i].label if action == RELABEL else label
        counts[action] += 1
        rows.append((i, name, classes[final], classes[label], action, reason))
        if action != DROP and one_line(name) == name:
            lines.append(f"{name} {final}\n")
    write_csv(result.folder / "cleaned.csv", CLEANED, rows)
    if result.root is not None:
        if broken := sum(one_line(name) != name for name in result.names):
            _log.warning("cleaned.txt: left out %s whose name has a line's end", counted(broken, "image"))
        write_atomically(result.folder / "cleaned.txt", "".join(lines).encode(errors="surrogateescape"))
    return counts


def _decide(p_wrong: float, p_suggested: float, thresholds: Thresholds) -> tuple[str, str]:
    if thresholds.relabel_above is not None and p_suggested > thresholds.relabel_above:
        return (
            RELABEL,
            f"the suggested label is right with probability {p_suggested:.3f} > {thresholds.relabel_above:g}",
        )
    if thresholds.drop_above is not None and p_wrong > thresholds.drop_above:
        return DROP, f"wrong with probability {p_wrong:.3f} > {thresholds.drop_above:g}"
    return KEEP, ""


def one_line(text: str) -> str:
    """Return text that is to be one line."""
    return text.replace("\r", " ").replace("\n", " ")
