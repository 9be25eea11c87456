"""What trainings leave at a prefix: finding the snapshot to go on from, and what a new training would overwrite."""

import logging
import math
import re
from pathlib import Path

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.weights import open_state, open_weights

_log = logging.getLogger(__name__)


def newest_snapshot(prefix: str, before: float = math.inf) -> Path | None:
    """Return the solverstate at `prefix` of the highest iteration, lower than `before`, that is whole, or None.

    Warns of those that are damaged or hold values that are not finite.
    """
    states = _snapshots(prefix, ".solverstate")
    for _, state in sorted((found for found in states if found[0] < before), reverse=True):
        try:
            open_state(state)
            open_weights(weights_beside(state))
        except InputError as error:
            _log.warning("passed over, being damaged: %s", error)
        else:
            return state
    return None


def weights_beside(state: Path) -> Path:
    """Return the path of the weights of the snapshot whose solverstate is at `state`."""
    return state.with_name(".caffemodel".join(state.name.rsplit(".solverstate", 1)))


def is_at(prefix: str, state: Path) -> bool:
    """Return whether a solverstate is one of the snapshots at `prefix`."""
    return any(found.resolve() == state.resolve() for _, found in _snapshots(prefix, ".solverstate"))


def results_at(prefix: str) -> list[Path]:
    """Return metrics, samples, best weights and snapshots at `prefix`, oldest first; not the log, which is added to."""
    if not prefix:
        return []
    metrics = [path for path in (Path(f"{prefix}.metrics.jsonl"), sample_record(prefix)) if path.exists()]
    best = [Path(f"{prefix}_best.{kind}") for kind in ("caffemodel", "caffemodel.h5", "json")]
    snapshots = sorted(_snapshots(prefix, ".caffemodel") + _snapshots(prefix, ".solverstate"))
    return metrics + [path for path in best if path.exists()] + [path for _, path in snapshots]


def sample_record(prefix: str) -> Path:
    """Return where a training at `prefix` records its samples."""
    return Path(f"{prefix}.samples.npz")


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


def _snapshots(prefix: str, suffix: str) -> list[tuple[int, Path]]:
    """The files of snapshots at `prefix` of one kind, binary or HDF5, with their iterations."""
    pattern = re.compile(re.escape(Path(prefix).name) + r"_iter_(\d+)" + re.escape(suffix) + r"(\.h5)?")
    folder = Path(prefix).parent
    return [(int(m[1]), path) for path in folder.glob(f"*{suffix}*") if (m := pattern.fullmatch(path.name))]
