"""The messages of `caffe.proto` as Python classes, in a descriptor pool of their own.

Every message and enum of the schema is an attribute of this module: `schema.NetParameter`, `schema.NoiseKind`,
`schema.PoolingParameter.AVE`. The pool is private, so that pycaffe, which has the same names, can be imported too.
After a change of the schema, from the repository's root:

    python -m grpc_tools.protoc -I prototxt_like --descriptor_set_out=prototxt_like/caffe.descriptor caffe.proto
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

TRAIN: Final = 0
TEST: Final = 1
ASIDE: Final = 2**28  # what is added to the number of a layer's field that belongs to a fork: see fork_numbers.py
CAME_AS: Final = 2**28 + 2**27  # what is added to the number that a fork's settings came under, in an empty field

if TYPE_CHECKING:  # The classes exist at run time only; to a type checker each is Any.

    def __getattr__(name: str) -> Any: ...

else:
    _pool = DescriptorPool()
    (_file,) = FileDescriptorSet.FromString(Path(__file__).with_name("caffe.descriptor").read_bytes()).file
    _pool.AddSerializedFile(_file.SerializeToString())
    _schema = _pool.FindFileByName(_file.name)
    globals().update({name: GetMessageClass(message) for name, message in _schema.message_types_by_name.items()})
    globals().update({name: EnumTypeWrapper(enum) for name, enum in _schema.enum_types_by_name.items()})


def unknown_fields(message: Any) -> list[str]:
    """Say where a message read from a binary file holds fields (or enum values) that this schema lacks.

    Returns paths such as `layer[3] "conv1": field 147`. They are kept when the message is written to a binary file.
    """
    return list(_unknown_paths(message, ""))


def unknown_numbers(message: Any) -> list[int]:
    """Return the numbers of the unknown fields that `message` itself holds, not those in the messages inside it."""
    unknown = UnknownFieldSet(message)
    numbers = [unknown[index].field_number for index in range(len(unknown))]
    return [number - ASIDE if number > ASIDE else number for number in numbers if number <= CAME_AS]


def _unknown_paths(message: Any, path: str) -> Iterator[str]:
    for number in unknown_numbers(message):
        yield f"{path}: field {number}" if path else f"field {number}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        single = hasattr(value, "ListFields")
        for index, item in enumerate([value] if single else value):
            step = field.name if single else f"{field.name}[{index}]"
            if name := getattr(item, "name", ""):
                step += f' "{name}"'
            yield from _unknown_paths(item, f"{path}.{step}" if path else step)
