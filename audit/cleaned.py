"""Which labels are kept, changed and dropped: `cleaned.csv`, and `cleaned.txt` for ImageData."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imae.audit.result import Result
from imae.prototxt_like.files import write_atomically

KEEP, DROP, RELABEL = "keep", "drop", "relabel"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""How a cell begins that a spreadsheet may take for a formula; the last are the same signs, as wide as Chinese ones."""
CLEANED = ("index", "name", "label", "given", "action", "reason")


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
        if action != DROP:
            lines.append(f"{one_line(name)} {final}\n")
    write_csv(result.folder / "cleaned.csv", CLEANED, rows)
    if result.root is not None:
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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV in which no cell is a formula."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    write_atomically(path, file.getvalue().encode(errors="surrogateescape"))


def harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: with a quote before `FORMULA`."""
    number = text.lstrip("+-").replace(".", "", 1).isdecimal()
    return f"'{text}" if text.startswith(FORMULA) and not number else text


def one_line(text: str) -> str:
    """Return text that is to be one line."""
    return text.replace("\r", " ").replace("\n", " ")
