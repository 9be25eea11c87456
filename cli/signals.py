"""What Ctrl-C, a hang-up and a batch system's SIGTERM do to a training run."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imae.solvers.solver import Solver


class Effect(StrEnum):
    """What a signal does: Caffe's three."""

    stop = "stop"
    snapshot = "snapshot"
    none = "none"


@contextlib.contextmanager
def handle_signals(
    solver: "Solver", sigint: Effect, sighup: Effect, on_stop: Callable[[], None], *, echo: float = 0.0
) -> Iterator[None]:
    """Inside, SIGINT and SIGHUP ask `solver` for their effects and SIGTERM for a stop; a second stop aborts at once.

    `on_stop` is called, in the signal handler, at the first. A stop within `echo` seconds of it is the same once more,
    passed on by whatever started this process.
    """
    stopped: float | None = None
    effects = {"SIGINT": sigint, "SIGHUP": sighup, "SIGTERM": Effect.stop}
    effect_of = {getattr(signal, name): effect for name, effect in effects.items() if hasattr(signal, name)}

    def handle(number: int, _frame: object) -> None:
        nonlocal stopped
        effect = effect_of[number]
        if effect is Effect.snapshot:
            solver.snapshot_requested = True
        elif effect is Effect.stop:
            if stopped is None:
                stopped = time.monotonic()
                solver.stop_requested = True
                on_stop()
            elif time.monotonic() > stopped + echo:
                raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in effect_of}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
