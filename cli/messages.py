"""What the command says when something is wrong: one line on stderr."""

import logging
import sys


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
        return "out of memory; a smaller batch_size needs less"
    if isinstance(error, RuntimeError):  # torch's, told by name and text because torch may not be imported
        if type(error).__name__ == "OutOfMemoryError":
            return f"{'. '.join(message.split('. ')[:2])}; a smaller batch_size needs less"
        if "can't allocate memory" in message:
            return "out of memory; a smaller batch_size needs less"
        return None
    return message
