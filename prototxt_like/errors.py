"""The one exception for what a user can mend."""


class InputError(Exception):
    """A user's mistake or a broken file: one line that says where, what was found and what was expected."""


def counted(number: int, noun: str) -> str:
    """Return a number of things as a message says it: `1 image`, `2 images`, `1 batch`, `0 batches`."""
    plurals = {"batch": "batches", "class": "classes", "query": "queries", "process": "processes", "axis": "axes"}
    return f"{number} {noun if number == 1 else plurals.get(noun, noun + 's')}"
