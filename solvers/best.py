"""The best and the final accuracy of a training's tests, and the weights that were best."""

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imae.layers.loss.accuracy import Accuracy
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.prototxt_like.schema import ImaeProvenance

_log = logging.getLogger(__name__)


def accuracies_of(net: Net) -> list[str]:
    """Return the outputs of a net that are accuracies over all classes."""
    tops = [step.layer.param.top[0] for step in net.steps if isinstance(step.layer, Accuracy) and step.layer.param.top]
    return [name for name in tops if name in net.outputs]


class BestAccuracy:
    """Follows the accuracies of test nets, and keeps the weights at which the first of them was best.

    The weights are in PREFIX_best.caffemodel, with `ending` behind, their iteration and accuracy in PREFIX_best.json. A
    tie replaces nothing.
    """

    def __init__(self, nets: Iterable[Net], prefix: str = "", ending: str = "") -> None:
        """Keep weights at `prefix`, or none without one; raises InputError if no test net has an accuracy to go by."""
        self._weights = Path(f"{prefix}_best.caffemodel{ending}")
        self._names = {number: accuracies_of(net) for number, net in enumerate(nets)}
        self._tests: dict[tuple[int, str], list[tuple[int, float]]] = {}
        self._prefix = prefix
        self._first = next(((number, name) for number, names in self._names.items() for name in names), None)
        self._kept = -math.inf
        if prefix and not self._first:
            raise InputError("--keep-best needs a test net with an Accuracy layer, which says what is best")

    @property
    def files(self) -> list[Path]:
        """The files of the kept weights, where weights are kept."""
        return [self._weights, Path(f"{self._prefix}_best.json")] if self._prefix else []

    def begin(self, iteration: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Start at `iteration`, with the earlier tests from the metrics' `records`, and the weights kept so far."""
        self._tests, self._kept = {}, -math.inf
        for record in records:
            if record.get("phase") == "test" and isinstance(record.get("net"), int):
                self._follow(record["net"], record["iteration"], record)
        path = Path(f"{self._prefix}_best.json")
        if self._prefix and path.exists():
            try:
                kept = json.loads(read_bytes(path))
                if kept["iteration"] < iteration and self._weights.exists():
                    self._kept = float(kept["value"])
            except (ValueError, TypeError, KeyError, RecursionError, InputError):
                _log.warning("%s: does not say which weights are kept as the best; those of the next test are", path)

    def note(
        self, number: int, iteration: int, values: Mapping[str, Any], net: Net, provenance: ImaeProvenance | None = None
    ) -> None:
        """Take account of the outputs of test net `number`; keep the weights of `net` where they are the best."""
        self._follow(number, iteration, values)
        if not self._prefix or not self._first or self._first[0] != number:
            return
        value = values[self._first[1]]
        if isinstance(value, float) and math.isfinite(value) and value > self._kept:
            net.write_weights(self._weights, provenance=provenance)
            about = {"iteration": iteration, "output": self._first[1], "value": value}
            write_atomically(f"{self._prefix}_best.json", json.dumps(about).encode())
            self._kept = value

    def lines(self) -> list[str]:
        """Return a line for each accuracy: the best and the final one, and their iterations."""
        lines = []
        for (number, name), tests in self._tests.items():
            (best_at, best), (end, final) = max(tests, key=lambda test: test[1]), tests[-1]
            lines.append(
                f"Test net #{number}: {name} was best at iteration {best_at} ({best:g}), and is {final:g} at the end, "
                f"iteration {end}"
            )
        return lines

    def _follow(self, number: int, iteration: int, values: Mapping[str, Any]) -> None:
        for name in self._names.get(number, []):
            value = values.get(name)
            if isinstance(value, float) and math.isfinite(value):
                self._tests.setdefault((number, name), []).append((iteration, value))
