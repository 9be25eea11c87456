"""The losses of a net and their settings in use, defaults included, as lines for a log."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from imae.nets.net import Net
from imae.prototxt_like.net_spec import settings_of
from imae.prototxt_like.schema import LayerParameter

_GENERAL = ("loss_param", "softmax_param")  # settings that several losses share


def loss_settings(net: Net) -> list[str]:
    """Return a line for each layer that adds to the net's loss, such as `Loss "loss": SoftmaxWithIMAELoss, T = 8`."""
    lines = []
    for step in net.steps:
        if not any(step.loss_weights):
            continue
        settings = dict(_settings(step.layer.param))
        if (weights := [weight for weight in step.loss_weights if weight]) != [1]:
            settings["loss_weight"] = ", ".join(f"{weight:g}" for weight in weights)
        values = "".join(f", {name} = {value}" for name, value in settings.items())
        lines.append(f'Loss "{step.layer.name}": {step.layer.param.type}{values}')
    return lines


def _settings(param: LayerParameter) -> Iterator[tuple[str, str]]:
    """What is set or has a default in the type's own settings, then what is set in general ones."""
    own = [name for name in settings_of(param.type) if name not in _GENERAL]
    for name in (*own, *_GENERAL):
        message: Message = getattr(param, name)
        for field in message.DESCRIPTOR.fields:
            if field.message_type or not field.has_presence:
                continue
            if message.HasField(field.name) or (name in own and field.has_default_value):
                yield field.name, _text(field, getattr(message, field.name))


def _text(field: Any, value: Any) -> str:
    if field.enum_type:
        return str(field.enum_type.values_by_number[value].name)
    return f"{value:g}" if isinstance(value, float) else str(value)
