"""The one exception for what a user can mend."""


class InputError(Exception):
    """A user's mistake or a broken file: one line that says where, what was found and what was expected."""
