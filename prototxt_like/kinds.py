"""What a file looks like from its first bytes, to tell a user who gave the wrong one."""

from typing import Any

from google.protobuf.message import DecodeError

from imae.prototxt_like.schema import BlobProto, NetParameter, SolverState, unknown_numbers
from imae.prototxt_like.wire import fields

_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"\x89HDF": "an HDF5 file (Caffe's snapshot_format: HDF5)",
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint, an .npz?)",
    b"\x93NUMPY": "a NumPy .npy file",
    b"\x1f\x8b": "a gzip file",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04\x95": "a Python pickle",
    b"\xfd7zXZ": "an xz file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x7fELF": "a program",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}
KINDS = {NetParameter: "a caffemodel", SolverState: "a solverstate", BlobProto: "a binaryproto"}
# A file of each kind holds at least one of these.
_ESSENTIAL = {NetParameter: {"layer", "layers"}, SolverState: {"iter"}, BlobProto: {"data", "double_data", "raw_data"}}
_HEAD = 4096  # bytes that decide


def describe_foreign(data: bytes) -> str | None:
    """Name what `data` is if it surely is no protobuf message, such as "a PNG image" or "text"; None otherwise."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    head = data[:_HEAD]
    if data and not head.strip(b"\0"):
        return "a run of zero bytes"
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not merely a character that the cut at _HEAD divides
            return None
        text = head[: error.start].decode("utf-8-sig")
    return "text" if all(character.isprintable() or character in "\t\n\r\f\v" for character in text) else None


def describe(data: bytes, expected: Any = None) -> str:
    """Say what `data` looks like, as a clause, to a user for whom it is no whole message of the class `expected`."""
    if not data:
        return "it is empty"
    if kind := describe_foreign(data):
        return f"it looks like {kind}"
    if expected and (cut := _missing_bytes(data, expected)):
        return f"it is cut short: {cut}"
    for message_class, kind in KINDS.items():
        if message_class is not expected:
            try:
                if is_plausible(message_class.FromString(data)):
                    return f"it looks like {kind}"
            except DecodeError:
                continue
    return "it is damaged or of another kind"


def is_plausible(message: Any) -> bool:
    """Tell whether a message read from a file has what all of its kind have, and no field of theirs in another type."""
    present = {field.name for field, _ in message.ListFields()}
    mistyped = [number for number in unknown_numbers(message) if number in message.DESCRIPTOR.fields_by_number]
    return bool(present & _ESSENTIAL[type(message)]) and not mistyped


def _missing_bytes(data: bytes, expected: Any) -> str | None:
    """Say what is cut off if `data` are fields of `expected` up to one that goes on past the end."""
    try:
        for field in fields(data):
            if field.end > len(data) and not field.number:
                return "it ends within the number of a field"
            known = expected.DESCRIPTOR.fields_by_number.get(field.number)
            if known is None:
                return None
            if field.end > len(data):
                return f'at least {field.end - len(data)} more bytes of its field "{known.name}" should follow'
    except ValueError:
        return None
    return None
