"""Blobs as arrays: in messages, and outside them, where the values of a large file stay one copy in memory."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import ArrayLike, NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.limits import BLOB_AXES, LARGEST_INT32
from imae.prototxt_like.schema import BlobProto
from imae.prototxt_like.wire import LENGTH, VARINT, fields, header, tag, varint

FloatArray = NDArray[np.floating[Any]]
Values = dict[str, NDArray[Any]]  # the values of a blob, flat, by the names of their fields
Blob = tuple[ArrayLike, ArrayLike | None]  # data and, where there is one, diff
Pieces = list[bytes | memoryview]

_TYPES = {"data": "<f4", "diff": "<f4", "double_data": "<f8", "double_diff": "<f8", "raw_data": "u1", "raw_diff": "u1"}
_FIELDS = BlobProto.DESCRIPTOR.fields_by_name
_NAMES = {_FIELDS[name].number: name for name in _TYPES}
_RAW_TYPES = {BlobProto.DOUBLE: "<f8", BlobProto.FLOAT: "<f4", BlobProto.FLOAT16: "<f2"}
_PLACE = _FIELDS["imae_place"].number
_FEW = 64  # fields that a blob may have to be taken apart here; one in thousands of pieces is left to protobuf
_CHUNK = 2**22  # values that are checked at a time, so that what the check needs is small beside them


def blob_to_array(blob: BlobProto, name: str = "blob", *, diff: bool = False) -> FloatArray:
    """Return a copy of a blob's data (or its diff) in its shape: float64 where the blob holds doubles, else float32.

    As in Caffe, the four old dimensions num, channels, height and width win over `shape` where one of them is set.
    NVIDIA's `raw_data` is read, too. Raises InputError, beginning with `name`, if the shape is none that a blob can
    have, or if it and the number of values disagree.
    """
    taken: list[Values] = []
    rest = BlobProto.FromString(_take_values(memoryview(blob.SerializePartialToString()), taken))
    return np.array(stored_array(rest, taken, name, diff=diff))


def array_to_blob(array: ArrayLike, diff: ArrayLike | None = None) -> BlobProto:
    """Return a blob with the array's shape and values: doubles for float64, float32 for every other type of number.

    `diff`, of the same shape and stored in the same precision, may be given too; a different shape raises InputError.
    """
    pieces = blob_pieces(array, diff)
    try:
        return BlobProto.FromString(b"".join(pieces))
    except DecodeError as error:
        raise InputError(f"blob: {size(pieces)} bytes are more than a protobuf file can hold (2 GiB)") from error


def blob_pieces(array: ArrayLike, diff: ArrayLike | None = None, *, old: bool = False) -> Pieces:
    """Return the bytes of `array_to_blob`'s message, the values among them as they lie in memory.

    With `old` the shape, of 4 axes, is given by the four old dimensions.
    """
    data = np.asarray(array)
    double = "double_" if data.dtype == np.float64 else ""
    shape = BlobProto()
    set_shape(shape, data.shape, old=old)
    pieces: Pieces = [shape.SerializeToString()]
    pieces += _values_piece(f"{double}data", data)
    if diff is not None:
        diff = np.asarray(diff)
        if diff.shape != data.shape:
            raise InputError(f"blob: the diff's shape {diff.shape} is not the data's, {data.shape}")
        pieces += _values_piece(f"{double}diff", diff)
    return pieces


def _values_piece(field: str, values: NDArray[Any]) -> Pieces:
    flat = np.ascontiguousarray(values, _TYPES[field]).reshape(-1)
    # A view of bytes, as a memoryview of no values can be cast to none.
    return [header(_FIELDS[field].number, flat.nbytes), flat.view(np.uint8).data]


def size(pieces: Iterable[bytes | memoryview]) -> int:
    """Return how many bytes there are in all."""
    return sum(map(len, pieces))


def take_out(data: memoryview, descriptor: Any, taken: list[Values]) -> bytes:
    """Return the bytes of a message without the values of its blobs, which are added to `taken`, as views of `data`.

    A blob's field `imae_place` then says where in `taken` they are, so that a blob may be copied and moved.
    Raises ValueError if `data` are no whole message.
    """
    pieces: Pieces = []
    copied = 0
    leading = _leading_to_blobs(descriptor)
    for field in fields(data):
        if field.end > len(data):
            raise ValueError("cut short")
        if field.kind != LENGTH or field.number not in leading:
            continue
        inner, content = leading[field.number], data[field.start : field.end]
        is_blob = inner is BlobProto.DESCRIPTOR
        body = _take_values(content, taken) if is_blob else take_out(content, inner, taken)
        pieces += [data[copied : field.begin], header(field.number, len(body)), body]
        copied = field.end
    return b"".join([*pieces, data[copied:]])


def _take_values(data: memoryview, taken: list[Values]) -> bytes:
    values: Values = {}
    pieces: Pieces = []
    for count, field in enumerate(fields(data)):
        name = _NAMES.get(field.number)
        if field.end > len(data):
            raise ValueError("cut short")
        if count == _FEW or name in values or (name and field.kind != LENGTH):
            return bytes(data)
        content = data[field.start : field.end]
        if name:
            dtype = np.dtype(_TYPES[name])
            if len(content) % dtype.itemsize:
                raise ValueError(f"{len(content)} bytes of {dtype}")
            values[name] = np.frombuffer(content, dtype)
        elif field.number != _PLACE:
            pieces.append(data[field.begin : field.end])
    taken.append(values)
    return b"".join([*pieces, tag(_PLACE, VARINT), varint(len(taken))])


@functools.cache
def _leading_to_blobs(descriptor: Any) -> dict[int, Any]:
    """The fields of a message, by number, that are blobs or messages with blobs somewhere in them."""
    return {
        field.number: field.message_type
        for field in descriptor.fields
        if field.message_type and (field.message_type is BlobProto.DESCRIPTOR or _leading_to_blobs(field.message_type))
    }


def stored_array(blob: BlobProto, taken: Sequence[Values], name: str, *, diff: bool = False) -> FloatArray:
    """Return what `blob_to_array` does for a blob whose values `take_out` put into `taken`, as a view where it can.

    A view may not be aligned, as the values in a file are not.
    """
    kind = "diff" if diff else "data"
    flat: FloatArray = _flat_values(blob, taken, kind, name)
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(dimension) for dimension in legacy):
        shape = tuple(getattr(blob, dimension) for dimension in legacy)
    else:
        shape = tuple(blob.shape.dim)
    if len(shape) > BLOB_AXES:
        raise InputError(f"{name}: the shape has {len(shape)} axes, a blob has at most {BLOB_AXES}")
    if min(shape, default=0) < 0 or math.prod(shape) != flat.size:
        raise InputError(f"{name}: the shape is {_describe(shape)}, but {kind} holds {flat.size}")
    if math.prod(dimension or 1 for dimension in shape) > LARGEST_INT32:
        raise InputError(f"{name}: the shape is {_describe(shape)}: its dimensions are more than a blob can have")
    return flat.reshape(shape)


def describe_stored(blob: BlobProto, shape: Sequence[int], arrays: Values, values: list[Values]) -> None:
    """Make of a blob one that has a shape, and its data and diff, `arrays` (flat, float32 or float64), in `values`.

    4 axes, the first of them 1, are given as the four old dimensions: it may be a blob from before N-d blobs.
    """
    values.append({f"double_{kind}" if array.dtype == np.float64 else kind: array for kind, array in arrays.items()})
    blob.imae_place = len(values)
    set_shape(blob, shape, old=len(shape) == 4 and shape[0] == 1)


def set_shape(blob: BlobProto, shape: Sequence[int], *, old: bool = False) -> None:
    """Set the shape of a blob, with `old` as the four old dimensions."""
    if old:
        blob.num, blob.channels, blob.height, blob.width = shape
    else:
        blob.shape.dim.extend(shape)
        blob.shape.SetInParent()


def _describe(shape: Sequence[int]) -> str:
    return f"{' x '.join(map(str, shape)) or 'a scalar'}, {math.prod(shape)} values"


def _flat_values(blob: BlobProto, taken: Sequence[Values], kind: str, name: str) -> NDArray[Any]:
    if blob.imae_place > len(taken):
        raise InputError(f"{name}: its values are missing")
    values: Values = taken[blob.imae_place - 1] if blob.imae_place else {}

    def get(field: str) -> FloatArray:
        if field in values:
            return values[field]
        inside = getattr(blob, field)
        return np.frombuffer(inside, "u1") if isinstance(inside, bytes) else np.array(inside, _TYPES[field])

    raw = get(f"raw_{kind}")
    if raw.size:
        raw_type = getattr(blob, f"raw_{kind}_type")
        dtype = np.dtype(_RAW_TYPES.get(raw_type, "u1"))
        if raw_type not in _RAW_TYPES or raw.size % dtype.itemsize:
            kind_name = BlobProto.RawType.Name(raw_type)
            raise InputError(
                f"{name}: NVIDIA's raw_{kind} holds {raw.size} bytes of {kind_name}, expected whole values of FLOAT16, "
                "FLOAT or DOUBLE"
            )
        return raw.view(dtype) if dtype.itemsize > 2 else raw.view(dtype).astype(np.float32)
    double = get(f"double_{kind}")
    return double if double.size else get(kind)


def check_finite(array: NDArray[Any], name: str) -> None:
    """Raise InputError, beginning with `name`, for a NaN or an infinity in an array."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        finite = np.isfinite(flat[start : start + _CHUNK])
        if not finite.all():
            at = start + int(finite.argmin())
            raise InputError(f"{name}: value {at} is {flat[at]}, expected a finite number")


@dataclass(frozen=True)
class Stored:
    """A message read from a file, whose blobs' values stay outside it: one copy of them, that of the file."""

    message: Any
    values: Sequence[Values] = ()
    origin: str = "the source of the weights"  # what messages call it: the file's path

    def array(self, blob: BlobProto, name: str, *, diff: bool = False) -> FloatArray:
        """Return the values of one of the message's blobs: `blob_to_array`'s, but read only and perhaps not aligned.

        Raises InputError, beginning with `name`, as `blob_to_array` does, and for data that are not finite.
        """
        array = stored_array(blob, self.values, name, diff=diff)
        if not diff:
            check_finite(array, name)
        return array

    def has_diff(self, blob: BlobProto) -> bool:
        """Whether a diff is kept for one of the message's blobs."""
        kept = self.values[blob.imae_place - 1] if blob.imae_place else {}
        return any(len(kept.get(field, getattr(blob, field))) for field in _TYPES if field.endswith("diff"))
