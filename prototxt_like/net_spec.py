"""Writing nets in Python, as Caffe's NetSpec does.

    n = NetSpec()
    n.data, n.label = L.Data(source="train_lmdb", backend=P.Data.LMDB, batch_size=64, ntop=2)
    n.conv = L.Convolution(n.data, num_output=16, kernel_size=3, weight_filler={"type": "msra"})
    n.relu = L.ReLU(n.conv, in_place=True)
    n.score = L.InnerProduct(n.relu, num_output=10)
    n.loss = L.SoftmaxWithIMAELoss(n.score, n.label, T=8)
    net = n.to_proto()

A layer's keywords are the fields of its settings (`convolution_param` for Convolution) and of LayerParameter itself
(`param`, `include`, `loss_weight`, `transform_param`, ...). A dict stands for a message, a list for a repeated field; a
repeated field takes a single value too, and an enum takes the name of a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imae.prototxt_like import schema
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter
from imae.prototxt_like.text import did_you_mean, did_you_mean_field

# The settings that a type's keywords go to first, where that is not the message that bears the type's name.
_SETTINGS = {
    "Deconvolution": "convolution_param",
    "Im2col": "convolution_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
    "IMAELoss": "imae_param",
    "GCELoss": "gce_param",
}
for _field in LayerParameter.DESCRIPTOR.fields:
    if _field.message_type and _field.message_type.name.endswith("Parameter"):
        _SETTINGS.setdefault(_field.message_type.name.removesuffix("Parameter"), _field.name)


def settings_of(type: str) -> list[str]:
    """Return the fields of LayerParameter with the settings of a layer type: its own, then those of losses."""
    own = _SETTINGS.get(type.removeprefix("SoftmaxWith"))
    softmax = "softmax_param" if type.startswith("SoftmaxWith") or type == "InfogainLoss" else None
    loss = "loss_param" if type.endswith("Loss") else None
    return list(dict.fromkeys(filter(None, (own, softmax, loss))))


class Top:
    """One output of a layer: an input for others, named by assigning it to a NetSpec."""

    def __init__(self, layer: Layer, index: int) -> None:
        self.layer = layer
        self.index = index

    def __repr__(self) -> str:
        return f"top {self.index} of {self.layer.parameter.type}"


class Layer:
    """A layer with its inputs and settings, and its outputs `tops`; made by `L.TYPE(*inputs, **settings)`."""

    def __init__(self, type: str, *inputs: Top, ntop: int = 1, in_place: bool = False, **settings: Any) -> None:
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                raise InputError(f"{type}: input {index} is {bottom!r}; expected the top of a layer")
        if in_place and not len(inputs) == ntop == 1:
            raise InputError(f"{type}: in_place needs one input and one top, not {len(inputs)} and {ntop}")
        self.inputs = inputs
        self.in_place = in_place
        self.tops = tuple(Top(self, index) for index in range(ntop))
        self.parameter = LayerParameter(type=type)
        for name, value in settings.items():
            _assign(_holder(self.parameter, name), name, value, type)


class NetSpec:
    """A net as named tops: `n.NAME = TOP` (or `n["NAME"] = TOP`) adds a top with all it needs; a layer bears its first
    top's name. A layer without tops (`ntop=0`) is assigned itself.
    """

    _named: dict[str, Top | Layer]

    def __init__(self) -> None:
        object.__setattr__(self, "_named", {})

    def __setattr__(self, name: str, value: Top | Layer) -> None:
        if not isinstance(value, Top | Layer):
            raise InputError(
                f"{name}: expected the top of a layer, found {value!r}; assign each of several tops to a name"
            )
        self._named[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "_named" or name not in self._named:  # copy asks before __init__ has run
            raise AttributeError(f'the net has no top "{name}"{did_you_mean(name, self.__dict__.get("_named", ()))}')
        return self._named[name]

    __setitem__ = __setattr__
    __getitem__ = __getattr__

    def to_proto(self, name: str = "") -> NetParameter:
        """Return the net of every layer that the named tops need, each after the layers it reads from.

        Tops without a name are called by their layer's type and a number, such as Convolution1.
        """
        net = _build(list(self._named.values()), {value: key for key, value in self._named.items()})
        if name:
            net.name = name
        return net


def named(net: NetSpec, name: str, top: Top) -> Top:
    """Add a top to the net, and return it."""
    net[name] = top
    return top


def to_proto(*tops: Top) -> NetParameter:
    """Return the net of every layer that `tops` need, all blobs called by their layer's type and a number."""
    return _build(tops, {})


