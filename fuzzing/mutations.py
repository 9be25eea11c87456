"""Ways to damage a file: its bytes, the words of a text, the fields of a message, what a container holds."""

import io
import random
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

from imae.prototxt_like.wire import LENGTH, VARINT, fields, header, tag, varint

Mutate = Callable[[random.Random, bytes], bytes]

_NUMBERS = [0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
_WORDS = b"""
0 -0 1 -1 2147483647 2147483648 -2147483649 4294967295 4294967296 9223372036854775807 9223372036854775808
18446744073709551616 1e9 1e39 1e400 -1e400 nan inf -inf infinity 0x7fffffff 010 1.5 .5 1.f true false null {} [] [1] { }
< > : ; , " ' # "" "\\000" "\\377" "\\xff" layer layers param shape dim net NaN \xff \x00 \xef\xbb\xbf \r\n
""".split()
_MOST = 2**20
"""Bytes of an input: damage repeated many times must not grow without end."""


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change, insert, remove, repeat or cut off bytes, one to four times."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(content))
        size = min(rng.choice([1, 1, 1, 2, 4, 8, 64, 4096]), len(content) - at)
        match rng.randrange(8):
            case 0 if size:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at : at + 1] = bytes([rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])])
            case 2:
                number, width = rng.choice(_NUMBERS), rng.choice([1, 2, 4, 8])
                order: Literal["little", "big"] = rng.choice(["little", "big"])
                content[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, order)
            case 3:
                content[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
            case 4:
                del content[at : at + size]
            case 5:
                content[at:at] = content[at : at + size] * rng.choice([1, 2, 100])
            case 6:
                del content[at:]
            case _:
                other = rng.randint(0, len(content))
                content[at : at + size] = content[other : other + size]
        del content[_MOST:]
    return bytes(content)


def damage_words(rng: random.Random, data: bytes) -> bytes:
    """Replace, insert, remove, repeat or exchange words or lines of a text, one to four times."""
    separator = rng.choice([b" ", b"\n"])
    words = data.split(separator)
    for _ in range(rng.randint(1, 4)):
        at, other = rng.randrange(len(words) + 1), rng.randrange(len(words) + 1)
        match rng.randrange(6):
            case 0:
                words[at : at + 1] = [rng.choice(_WORDS)]
            case 1:
                words.insert(at, rng.choice(_WORDS))
            case 2:
                del words[at : at + rng.choice([1, 1, 5])]
            case 3:
                words[at:at] = words[at : at + 3] * rng.choice([1, 2, 50])
            case 4:
                words[at : at + 1], words[other : other + 1] = words[other : other + 1], words[at : at + 1]
            case _:
                words[at:at] = [rng.choice([b"{", b"[", b"("]) * rng.choice([1, 10, 2000])]
    return separator.join(words)[:_MOST]


def damage_message(rng: random.Random, data: bytes, depth: int = 0) -> bytes:
    """Change, remove, repeat or exchange fields of a protobuf message, or damage one inside one of its fields."""
    try:
        found = [data[field.begin : field.end] for field in fields(data)]
        whole = [field for field in fields(data) if field.end <= len(data)]
    except ValueError:
        return damage_bytes(rng, data)
    if not whole or len(whole) != len(found):
        return damage_bytes(rng, data)
    at, other = rng.randrange(len(whole)), rng.randrange(len(whole))
    field = whole[at]
    content = data[field.start : field.end]
    match rng.randrange(7):
        case 0:
            found[at] = tag(field.number, VARINT) + varint(rng.choice(_NUMBERS))
        case 1:
            del found[at]
        case 2:
            found[at:at] = [found[at]] * rng.choice([1, 2, 100])
        case 3:
            found[at], found[other] = found[other], found[at]
        case 4:
            found[at] = header(rng.choice([field.number, rng.randrange(1, 200), 9001]), len(content)) + content
        case 5:
            found[at] = tag(field.number, LENGTH) + varint(rng.choice(_NUMBERS)) + content
        case _ if field.kind == LENGTH and depth < 8:
            inner = damage_message(rng, content, depth + 1)
            found[at] = header(field.number, len(inner)) + inner
    return b"".join(found)[:_MOST]


def inside_zip(mutate: Mutate = damage_bytes) -> Mutate:
    """Damage one of the files in a zip archive, leaving the archive whole."""

    def damage(rng: random.Random, data: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as damaged:
            names = archive.namelist()
            chosen = rng.choice(names) if names else ""
            for name in names:
                content = archive.read(name)
                damaged.writestr(name, mutate(rng, content) if name == chosen else content)
        return out.getvalue()

    return damage


def inside_deflated(start: int) -> Mutate:
    """Damage what zlib compressed from byte `start` on; the four bytes before say how long it is."""

    def damage(rng: random.Random, data: bytes) -> bytes:
        packed = zlib.compress(damage_bytes(rng, zlib.decompress(data[start:])))
        return data[: start - 4] + len(packed).to_bytes(4, "little") + packed

    return damage


def within(first: int, last: int, mutate: Mutate = damage_bytes) -> Mutate:
    """Damage only the bytes from `first` up to `last`, keeping their number, so that what points to them still does."""

    def damage(rng: random.Random, data: bytes) -> bytes:
        content = mutate(rng, data[first:last])[: last - first]
        return data[:first] + content + data[first + len(content) :]

    return damage


def damage(rng: random.Random, seeds: Sequence[bytes], ways: Sequence[Mutate]) -> bytes:
    """Return one of the sound inputs `seeds`, damaged in one or two of the `ways`."""
    data = rng.choice(seeds)
    for _ in range(rng.choice([1, 1, 2])):
        try:
            data = rng.choice(ways)(rng, data)
        except (ValueError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError):
            data = damage_bytes(rng, data)  # no container any more
    return data
