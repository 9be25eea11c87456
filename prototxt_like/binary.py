"""Reading and writing Caffe's binary files: caffemodel, solverstate and binaryproto."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import ArrayLike

from imae.prototxt_like.blobs import Blob, FloatArray, Pieces, Stored, Values, blob_pieces, check_finite, size, take_out
from imae.prototxt_like.blobs import array_to_blob as array_to_blob
from imae.prototxt_like.blobs import blob_to_array as blob_to_array
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import FilePath, read_bytes, write_atomically
from imae.prototxt_like.fork_numbers import from_forks, layer_to_forks, to_forks
from imae.prototxt_like.fork_settings import read_fork_settings
from imae.prototxt_like.kinds import KINDS, describe, describe_foreign, is_plausible
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.schema import BlobProto, LayerParameter, NetParameter, SolverState
from imae.prototxt_like.schema import unknown_fields as unknown_fields
from imae.prototxt_like.upgrade import upgrade_net
from imae.prototxt_like.wire import LARGEST, header

_log = logging.getLogger(__name__)
_LAYER = NetParameter.DESCRIPTOR.fields_by_name["layer"].number
_BLOBS = LayerParameter.DESCRIPTOR.fields_by_name["blobs"].number
_HISTORY = SolverState.DESCRIPTOR.fields_by_name["history"].number


def read_caffemodel(path: FilePath) -> NetParameter:
    """Read a net's weights as Caffe writes them, brought up to the present form.

    Fields this schema lacks are kept, and logged as a warning. A file cut off exactly between two layers can be told
    from a whole one if `write_caffemodel` made it; of Caffe's, the layers after the cut are then missing.

    Raises InputError, naming the file, if it is missing, damaged, of another kind or holds no layers.
    """
    net = read_as_written(path)
    upgrade_net(net, str(path))
    return net


def read_as_written(path: FilePath) -> NetParameter:
    """Read a net's weights as `read_caffemodel` does, its old forms as they stand."""
    return _read(path, NetParameter)


def open_caffemodel(path: FilePath) -> Stored:
    """Read a net's weights as `read_caffemodel` does, their values outside the message: for files of any size."""
    stored = _open(path, NetParameter)
    upgrade_net(stored.message, str(path))
    return stored


def write_caffemodel(net: NetParameter, path: FilePath, blobs: Mapping[str, Sequence[Blob]] | None = None) -> None:
    """Write a net with its blobs, or with `blobs`, by the names of its layers, which are written as they lie in memory.

    A blob in `blobs` whose shape is given by the four old dimensions in the net keeps these. The number of layers comes
    first, so that a file cut short is told from a whole one; Caffe passes over it. Raises InputError if the net lacks a
    required field, if it is larger than protobuf's 2 GiB, or if `path` cannot be written.
    """
    pieces: Pieces = [NetParameter(imae_layers=len(net.layer) + len(net.layers)).SerializeToString()]
    if blobs is None:
        pieces.append(to_forks(_serialize(net, path)))
    else:
        rest = NetParameter()
        rest.CopyFrom(net)
        rest.ClearField("layer")
        pieces.append(_serialize(rest, path))
        for layer in net.layer:
            old = [blob.HasField("num") for blob in layer.blobs]
            body = LayerParameter()
            body.CopyFrom(layer)
            body.ClearField("blobs")
            inner: Pieces = [layer_to_forks(_serialize(body, path))]
            for i, blob in enumerate(blobs.get(layer.name, ())):
                inner += _as_field(_BLOBS, blob_pieces(*blob, old=i < len(old) and old[i] and np.ndim(blob[0]) == 4))
            pieces += _as_field(_LAYER, inner)
    _write(path, pieces)


def read_solverstate(path: FilePath) -> SolverState:
    """Read a solver's state at a snapshot; raises InputError as `read_caffemodel`, also for a file cut short."""
    return _read(path, SolverState)


def open_solverstate(path: FilePath) -> Stored:
    """Read the state of a solver as `read_solverstate` does, the history's values outside the message."""
    return _open(path, SolverState)


