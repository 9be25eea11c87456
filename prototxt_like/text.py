"""Reading and writing prototxt: nets and solvers as text, with errors that say where."""

import logging
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import FilePath, read_bytes, write_atomically
from imae.prototxt_like.fork_spellings import is_fork_spelling, parse_fork_spellings
from imae.prototxt_like.hints_of_forks import without_field, without_hints
from imae.prototxt_like.kinds import describe
from imae.prototxt_like.known_names import FORK_FIELDS, RENAMED_FIELDS
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.schema import NetParameter, SolverParameter, unknown_fields
from imae.prototxt_like.upgrade import upgrade_net, upgrade_solver

_log = logging.getLogger(__name__)
_CODE_OF_LINE = re.compile(r"""(?:[^"'#]|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)*""")  # up to the comment
_FIRST_FIELD = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|#[^\n]*\n)*[A-Za-z_]\w*\s*[:{<#]")
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "([^"]+)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) (\S+)\.')
_REPEATED = re.compile(r'Message type "caffe\.(\w+)" should not have multiple "(\w+)" fields')
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_UNQUOTED = re.compile(r"Expected string but found: '([A-Za-z]\w*)'")


def read_net(path: FilePath) -> NetParameter:
    """Read a net from prototxt and bring it up to the present form.

    Raises InputError `FILE:LINE:COLUMN: ...`, counted from 1, that names the offending field or value.
    """
    return parse_net(_read_text(path), str(path))


def read_solver(path: FilePath) -> SolverParameter:
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


def read_as_written(path: FilePath, message_class: Any) -> Any:
    """Read any message of the schema from prototxt, its old forms as they stand; raises InputError as `read_net`."""
    return _parse(_read_text(path), message_class(), str(path))


def read_net_past_unknown_names(path: FilePath) -> tuple[NetParameter, list[str]]:
    """Read a net as `read_net` does, but leave out fields that the schema lacks, and those with values that it lacks.

    Also returns what `read_net` would have said of each. Raises InputError for all else that is wrong.
    """
    text, said, first = _read_text(path), list[str](), InputError()
    while True:
        try:
            return parse_net(text, str(path)), said
        except UnknownName as error:
            said.append(str(error))
            first = error if len(said) == 1 else first
            text = without_field(text, error.place)
            if not re.sub("#.*", "", text).strip():  # a file of another kind
                raise first from None


def looks_like_prototxt(data: bytes) -> bool:
    """Whether a file that begins with `data` is text, and no binary message: after comments a field's name stands."""
    return _FIRST_FIELD.match(data) is not None


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


def write_text(message: Any, path: FilePath) -> None:
    """Write any message of the schema as prototxt; raises InputError if `path` cannot be written."""
    write_atomically(path, format_text(message).encode())


def _read_text(path: FilePath) -> str:
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


