"""What the command says when something is wrong: one line on stderr."""

import logging
import re
import sys
import traceback
from pathlib import Path


class _Warnings(logging.Handler):
    """Prints each warning of the library as a line of the command's."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"imae: warning: {record.getMessage()}", file=sys.stderr)


def log_warnings(*, shown: bool = True) -> None:
    """Print the library's warnings and the command's own, unless they are not to be `shown`."""
    logger = logging.getLogger("imae")
    logger.handlers = [_Warnings(logging.WARNING if shown else logging.ERROR)]
    logger.propagate = False


def warn(message: str) -> None:
    """Print a warning."""
    logging.getLogger(__name__).warning("%s", message)


def error_line(error: Exception) -> str | None:
    """Return what to tell the user about `error`, or None if it is a bug, whose traceback is of more use."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or message
    if isinstance(error, MemoryError):
        return f"out of memory{_batch_hint(error)}"
    if isinstance(error, RuntimeError):  # torch's, told by name and text because torch may not be imported
        if type(error).__name__ == "OutOfMemoryError":
            return f"{'. '.join(message.split('. ')[:2])}{_batch_hint(error)}"
        if found := _NO_MEMORY.search(message):
            asked = f": {int(found[1]) / 2**30:,.3g} GiB were asked for" if found[1] else ""
            return f"out of memory{asked}{_batch_hint(error)}"
        return None
    return message


_NO_MEMORY = re.compile(r"can't allocate memory(?:: you tried to allocate (\d+) bytes)?")


def _batch_hint(error: Exception) -> str:
    """The advice to take a smaller batch, where memory ran out in a pass of a net."""
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    passes = ("forward", "backward")
    in_pass = any(code.co_name in passes and Path(code.co_filename).parent.name == "nets" for code in frames)
    return "; a smaller batch_size needs less" if in_pass else ""