def _build(roots: Sequence[Top | Layer], names: dict[Top | Layer, str]) -> NetParameter:
    net = NetParameter()
    done: dict[Layer, LayerParameter] = {}
    taken = set(names.values())
    numbers: Counter[str] = Counter()

    def name_of(item: Top | Layer, type: str) -> str:
        while item not in names:
            numbers[type] += 1
            if f"{type}{numbers[type]}" not in taken:
                names[item] = f"{type}{numbers[type]}"
        return names[item]

    pending = [root.layer if isinstance(root, Top) else root for root in reversed(roots)]
    while pending:  # depth first without recursion: nets are deeper than Python's stack
        layer = pending[-1]
        missing = [bottom.layer for bottom in layer.inputs if bottom.layer not in done]
        if missing and layer not in done:
            pending += reversed(missing)
            continue
        pending.pop()
        if layer in done:
            continue
        done[layer] = parameter = net.layer.add()
        parameter.CopyFrom(layer.parameter)
        bottoms = [done[bottom.layer].top[bottom.index] for bottom in layer.inputs]
        parameter.bottom.extend(bottoms)
        parameter.top.extend(bottoms if layer.in_place else [name_of(top, parameter.type) for top in layer.tops])
        if not parameter.name:
            parameter.name = name_of(layer.tops[0] if layer.tops else layer, parameter.type)
    return net


class _Layers:
    """`L.TYPE(*inputs, **settings)` returns the layer's top, the tuple of its tops, or (`ntop=0`) the layer."""

    def __getattr__(self, type: str) -> Callable[..., Any]:
        if type.startswith("__"):  # what copy, pickle and others probe for
            raise AttributeError(type)

        def make(*inputs: Top, **settings: Any) -> Top | tuple[Top, ...] | Layer:
            layer = Layer(type, *inputs, **settings)
            return layer.tops[0] if len(layer.tops) == 1 else layer.tops or layer

        return make


class _Parameters:
    """`P.Pooling.MAX` is PoolingParameter's value MAX."""

    def __getattr__(self, name: str) -> Any:
        return getattr(schema, f"{name}Parameter")


L = _Layers()
P = _Parameters()


def _holder(parameter: LayerParameter, name: str) -> Any:
    """Return the message that the keyword `name` belongs to: one of the settings of the type, or the layer itself."""
    searched = [getattr(parameter, settings) for settings in settings_of(parameter.type)]
    known: list[str] = []
    for message in (*searched, parameter):
        known += message.DESCRIPTOR.fields_by_name
        if name in message.DESCRIPTOR.fields_by_name:
            return message
    renamed = (did_you_mean_field(name, message.DESCRIPTOR) for message in searched)
    hint = next(filter(None, renamed), did_you_mean(name, known))
    raise InputError(f'{parameter.type}: there is no setting "{name}"{hint}')


def _assign(message: Any, name: str, value: Any, where: str) -> None:
    """Set the field `name` from a scalar, an enum's name, a dict for a message, or a list of any of these."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        hint = did_you_mean_field(name, message.DESCRIPTOR)
        raise InputError(f'{where}: "{name}" is no field of {message.DESCRIPTOR.name}{hint}')
    where = f"{where}.{name}"
    target = getattr(message, name)
    try:
        if hasattr(target, "append"):
            for item in value if isinstance(value, list | tuple) else [value]:
                if field.message_type:
                    _fill(target.add(), item, where)
                else:
                    target.append(_scalar(field, item, where))
        elif field.message_type:
            _fill(target, value, where)
        else:
            setattr(message, name, _scalar(field, value, where))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {value!r} does not fit: {error}") from None


def _fill(message: Any, value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        message.CopyFrom(value)
        return
    message.SetInParent()
    for name, item in value.items():
        _assign(message, name, item, where)


def _scalar(field: Any, value: Any, where: str) -> Any:
    if not field.enum_type or not isinstance(value, str):
        return value
    values = field.enum_type.values_by_name
    if value not in values:
        raise InputError(f'{where}: "{value}" is none of {", ".join(values)}{did_you_mean(value, values)}')
    return values[value].number
