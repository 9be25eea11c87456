"""Fields of forks' convolutions and poolings in binary nets, under numbers that Caffe 1.0 gave to other fields.

| number | Caffe 1.0 | forks |
| --- | --- | --- |
| convolution 16 | axis | dilation (yjxiong's) |
| 17 | force_nd_im2col, a bool | hole (DeepLab's first, CCNN's); dilation_h (yjxiong's) |
| 18 | dilation, repeated | hole_h; dilation_w |
| 19 | - | hole_w; a bool or an enum of two values (Intel's, NVIDIA's) |
| pooling 13 | round_mode: CEIL 0, FLOOR 1 | ceil_mode, a bool; avg_include_pad, a bool (Intel's) |

No bool is above 1: what can only be a fork's is read as `dilation`. For the rest a warning says what it was read as.
The files that are written here have Caffe 1.0's fields, and are left alone.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from imae.prototxt_like.fork_numbers import Pieces
from imae.prototxt_like.schema import LayerParameter, NetParameter, V1LayerParameter
from imae.prototxt_like.wire import LENGTH, VARINT, Field, fields, header, read_varint, tag, varint

_log = logging.getLogger(__name__)
_AXIS, _FORCE, _DILATION, _BEHIND = 16, 17, 18, 19
_ROUND_MODE = 13
_OURS = NetParameter.DESCRIPTOR.fields_by_name["imae_layers"].number


def read_fork_settings(net: bytes, name: str) -> bytes:
    """Return the bytes of a net with these fields as Caffe 1.0's; damaged ones as they are. `name` is the file's.

    What was read as what is said in one warning for each way.
    """
    whole, pieces, copied, said = memoryview(net), Pieces(), 0, dict[str, list[str]]()
    try:
        for field in fields(whole):
            if field.number == _OURS:
                return net
            if field.kind != LENGTH or field.number not in _LAYERS:
                continue
            layer = whole[field.start : field.end]
            changed = _layer(layer, field.number, said)
            if changed != [layer]:
                pieces += [whole[copied : field.begin], header(field.number, sum(map(len, changed))), *changed]
                copied = field.end
    except ValueError:  # protobuf finds it as well, and what reads says so
        return net
    for what, (first, *others) in said.items():
        more = f" and {len(others)} more" if others else ""
        _log.warning('%s: %s (layer "%s"%s)', name, what, first, more)
    return b"".join([*pieces, whole[copied:]]) if pieces else net


def _layer(layer: memoryview, kind: int, said: dict[str, list[str]]) -> Pieces:
    """The pieces of a layer, the whole of it if nothing changes."""
    name_number, readers = _LAYERS[kind]
    name, pieces, copied = "", Pieces(), 0
    found = [field for field in fields(layer) if field.kind == LENGTH]
    if found and found[-1].end > len(layer):
        raise ValueError("cut short")
    for field in found:
        content = layer[field.start : field.end]
        if field.number == name_number:
            name = str(content, errors="replace")
        elif field.number in readers:
            new, what = readers[field.number](content)
            if what:
                said.setdefault(what, []).append(name)
            if new is not None:
                pieces += [layer[copied : field.begin], header(field.number, len(new)), new]
                copied = field.end
    return [*pieces, layer[copied:]] if pieces else [layer]


def _numbers(settings: memoryview) -> Iterator[tuple[Field, int]]:
    for field in fields(settings):
        if field.end > len(settings):
            raise ValueError("cut short")
        if field.kind == VARINT:
            yield field, read_varint(settings, field.start)[0]


def _convolution(settings: memoryview) -> tuple[bytes | None, str]:
    """The settings with `dilation`, if they have it in forks' fields, and what was read as what."""
    given: dict[int, list[int]] = {}
    for field, value in _numbers(settings):
        given.setdefault(field.number, []).append(value)
    force, dilation, behind = (given.get(number, [0]) for number in (_FORCE, _DILATION, _BEHIND))
    if len(dilation) > 1:
        return None, ""
    alone = _DILATION not in given
    if max(force) > 1 and max(behind) <= 1:
        names, values = (["hole"], force) if alone else (["dilation_h", "dilation_w"], [*force, *dilation])
        gone = (_FORCE, _DILATION)
    elif max(behind) > 1 and not alone and max(force) <= 1:
        names, values, gone = ["hole_h", "hole_w"], [*dilation, *behind], (_DILATION, _BEHIND)
    elif max(given.get(_AXIS, [0])) > 1:
        return None, f"axis: {max(given[_AXIS])} of a convolution is read as Caffe 1.0's, not as a fork's dilation"
    else:
        return None, ""
    read = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
    meant = ", ".join(f"dilation: {value}" for value in values)
    kept: Pieces = [settings[field.begin : field.end] for field in fields(settings) if field.number not in gone]
    kept += [tag(_DILATION, VARINT) + varint(value) for value in values]
    return b"".join(kept), f"{read} is read as {meant}, as in forks of Caffe"


def _pooling(settings: memoryview) -> tuple[None, str]:
    """Nothing to change, and what field 13 was read as: nothing tells a fork's from Caffe 1.0's."""
    for field, value in _numbers(settings):
        if field.number == _ROUND_MODE:
            mode, others = ("FLOOR", "CEIL") if value else ("CEIL", "FLOOR")
            fork = f"ceil_mode: {str(bool(value)).lower()}"
            return None, (
                f"pooling_param has {value} in field 13, which is read as Caffe 1.0's round_mode: {mode}; from a fork "
                f"that has {fork} there it is round_mode: {others}, to be said in the prototxt"
            )
    return None, ""


_Reader = Callable[[memoryview], tuple[bytes | None, str]]


def _layers(message: Any) -> tuple[int, dict[int, _Reader]]:
    """The numbers of a layer's name and of these settings."""
    numbers = {name: field.number for name, field in message.DESCRIPTOR.fields_by_name.items()}
    return numbers["name"], {numbers["convolution_param"]: _convolution, numbers["pooling_param"]: _pooling}


_LAYERS = {
    NetParameter.DESCRIPTOR.fields_by_name[field].number: _layers(message)
    for field, message in (("layer", LayerParameter), ("layers", V1LayerParameter))
}
