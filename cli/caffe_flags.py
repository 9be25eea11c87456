"""Caffe's command lines: gflags' spelling, Caffe's flags on each of its commands, and glog's flags."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import typer

from imae.cli.messages import warn

COMMANDS = frozenset({"train", "test", "time", "devices", "device-query"})
"""Those that Caffe has; `devices` is its `device_query`."""
_CAFFE = "gpu iterations level model phase sighup-effect sigint-effect snapshot solver stage weights"
FLAGS = frozenset(_CAFFE.split())
"""All that tools/caffe.cpp defines; each takes a value, and every command takes each, whether it uses it or not."""
_GLOG_SWITCHES = """
alsologtostderr colorlogtostderr colorlogtostdout drop-log-memory log-prefix log-utc-time log-year-in-prefix logtostderr
logtostdout stop-logging-if-full-disk symbolize-stacktrace timestamp-in-logfile-name
"""
_SWITCHES = frozenset(_GLOG_SWITCHES.split())
_GLOG_NUMBERS = (
    "logbuflevel logbufsecs logcleansecs logemaillevel logfile-mode max-log-size minloglevel stderrthreshold v"
)
_NUMBERS = frozenset(_GLOG_NUMBERS.split())
_TEXTS = frozenset({"alsologtoemail", "log-backtrace-at", "log-dir", "log-link", "logmailer", "vmodule"})
RENAMED: dict[tuple[str, str], list[str]] = {
    ("time", "--plain"): ["--plan", "plain"],
}
"""By command and option, what an option of the last release is called now: it works for one release, with a warning. A
value that followed the old name follows the new one. CHANGELOG.md says the same.
"""
_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")


@dataclass(frozen=True)
class Glog:
    """What glog's flags say, and by default its environment variables, as far as it has a meaning here.

    As in Caffe, everything goes to stderr unless `alsologtostderr` is switched off.
    """

    log_dir: str = ""
    minloglevel: int = 0
    stderrthreshold: int = 2
    logtostderr: bool = False
    alsologtostderr: bool = True

    @property
    def shown_from(self) -> int:
        """The lowest level that is shown: 0 what is done, 1 warnings, 2 errors, which are always shown."""
        threshold = 0 if self.logtostderr or self.alsologtostderr else self.stderrthreshold
        return max(self.minloglevel, threshold)

    @property
    def words(self) -> list[str]:
        """The flags that say the same."""
        flags = {"--log-dir": self.log_dir, "--minloglevel": self.shown_from}
        return [word for flag, value in flags.items() if value for word in (flag, str(value))]


_MEANT = frozenset(field.name for field in fields(Glog))


@dataclass(frozen=True)
class CommandLine:
    """A command line without the flags that are not for its command."""

    arguments: list[str]
    glog: Glog
    unused: list[str]  # flags of Caffe's that this command, as Caffe's, does not use


def read(program: Any, arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> CommandLine:
    """Return `arguments` without glog's flags and, of Caffe's, those that the command of `program` has no use for.

    Flags may stand before the command, as gflags has it. Raises typer.BadParameter for a value that is none of a
    flag's.
    """
    arguments = _command_first(arguments)
    found = {name: environment[f"GLOG_{name}"] for name in _MEANT if environment.get(f"GLOG_{name}")}
    if not arguments or _key(arguments[0]) not in COMMANDS:
        return CommandLine(arguments, Glog(), [])
    first, *rest = arguments
    command = next(command for name, command in program.commands.items() if _key(name) == _key(first))
    known = {_key(flag) for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    kept, unused = [first], []
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            kept += [argument, *rest]
            break
        flag, equals, value = argument.partition("=")
        key = _key(flag) if flag.startswith("-") else ""
        switched = key.removeprefix("no")
        if key in known or not (key in FLAGS | _NUMBERS | _TEXTS or {key, switched} & _SWITCHES):
            kept.append(argument)
        elif key in _SWITCHES:
            found[key] = value if equals else "true"
        elif switched in _SWITCHES:
            found[switched] = "false"
        else:
            if not equals and not rest:
                raise typer.BadParameter(f"{flag} needs a value")
            found[key] = value if equals else rest.pop(0)
            unused += [flag] if key in FLAGS else []
    values = {key.replace("-", "_"): _value(key, text) for key, text in found.items() if key not in FLAGS}
    return CommandLine(kept, Glog(**{name: value for name, value in values.items() if name in _MEANT}), unused)


def normalise(command: Any, arguments: Sequence[str]) -> list[str]:
    """Return `arguments` in the spelling of `command` (the app as click has it).

    That is `--solver S` and `--sigint-effect stop` for Caffe's `-solver S` and `--sigint_effect stop`.
    """
    if not arguments:
        return []
    name = next((n for n in command.commands if _key(n) == _key(arguments[0])), arguments[0])
    subcommand = command.commands.get(name)
    if subcommand is None:
        return list(arguments)
    if hasattr(subcommand, "commands"):
        return [name, *normalise(subcommand, arguments[1:])]
    flags = {_key(flag): flag for param in subcommand.params for flag in (*param.opts, *param.secondary_opts)}
    renamed = {_key(old): new for (of, old), new in RENAMED.items() if _key(of) == _key(name)}
    return [name, *(word for argument in arguments[1:] for word in _words(argument, flags, renamed))]


def _command_first(arguments: Sequence[str]) -> list[str]:
    """Move the flags of Caffe's and glog's that stand before the command behind it."""
    place = 0
    while place < len(arguments) and arguments[place].startswith("-"):
        flag, equals, _ = arguments[place].partition("=")
        key = _key(flag)
        if key in FLAGS | _NUMBERS | _TEXTS:
            place += 1 if equals else 2
        elif {key, key.removeprefix("no")} & _SWITCHES:
            place += 1
        else:
            break
    if place >= len(arguments) or _key(arguments[place]) not in COMMANDS:
        return list(arguments)
    return [arguments[place], *arguments[:place], *arguments[place + 1 :]]


def _value(key: str, text: str) -> Any:
    key = key.replace("_", "-")
    if key in _SWITCHES:
        if text.lower() not in _TRUE + _FALSE:
            raise typer.BadParameter(f"--{key} takes true or false, not {shlex.quote(text)}")
        return text.lower() in _TRUE
    if key in _NUMBERS:
        try:
            return int(text)
        except ValueError:
            raise typer.BadParameter(f"--{key} takes a whole number, not {shlex.quote(text)}") from None
    return text


def _words(argument: str, flags: dict[str, str], renamed: dict[str, list[str]]) -> list[str]:
    name, equals, value = argument.partition("=")
    key = _key(name) if argument.startswith("-") else ""
    if new := renamed.get(key):
        warn(f"{name} is called {' '.join(new)} now; the old name goes with the next release")
        return [*new[:-1], f"{new[-1]}{equals}{value}"]
    return [f"{flags[key]}{equals}{value}" if key in flags else argument]


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-")
