"""Checks of values on a GPU, deferred so that the host need not wait for it: noted in a pass, raised by `look`."""

from collections.abc import Callable


class DeferredChecks:
    """What layers note instead of raising at once: in passes that are replayed, and in all passes on a GPU."""

    def __init__(self) -> None:
        self._checks: list[Callable[[], None]] = []

    def add(self, check: Callable[[], None]) -> None:
        """Have `check` called by `look`; it raises InputError for what was noted."""
        self._checks.append(check)

    def look(self) -> None:
        """Raise InputError for what passes have noted since the net was made."""
        for check in self._checks:
            check()
