"""Reading and writing prototxt: nets and solvers as text, with errors that say where."""

import difflib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.prototxt_like.kinds import describe
from imae.prototxt_like.schema import NetParameter, SolverParameter, unknown_fields
from imae.prototxt_like.upgrade import upgrade_net, upgrade_solver

_log = logging.getLogger(__name__)
_CODE_OF_LINE = re.compile(r"""(?:[^"'#]|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)*""")  # up to the comment
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) (\S+)\.')
_REPEATED = re.compile(r'Message type "caffe\.(\w+)" should not have multiple "(\w+)" fields')
_UNQUOTED = re.compile(r"Expected string but found: '([A-Za-z]\w*)'")


def read_net(path: str | os.PathLike[str]) -> NetParameter:
    """Read a net from prototxt and bring it up to the present form.

    Raises InputError `FILE:LINE:COLUMN: ...`, counted from 1, that names the offending field or value.
    """
    return parse_net(_read_text(path), str(path))


def read_solver(path: str | os.PathLike[str]) -> SolverParameter:
    """Read a solver from prototxt and bring it up to the present form; raises InputError as `read_net` does.

    As in Caffe, snapshot_prefix becomes the file's path without its ending if unset, and the file's name without its
    ending inside that folder if it names one.
    """
    solver = parse_solver(_read_text(path), str(path))
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = str(Path(path).with_suffix(""))
    elif Path(solver.snapshot_prefix).is_dir():
        solver.snapshot_prefix = str(Path(solver.snapshot_prefix) / Path(path).stem)
    return solver


def parse_net(text: str, name: str = "<string>") -> NetParameter:
    """Parse a net in prototxt and bring it up to the present form; `name` stands for the file in an InputError."""
    net = _parse(text, NetParameter(), name)
    upgrade_net(net, name)
    return net


def parse_solver(text: str, name: str = "<string>") -> SolverParameter:
    """Parse a solver in prototxt and bring it up to the present form; `name` stands for the file in an InputError."""
    solver = _parse(text, SolverParameter(), name)
    upgrade_solver(solver, name)
    return solver


def format_text(message: Any) -> str:
    """Return any message of the schema as prototxt; text has no place for unknown fields: their loss is logged."""
    if unknown := unknown_fields(message):
        _log.warning("left out of the text, being unknown: %s", ", ".join(unknown))
    return text_format.MessageToString(message, as_utf8=True)


def write_text(message: Any, path: str | os.PathLike[str]) -> None:
    """Write any message of the schema as prototxt; raises InputError if `path` cannot be written."""
    write_atomically(path, format_text(message).encode())


def _read_text(path: str | os.PathLike[str]) -> str:
    """Return the file as text. Like Caffe, accept any bytes within comments, which often are in older encodings."""
    data = read_bytes(path)
    if b"\0" in data:
        raise InputError(f"{path}: expected prototxt, but it holds zero bytes: {describe(data)}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), 1):
        code = _CODE_OF_LINE.match(line)
        if code and "\ufffd" in code.group():
            raise InputError(f"{path}:{number}: expected prototxt in UTF-8, but this line has other bytes")
    return text


def _parse(text: str, message: Any, name: str) -> Any:
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        if line is None or column is None:
            raise InputError(f"{name}: {error}") from None
        reason = _explain(str(error), text.split("\n")[line - 1], column, message.DESCRIPTOR)
        raise InputError(f"{name}:{line}:{column}: {reason}") from None
    if missing := message.FindInitializationErrors():
        raise InputError(f"{name}: the required {missing[0]} is missing")
    if not message.ListFields():
        raise InputError(f"{name}: expected a {message.DESCRIPTOR.name} as prototxt, but there is nothing in it")
    return message


def _explain(error: str, line: str, column: int, root: Any) -> str:
    """Put protobuf's error at `column` (from 1) of `line`, in a file of type `root`, in the schema's terms."""
    if match := _NO_FIELD.search(error):
        message, field = root.file.pool.FindMessageTypeByName(match[1]), match[2]
        return f'"{field}" is no field of {message.name}{_field_hint(field, message, root)}'
    before = re.search(r"(\w+)\s*:\s*$", line[: column - 1])
    field = f"{before[1]}: " if before else ""
    if match := _NO_VALUE.search(error):
        names = [value.name for value in root.file.pool.FindEnumTypeByName(match[1]).values]
        hint = did_you_mean(match[2], names) or (f"; expected one of {', '.join(names)}" if len(names) < 10 else "")
        return f'{field}"{match[2]}" is none of its values{hint}'
    if match := _REPEATED.search(error):
        return f'"{match[2]}" is given twice in one {match[1]}'
    reason = re.sub(r"^\d+:\d+ : ", "", error).removeprefix(f"'{line}': ").removeprefix("'': ").rstrip(".")
    if match := _UNQUOTED.search(reason):
        reason += f', which needs quotes: "{match[1]}"'
    return "".join(character if character.isprintable() else "?" for character in f"{field}{reason}")


def _field_hint(field: str, message: Any, root: Any) -> str:
    if near := did_you_mean(field, message.fields_by_name):
        return near
    if field in root.fields_by_name:
        return '; is a "}" missing before it?'
    for other in (NetParameter.DESCRIPTOR, SolverParameter.DESCRIPTOR):
        if message is root is not other and field in other.fields_by_name:
            return f"; it is one of {other.name}: is this the right file?"
    owners = [
        inner.name for inner in message.fields if inner.message_type and field in inner.message_type.fields_by_name
    ]
    return f"; it belongs in {' or '.join(owners)}" if owners else ""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean "..."?` if one of the candidates is nearly `name`, else an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.lower(), by_lower, 1, 0.7)
    return f'; did you mean "{by_lower[near[0]]}"?' if near else ""
