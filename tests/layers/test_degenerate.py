"""Witness: whatever sizes and numbers a layer is given, it gives a result, or one line that says what is wrong.

Never another exception, and never memory that a machine may not have: a test gets one gibibyte more than it has.
"""

import math
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from layer_cases import Case, every_case, run

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Shape, Shapes
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter

MOST = 2**20
"""Elements of a blob up to which a layer is not only built but run."""
INTEGERS = [0, 1, 2, 3, 7, 100, 2**15, 2**16 + 1, 2**31 - 2, 2**31 - 1]
NUMBERS: dict[int, list[object]] = {
    FieldDescriptor.CPPTYPE_UINT32: [*INTEGERS, 2**31, 2**32 - 1],
    FieldDescriptor.CPPTYPE_INT32: [*INTEGERS, -1, -2, -7, -(2**31)],
    FieldDescriptor.CPPTYPE_INT64: [*INTEGERS, -1, -(2**31), 2**31, 2**62, 2**63 - 1, -(2**63)],
    FieldDescriptor.CPPTYPE_FLOAT: [0.0, -1.0, 1e-38, 3e38, math.inf, -math.inf, math.nan],
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
}
"""What stands in a prototxt by mistake, near the ends of what the schema's types hold."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Let the process take one more gibibyte of memory and no more, where the system says how much it has."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(param: LayerParameter, case: Case, shapes: Shapes) -> None:
    """Build the layer in float32, as a net would, and run it forward and backward unless it is large, or refused."""
    try:
        layer = build_layer(param, shapes, phase=case.phase, forwards=case.forwards, dtype=torch.float32)
        announced = layer.reshape(shapes)
        assert announced is not None
        assert all(size >= 0 for shape in announced for size in shape), announced
        assert all(math.prod(shape) < 2**31 for shape in announced), announced
        if max(map(math.prod, announced), default=0) <= MOST:
            bottoms = [
                torch.rand(shape) if x.is_floating_point() else torch.zeros(shape, dtype=x.dtype)
                for shape, x in zip(shapes, case.draw(), strict=True)
            ]
            tops, _ = run(layer, bottoms)
            assert layer.tops_vary or [tuple(top.shape) for top in tops] == announced
    except InputError as error:
        assert "\n" not in str(error) and str(error).startswith(f'layer "{case.type}" ({case.type}): '), error


def resized(shapes: Shapes) -> Iterator[Shapes]:
    """These shapes with an axis that is empty, with one axis less or more, or none, in one bottom or in all."""

    def ways(shape: Shape) -> Iterator[Shape]:
        yield ()
        yield (1,)
        yield (*shape, 1)
        yield shape[:-1]
        for axis in range(len(shape)):
            yield (*shape[:axis], 0, *shape[axis + 1 :])
            yield (*shape[:axis], 1, *shape[axis + 1 :])

    for i, shape in enumerate(shapes):
        for other in ways(shape):
            yield [*shapes[:i], other, *shapes[i + 1 :]]
    for together in zip(*(ways(shape) for shape in shapes), strict=False):
        yield [*together]


def settings(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """The fields that hold a number, with the message that has them."""
    for field in message.DESCRIPTOR.fields:
        if field.cpp_type in NUMBERS:
            yield message, field
        elif is_single_message(field) and message.HasField(field.name):
            yield from settings(getattr(message, field.name))


def own_settings(param: LayerParameter) -> list[tuple[Message, FieldDescriptor]]:
    """Those of the messages `..._param` that a layer's prototxt has, or may have by its type's name."""
    messages = [
        getattr(param, field.name)
        for field in param.DESCRIPTOR.fields
        if is_single_message(field)
        and (param.HasField(field.name) or field.message_type.name == f"{param.type}Parameter")
    ]
    return [setting for message in messages for setting in settings(message)]


def is_single_message(field: FieldDescriptor) -> bool:
    return field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not field.is_repeated


def put(message: Message, field: FieldDescriptor, value: object) -> None:
    if field.is_repeated:
        del getattr(message, field.name)[:]
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def copied(param: LayerParameter) -> LayerParameter:
    copy = LayerParameter()
    copy.CopyFrom(param)
    return copy


@every_case()
def test_bottoms_of_any_shape_are_taken_or_refused(case: Case) -> None:
    with little_memory():
        for shapes in resized(case.shapes):
            attempt(case.param, case, shapes)


@every_case()
def test_absurd_settings_are_taken_or_refused(case: Case) -> None:
    """One at a time."""
    with little_memory():
        for place in range(len(own_settings(copied(case.param)))):
            param = copied(case.param)
            message, field = own_settings(param)[place]
            for value in NUMBERS[field.cpp_type]:
                put(message, field, value)
                attempt(param, case, case.shapes)


@every_case()
def test_absurd_settings_together_are_taken_or_refused(case: Case) -> None:
    draw = random.Random(case.seed)
    with little_memory():
        for _ in range(15):
            param = copied(case.param)
            places = own_settings(param)
            for message, field in draw.sample(places, min(len(places), draw.randint(2, 4))):
                put(message, field, draw.choice(NUMBERS[field.cpp_type]))
            attempt(param, case, case.shapes)
