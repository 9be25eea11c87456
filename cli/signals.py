"""What Ctrl-C, a hang-up and a batch system's SIGTERM do to a command, and to a training run."""

import contextlib
import signal
import sys
import threading
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


def exit_status(number: int) -> int:
    """Return the exit status of a process that signal `number` ended, as shells have it: 130 for Ctrl-C, 143."""
    return 128 + number


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[list[int]]:
    """Inside, SIGTERM interrupts as Ctrl-C does, so that what is under way is left in order.

    Gives a list that then holds its number. Outside the main thread, where Python hears no signals, nothing changes.
    """
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def handle_signals(
    solver: "Solver", sigint: Effect, sighup: Effect, on_stop: Callable[[], None], *, echo: float = 0.0
) -> Iterator[list[int]]:
    """Inside, SIGINT and SIGHUP ask `solver` for their effects and SIGTERM for a stop; a second stop aborts at once.

    Gives a list that holds the number of the signal that asked for a stop, once one has. `on_stop` is called, in the
    signal handler, at the first. A stop within `echo` seconds of it is taken for the same one, passed on by the
    launcher.
    """
    stopped: float | None = None
    stopped_by: list[int] = []
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
                stopped_by.append(number)
                solver.stop_requested = True
                on_stop()
            elif time.monotonic() > stopped + echo:
                sys.exit(exit_status(number))

    before = {number: signal.signal(number, handle) for number in effect_of}
    try:
        yield stopped_by
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
