"""What trainings leave at a prefix: finding the snapshot to go on from, and what a new training would overwrite."""

import logging
import math
import re
from pathlib import Path

from imae.prototxt_like.binary import open_caffemodel, open_solverstate
from imae.prototxt_like.errors import InputError

_log = logging.getLogger(__name__)


def newest_snapshot(prefix: str, before: float = math.inf) -> Path | None:
    """Return the solverstate at `prefix` of the highest iteration, lower than `before`, that is whole, or None.

    Warns of those that are damaged or hold values that are not finite.
    """
    states = _snapshots(prefix, ".solverstate")
    for iteration in sorted((number for number in states if number < before), reverse=True):
        try:
            open_solverstate(states[iteration])
            open_caffemodel(states[iteration].with_suffix(".caffemodel"))
        except InputError as error:
            _log.warning("passed over, being damaged: %s", error)
        else:
            return states[iteration]
    return None


def is_at(prefix: str, state: Path) -> bool:
    """Return whether a solverstate is one of the snapshots at `prefix`."""
    return any(found.resolve() == state.resolve() for found in _snapshots(prefix, ".solverstate").values())


def results_at(prefix: str) -> list[Path]:
    """Return metrics, best weights and snapshots at `prefix`, oldest first; not the log: each training adds to it."""
    if not prefix:
        return []
    metrics = [path for path in (Path(f"{prefix}.metrics.jsonl"),) if path.exists()]
    best = [path for path in (Path(f"{prefix}_best.caffemodel"), Path(f"{prefix}_best.json")) if path.exists()]
    kinds = (_snapshots(prefix, ".caffemodel"), _snapshots(prefix, ".solverstate"))
    return metrics + best + [found[i] for i in sorted({*kinds[0], *kinds[1]}) for found in kinds if i in found]


def refuse_results(prefix: str) -> None:
    """Raise InputError, which says what may be done, if a new training would overwrite results at `prefix`."""
    if found := results_at(prefix):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InputError(
            f"{prefix}: holds results of a training ({found[-1].name}{more}); --resume goes on from its newest "
            "snapshot, --overwrite removes them, --prefix puts the new ones elsewhere"
        )


def remove_results(prefix: str) -> None:
    """Delete what `results_at` finds: a snapshot left there would be taken for one of the next training's."""
    for path in results_at(prefix):
        path.unlink(missing_ok=True)


def _snapshots(prefix: str, suffix: str) -> dict[int, Path]:
    """The files of snapshots at `prefix` by their iterations."""
    pattern = re.compile(re.escape(Path(prefix).name) + r"_iter_(\d+)" + re.escape(suffix))
    folder = Path(prefix).parent
    return {int(m[1]): path for path in folder.glob(f"*{suffix}") if (m := pattern.fullmatch(path.name))}
