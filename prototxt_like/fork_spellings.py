"""Fields by which forks of Caffe say what this schema says by another one, read from prototxt as what they stand for.

`ceil_mode: false` in `pooling_param` is `round_mode: FLOOR`; DeepLab's `hole`, or `hole_h` and `hole_w`, in
`convolution_param` is `dilation`, as are `dilation_h` and `dilation_w`. For binary files see fork_settings.py.
"""

import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import NetParameter, PoolingParameter

_log = logging.getLogger(__name__)
_FIRST_NUMBER = 100_000  # within text_format alone: nothing is written under these numbers
_FIELDS = {
    "PoolingParameter": {"ceil_mode": FieldDescriptorProto.TYPE_BOOL},
    "ConvolutionParameter": dict.fromkeys(
        ("hole", "hole_h", "hole_w", "dilation_h", "dilation_w"), FieldDescriptorProto.TYPE_UINT32
    ),
}
_TOGETHER = (("hole",), ("hole_h", "hole_w"), ("dilation_h", "dilation_w"))


def is_fork_spelling(message: str, field: str) -> bool:
    """Whether `field`, in the message of that name, is one that is read as another."""
    return field in _FIELDS.get(message, ())


def parse_fork_spellings(text: str, message: Any, name: str) -> None:
    """Parse `text` into `message` and say, in one warning for each way, what was read as what.

    Raises text_format.ParseError as text_format does, InputError where a layer gives both spellings, or half of one.
    """
    wide = _class(message.DESCRIPTOR.full_name)()
    text_format.Parse(text, wide)
    layers: dict[str, list[str]] = {}
    for layer, settings in _settings(wide):
        try:
            said = _translate(settings)
        except ValueError as error:
            raise InputError(f'{name}: layer "{layer}": {error}') from None
        if said:
            layers.setdefault(said, []).append(layer)
    for said, (first, *others) in layers.items():
        more = f" and {len(others)} more" if others else ""
        _log.warning('%s: %s, as in forks of Caffe (layer "%s"%s)', name, said, first, more)
    message.Clear()
    message.MergeFromString(wide.SerializePartialToString())


@cache
def _class(full_name: str) -> Any:
    """The message's class in a schema that has the forks' fields, too."""
    file = FileDescriptorProto()
    NetParameter.DESCRIPTOR.file.CopyToProto(file)
    for message in file.message_type:
        for number, (field, kind) in enumerate(_FIELDS.get(message.name, {}).items(), _FIRST_NUMBER):
            message.field.add(name=field, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(full_name))


def _settings(message: Any, layer: str = "") -> Iterator[tuple[str, Any]]:
    """Each message that may have such fields, with the name of the layer that it is in."""
    if message.DESCRIPTOR.name in _FIELDS:
        yield layer, message
    for field, value in message.ListFields():
        if field.message_type is not None and field.name != "blobs":
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _settings(inner, getattr(inner, "name", layer))


def _translate(settings: Any) -> str:
    """Put the settings' fields of forks in the schema's terms, and return what was read as what, "" if there are none.

    Raises ValueError where it is not clear what they mean.
    """
    given = [field for field in _FIELDS[settings.DESCRIPTOR.name] if settings.HasField(field)]
    if not given:
        return ""
    values = [getattr(settings, field) for field in given]
    read = ", ".join(f"{field}: {str(value).lower()}" for field, value in zip(given, values, strict=True))
    if given == ["ceil_mode"]:
        if settings.HasField("round_mode"):
            raise ValueError(f"{read} and round_mode are both given; expected one of them")
        settings.round_mode = PoolingParameter.CEIL if values[0] else PoolingParameter.FLOOR
        meant = f"round_mode: {PoolingParameter.RoundMode.Name(settings.round_mode)}"
    else:
        if settings.dilation:
            raise ValueError(f"{read} and dilation are both given; expected one of them")
        if tuple(given) not in _TOGETHER:
            raise ValueError(f"{read}; expected dilation, hole, or hole_h and hole_w, and nothing besides")
        settings.dilation.extend(values)
        meant = ", ".join(f"dilation: {value}" for value in values)
    for field in given:
        settings.ClearField(field)
    return f"{read} is read as {meant}"