def write_solverstate(state: SolverState, path: FilePath, history: Sequence[ArrayLike] = ()) -> None:
    """Write the state of a solver, with `current_step` as the last field, whose absence then shows a file cut short.

    `history` follows the state's own, written as it lies in memory. Raises InputError as `write_caffemodel` does.
    """
    body = SolverState()
    body.CopyFrom(state)
    body.ClearField("current_step")
    pieces: Pieces = [_serialize(body, path)]
    for array in history:
        pieces += _as_field(_HISTORY, blob_pieces(array))
    pieces.append(SolverState(current_step=state.current_step).SerializeToString())
    _write(path, pieces)


def check_snapshot_size(prefix: str, weights: int, histories: int) -> None:
    """Raise InputError if what a snapshot's two files hold, in bytes, is more than protobuf's files can.

    That is for before training, which could keep nothing of what it does.
    """
    for kind, content in ("caffemodel", weights), ("solverstate", histories):
        if content > LARGEST:
            raise InputError(
                f"{prefix}: the {kind} of a snapshot would have {content / 2**30:.2f} GiB, but protobuf's files end at "
                "2 GiB: snapshot_format: HDF5 has no such limit"
            )


def read_binaryproto(path: FilePath) -> FloatArray:
    """Read one blob, such as a mean image (1 x channels x height x width), as `blob_to_array` does.

    Raises InputError, naming the file, if it is missing, damaged, of another kind or holds a value that is not finite.
    """
    array = blob_to_array(_read(path, BlobProto), str(path))
    check_finite(array, str(path))
    return array


def write_binaryproto(array: ArrayLike, path: FilePath, *, old: bool = False) -> None:
    """Write one array as a blob; see `array_to_blob`. With `old` its 4 axes are given by the four old dimensions."""
    _write(path, blob_pieces(array, old=old))


def _as_field(number: int, pieces: Pieces) -> Pieces:
    return [header(number, size(pieces)), *pieces]


def _write(path: FilePath, pieces: Pieces) -> None:
    if size(pieces) > LARGEST:
        found = f"its {size(pieces)} bytes are more than protobuf's 2 GiB"
        raise InputError(f"{path}: cannot be written: {found}; HDF5 (.h5) has no such limit")
    write_atomically(path, pieces)


def _open(path: FilePath, message_class: Any) -> Stored:
    values: list[Values] = []
    return Stored(_read(path, message_class, values), values, str(path))


def _read(path: FilePath, message_class: Any, taken: list[Values] | None = None) -> Any:
    """Return the sound message of its class that a file holds, the values of its blobs in `taken` where that is given.

    Fields that are unknown are logged.
    """
    data, message = read_bytes(path), None
    with contextlib.suppress(DecodeError, ValueError):
        rest = data if taken is None else take_out(memoryview(data), message_class.DESCRIPTOR, taken)
        if message_class is NetParameter:
            rest = from_forks(read_fork_settings(rest, str(path)))
        message = message_class.FromString(rest)
    if message is None or describe_foreign(data) or not is_plausible(message):
        found = describe(data, message_class)
        raise InputError(f"{path}: expected {KINDS[message_class]}, but {found} ({len(data)} bytes)")
    if len(data) > LARGEST:
        raise InputError(f"{path}: its {len(data)} bytes are more than protobuf's 2 GiB")
    if missing := message.FindInitializationErrors():
        raise InputError(f"{path}: the required {missing[0]} is missing")
    for place in _undecodable_strings(message):
        raise InputError(f"{path}: {place} is not UTF-8")
    check_message(message, str(path))
    if unknown := unknown_fields(message):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        _log.warning("%s: kept, but not understood: %s%s", path, ", ".join(unknown[:3]), more)
    _check_whole(message, path)
    return message


def _check_whole(message: Any, path: FilePath) -> None:
    """Raise InputError where a file lacks its end, as far as its message tells."""
    if isinstance(message, SolverState) and not message.HasField("current_step"):
        raise InputError(f"{path}: this solverstate is cut short: current_step, the last field of one, is missing")
    if isinstance(message, NetParameter):
        layers = len(message.layer) + len(message.layers)
        if message.HasField("imae_layers") and layers != message.imae_layers:
            raise InputError(
                f"{path}: this caffemodel is cut short: it holds {layers} of its {message.imae_layers} layers"
            )
        message.ClearField("imae_layers")


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
