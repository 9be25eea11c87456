"""Protobuf's wire format, as far as it takes to pass large arrays between files and memory without copies.

Source: "Encoding", https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LARGEST = 2**31 - 1  # bytes that a message may have: what protobuf's implementations read and write
_VARINT_BYTES = 10


class Field(NamedTuple):
    """Where in a message a field begins, where its content begins, and where that ends: behind the end if it is cut."""

    number: int  # 0 where the data end within it
    kind: int
    begin: int
    start: int
    end: int


def fields(data: bytes | memoryview) -> Iterator[Field]:
    """Find the fields of a message, in their order; raises ValueError where there is none, as in a group."""
    position = 0
    while position < len(data):
        begin = position
        tag, start = read_varint(data, position)
        if start > len(data):
            yield Field(0, tag & 7, begin, start, start)
            return
        number, kind = tag >> 3, tag & 7
        if kind == LENGTH:
            size, start = read_varint(data, start)
            end = start + size
        elif kind == VARINT:
            end = read_varint(data, start)[1]
        elif kind in (FIXED64, FIXED32):
            end = start + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError(f"wire type {kind} at byte {begin}")
        if not 0 < number < 2**29:
            raise ValueError(f"field number {number} at byte {begin}")
        yield Field(number, kind, begin, start, end)
        position = end


def varint(value: int) -> bytes:
    """Encode a number of at least 0 in base 128."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def tag(number: int, kind: int) -> bytes:
    """Encode what a field begins with."""
    return varint(number << 3 | kind)


def header(number: int, size: int) -> bytes:
    """Encode what comes before the `size` bytes of a field that has a length."""
    return tag(number, LENGTH) + varint(size)


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position` and the position after it, which is behind the end if the number is cut."""
    value = 0
    for index, byte in enumerate(data[position : position + _VARINT_BYTES]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    if position + _VARINT_BYTES <= len(data):
        raise ValueError(f"a number of more than {_VARINT_BYTES} bytes at byte {position}")
    return value, len(data) + 1
