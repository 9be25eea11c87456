"""Caffe's spelling of flags: `-solver S` and `--sigint_effect stop` for `--solver S` and `--sigint-effect stop`."""

from collections.abc import Sequence
from typing import Any


def normalise(command: Any, arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with what `command` (the app as click has it) knows by another spelling put in its own."""
    if not arguments:
        return []
    name = next((n for n in command.commands if _key(n) == _key(arguments[0])), arguments[0])
    subcommand = command.commands.get(name)
    if subcommand is None:
        return list(arguments)
    if hasattr(subcommand, "commands"):
        return [name, *normalise(subcommand, arguments[1:])]
    flags = {_key(flag): flag for param in subcommand.params for flag in (*param.opts, *param.secondary_opts)}
    return [name, *(_flag(argument, flags) for argument in arguments[1:])]


def _flag(argument: str, flags: dict[str, str]) -> str:
    name, equals, value = argument.partition("=")
    known = flags.get(_key(name)) if argument.startswith("-") else None
    return f"{known}{equals}{value}" if known else argument


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-")
