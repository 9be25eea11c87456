"""Reading and writing Caffe's binary files: caffemodel, solverstate and binaryproto, and blobs as arrays."""

import logging
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import ArrayLike, NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import read_bytes, write_atomically
from imae.prototxt_like.kinds import KINDS, describe, describe_foreign, is_plausible
from imae.prototxt_like.schema import BlobProto, NetParameter, SolverState
from imae.prototxt_like.schema import unknown_fields as unknown_fields
from imae.prototxt_like.upgrade import upgrade_net

FilePath = str | os.PathLike[str]
_log = logging.getLogger(__name__)


def read_caffemodel(path: FilePath) -> NetParameter:
    """Read a net's weights as Caffe writes them, brought up to the present form.

    Fields this schema lacks are kept, and logged as a warning. A file cut off exactly between two layers cannot be told
    from a whole one: the layers after the cut are then missing.

    Raises InputError, naming the file, if it is missing, damaged, of another kind or holds no layers.
    """
    net = _read(path, NetParameter)
    upgrade_net(net, str(path))
    return net


def write_caffemodel(net: NetParameter, path: FilePath) -> None:
    """Write a net with its blobs; raises InputError if it lacks a required field, or if `path` cannot be written."""
    write_atomically(path, _serialize(net, path))


def read_solverstate(path: FilePath) -> SolverState:
    """Read the state of a solver at a snapshot.

    Raises InputError, naming the file, if it is missing, damaged, cut short or of another kind.
    """
    state = _read(path, SolverState)
    if not state.HasField("current_step"):
        raise InputError(f"{path}: this solverstate is cut short: current_step, the last field of one, is missing")
    return state


def write_solverstate(state: SolverState, path: FilePath) -> None:
    """Write the state of a solver, with `current_step` as the last field, whose absence then shows a file cut short."""
    last = SolverState(current_step=state.current_step)
    body = SolverState()
    body.CopyFrom(state)
    body.ClearField("current_step")
    write_atomically(path, _serialize(body, path) + last.SerializeToString())


def read_binaryproto(path: FilePath) -> NDArray[np.floating[Any]]:
    """Read one blob, such as a mean image (1 x channels x height x width), as `blob_to_array` does."""
    return blob_to_array(_read(path, BlobProto), str(path))


def write_binaryproto(array: ArrayLike, path: FilePath) -> None:
    """Write one array as a blob; see `array_to_blob`."""
    write_atomically(path, _serialize(array_to_blob(array), path))


def blob_to_array(blob: BlobProto, name: str = "blob", *, diff: bool = False) -> NDArray[np.floating[Any]]:
    """Return a copy of a blob's data (or its diff) in its shape: float64 where the blob holds doubles, else float32.

    As in Caffe, the four old dimensions num, channels, height and width win over `shape` where one of them is set.
    Raises InputError, beginning with `name`, if the shape and the number of values disagree.
    """
    kind = "diff" if diff else "data"
    double = getattr(blob, f"double_{kind}")
    flat = np.array(double, np.float64) if double else np.array(getattr(blob, kind), np.float32)
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(dimension) for dimension in legacy):
        shape = tuple(getattr(blob, dimension) for dimension in legacy)
    else:
        shape = tuple(blob.shape.dim)
    if min(shape, default=0) < 0 or math.prod(shape) != flat.size:
        dimensions = " x ".join(map(str, shape)) or "a scalar"
        raise InputError(f"{name}: the shape is {dimensions}, {math.prod(shape)} values, but {kind} holds {flat.size}")
    return flat.reshape(shape)


def array_to_blob(array: ArrayLike, diff: ArrayLike | None = None) -> BlobProto:
    """Return a blob with the array's shape and values: doubles for float64, float32 for every other type of number.

    `diff`, of the same shape and stored in the same precision, may be given too; a different shape raises InputError.
    """
    data = np.asarray(array)
    double = data.dtype == np.float64
    blob = BlobProto()
    blob.shape.dim.extend(data.shape)
    blob.shape.SetInParent()
    _put_packed(blob, "double_data" if double else "data", data)
    if diff is not None:
        diff = np.asarray(diff)
        if diff.shape != data.shape:
            raise InputError(f"blob: the diff's shape {diff.shape} is not the data's, {data.shape}")
        _put_packed(blob, "double_diff" if double else "diff", diff)
    return blob


def _put_packed(blob: BlobProto, field: str, values: NDArray[Any]) -> None:
    """Fill a packed field through its bytes on the wire, which is far faster than through Python's float objects."""
    content = values.astype("<f8" if field.startswith("double") else "<f4", copy=False).tobytes()
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    tag = blob.DESCRIPTOR.fields_by_name[field].number << 3 | 2
    try:
        blob.MergeFromString(bytes([tag, *length, size]) + content)
    except DecodeError as error:
        raise InputError(f"blob: {len(content)} bytes are more than a protobuf file can hold (2 GiB)") from error


def _read(path: FilePath, message_class: Any) -> Any:
    data = read_bytes(path)
    message = message_class()
    try:
        fits = not describe_foreign(data) and message.MergeFromString(data) and is_plausible(message)
    except DecodeError:
        fits = False
    if not fits:
        found = describe(data, message_class)
        raise InputError(f"{path}: expected {KINDS[message_class]}, but {found} ({len(data)} bytes)")
    if missing := message.FindInitializationErrors():
        raise InputError(f"{path}: the required {missing[0]} is missing")
    for place in _undecodable_strings(message):
        raise InputError(f"{path}: {place} is not UTF-8")
    if unknown := unknown_fields(message):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        _log.warning("%s: kept, but not understood: %s%s", path, ", ".join(unknown[:3]), more)
    return message


def _undecodable_strings(message: Any) -> Iterator[str]:
    """Find the strings that protobuf hands out as bytes, which no one who uses the message expects."""
    for field, value in message.ListFields():
        items = value if hasattr(value, "append") else [value]
        if field.message_type:
            for index, item in enumerate(items):
                yield from (f"{field.name}[{index}].{place}" for place in _undecodable_strings(item))
        elif field.type == field.TYPE_STRING and any(isinstance(item, bytes) for item in items):
            yield field.name


def _serialize(message: Any, path: FilePath) -> bytes:
    if missing := message.FindInitializationErrors():
        raise InputError(f"{path}: cannot be written: the required {missing[0]} is missing")
    try:
        return bytes(message.SerializeToString())
    except EncodeError as error:
        raise InputError(f"{path}: cannot be written: {error} (protobuf files end at 2 GiB)") from error