class UnknownName(InputError):
    """A field, or a value of one, that the schema lacks; `place` is where in the text it begins."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def _parse(text: str, message: Any, name: str) -> Any:
    try:
        _parse_into(message, text, name)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        if line is None or column is None:
            raise InputError(f"{name}: {error}") from None
        lines = text.split("\n")
        said = f"{name}:{line}:{column}: {_explain(str(error), lines[line - 1], column, message.DESCRIPTOR)}"
        if _NO_FIELD.search(str(error)) or _NO_VALUE.search(str(error)):
            raise UnknownName(said, sum(len(before) + 1 for before in lines[: line - 1]) + column - 1) from None
        raise InputError(said) from None
    if missing := message.FindInitializationErrors():
        raise InputError(f"{name}: the required {missing[0]} is missing")
    if not message.ListFields():
        raise InputError(f"{name}: expected a {message.DESCRIPTOR.name} as prototxt, but there is nothing in it")
    check_message(message, name)
    return message


def _parse_into(message: Any, text: str, name: str) -> None:
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        unknown = _NO_FIELD.search(str(error))
        if unknown or _NO_VALUE.search(str(error)):
            left = without_hints(text, name)
            if left != text:
                message.Clear()
                _parse_into(message, left, name)
                return
        if not unknown or not is_fork_spelling(unknown[1].removeprefix("caffe."), unknown[2]):
            raise
        parse_fork_spellings(text, message, name)


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
    if fork := FORK_FIELDS.get(field) if message.name == "LayerParameter" else None:
        return f"; it is of {fork}'s Caffe, not of BVLC's"
    if field in root.fields_by_name:
        return '; is a "}" missing before it?'
    for other in (NetParameter.DESCRIPTOR, SolverParameter.DESCRIPTOR):
        if message is root is not other and field in other.fields_by_name:
            return f"; it is one of {other.name}: is this the right file?"
    owners = [
        inner.name for inner in message.fields if inner.message_type and field in inner.message_type.fields_by_name
    ]
    if owners:
        return f"; it belongs in {' or '.join(owners)}"
    return did_you_mean_field(field, message)


def did_you_mean_field(field: str, message: Any) -> str:
    """Return `; did you mean "..."?` for a `field` that `message` (a descriptor) lacks, else an empty string."""
    if known := RENAMED_FIELDS.get((message.name, field)):
        name, translation = known
        return f'; did you mean "{name}"?' + (f" {translation}" if translation else "")
    return did_you_mean(field, message.fields_by_name)


def did_you_mean(name: str, candidates: Iterable[str], others: Container[str] = ()) -> str:
    """Return `; did you mean "..."?` if `name` is one of the candidates but for a slip, else an empty string.

    Slips are another case, other separators, two letters swapped, and one wrong letter, or two in a long word. No slips
    are other numbers, another letter in an abbreviation, and a letter put in front, nor is a name that exists
    elsewhere: that is, in lower case, among `others`.
    """
    if name.lower() in others:
        return ""
    given = {candidate: _slips(name, candidate) for candidate in candidates}
    near = min((c for c, slips in given.items() if slips is not None), key=lambda c: given[c] or 0, default=None)
    return f'; did you mean "{near}"?' if near is not None else ""


def _slips(name: str, candidate: str) -> int | None:
    """How many slips lie between the two; None if it takes more than slips."""
    if _letters(name) == _letters(candidate):
        return 0
    words, others = _WORDS.findall(name), _WORDS.findall(candidate)
    if [w for w in words if w.isdecimal()] != [w for w in others if w.isdecimal()]:
        return None
    while words and others and words[0].lower() == others[0].lower():
        words, others = words[1:], others[1:]
    while words and others and words[-1].lower() == others[-1].lower():
        words, others = words[:-1], others[:-1]
    written, a, b = "".join(words), "".join(words).lower(), "".join(others).lower()
    if a[1:] == b and a[:1] != a[1:2]:
        return None  # PReLU is no slip of ReLU
    distance, substituted = _distance(a, b)
    length = min(len(a), len(b))
    if length < 2 or distance > (1 if length < 7 else 2):
        return None
    if substituted and (length < 4 or (written.isupper() and length < 5)):
        return None  # AVG and AVE, MSE and MAE: another letter is another abbreviation
    if distance == 2 and abs(len(a) - len(b)) == 2 and (a in b or b in a):
        return None  # DeConv is no slip of Conv
    return distance


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _distance(a: str, b: str) -> tuple[int, bool]:
    """Fewest insertions, deletions, substitutions and swaps of neighbours from `a` to `b`; whether one substitutes."""
    rows = [[(i + j, False) for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            same = a[i - 1] == b[j - 1]
            cost, substituted = rows[i - 1][j - 1]
            ways = [(cost + (not same), substituted or not same)]
            ways += [(cost + 1, substituted) for cost, substituted in (rows[i - 1][j], rows[i][j - 1])]
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                cost, substituted = rows[i - 2][j - 2]
                ways.append((cost + 1, substituted))
            rows[i][j] = min(ways)
    return rows[-1][-1]
