"""Bringing nets and solvers written for older versions of Caffe up to the present form, as Caffe does on reading."""

import logging
from typing import Any

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter, SolverParameter, V1LayerParameter, unknown_numbers

_log = logging.getLogger(__name__)

_V0_TYPES = """
accuracy bnll concat conv data dropout euclidean_loss flatten hdf5_data hdf5_output im2col images infogain_loss
innerproduct lrn multinomial_logistic_loss pool relu sigmoid softmax softmax_loss split tanh window_data
"""
# The V1 types whose name is not merely the V0 type's in upper case.
_V1_FROM_V0 = {"conv": "CONVOLUTION", "images": "IMAGE_DATA", "innerproduct": "INNER_PRODUCT", "pool": "POOLING"}
# Fields under another name in V1, where not merely a "det_" in front is gone.
_V0_RENAMED = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
}
_V0_NOT_FOR = {
    ("shuffle_images", "hdf5_data"),
    ("shuffle_images", "data"),
}  # fields that a type's new settings have, but V0 layers of it had not
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_V0_PASSED_OVER = {"type", "new_num", "new_channels"}  # gone into the new type, or passed over by Caffe

# The V1 types whose present name is not merely the enum's name in camel case.
_V1_TYPES = {
    **{name.upper(): name for name in ("AbsVal", "ArgMax", "BNLL", "LRN", "MVN", "ReLU", "TanH")},
    "NONE": "",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
}
_V1_DATA = {
    V1LayerParameter.DATA: "data_param",
    V1LayerParameter.IMAGE_DATA: "image_data_param",
    V1LayerParameter.WINDOW_DATA: "window_data_param",
}
_V1_PARAM_SPEC = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}
_SOLVER_TYPES = {name.upper(): name for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")}


def old_forms(message: Any) -> list[str]:
    """Return, in words, what a net or a solver holds in an older form; nothing where `upgrade_net` changes nothing."""
    if isinstance(message, SolverParameter):
        inner = [f"{form} of {where}" for where, net in _nets_inside(message) for form in old_forms(net)]
        return (["solver_type"] if message.HasField("solver_type") else []) + inner
    found = {
        "V0 layers": any(layer.HasField("layer") for layer in message.layers),
        "V1 layers": any(not layer.HasField("layer") for layer in message.layers),
        "transformations among the settings of data layers": bool(_transforming(message)),
        "input fields": bool(message.input),
        "the multipliers of BatchNorm": any(
            param.lr_mult or param.decay_mult for layer in _batch_norms(message) for param in layer.param
        ),
    }
    return [form for form, is_there in found.items() if is_there]


def upgrade_net(net: NetParameter, name: str) -> list[str]:
    """Rewrite, in place, what `net` holds in an older form; a net in the present form stays as it is.

    The same steps as Caffe's upgrade_proto.cpp: V0 layers, the transformations once kept in the data layers' own
    settings, V1 layers (`layers`), the net's `input` fields, and BatchNorm's three multipliers, which must be 0. What
    cannot be carried over is logged as a warning, and returned. Raises InputError, beginning with `name`, where the old
    form contradicts itself.
    """
    lost: list[str] = []
    if any(layer.HasField("layer") for layer in net.layers):
        _merge_padding_layers(net, name)
        for index, layer in enumerate(net.layers):
            if layer.HasField("layer"):
                layer.CopyFrom(_v1_from_v0(layer, f'{name}: layers[{index}] "{layer.layer.name}"', lost))
        _log.info("%s: upgraded from V0 layers", name)
    _move_transformations(net)
    if net.layers:
        if net.layer:
            raise InputError(f'{name}: the net has both "layer" and the older "layers"; write all of them as "layer"')
        for index, layer in enumerate(net.layers):
            net.layer.append(_layer_from_v1(layer, f'{name}: layers[{index}] "{layer.name}"', lost))
        net.ClearField("layers")
        _log.info("%s: upgraded from V1 layers", name)
    if net.input:
        _upgrade_input(net, name)
    for layer in _batch_norms(net):
        for param in layer.param:
            param.lr_mult = param.decay_mult = 0
    for line in lost:
        _log.warning("%s", line)
    return lost


def upgrade_solver(solver: SolverParameter, name: str) -> list[str]:
    """Replace, in place, the enum `solver_type` by `type`, and upgrade the nets that the solver holds itself.

    Returns what could not be carried over, as `upgrade_net`. Raises InputError, beginning with `name`, if both types
    are given.
    """
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise InputError(f'{name}: the solver has both "type" and the older "solver_type"; keep "type"')
        solver.type = _SOLVER_TYPES[type(solver).SolverType.Name(solver.solver_type)]
        solver.ClearField("solver_type")
    return [line for where, net in _nets_inside(solver) for line in upgrade_net(net, f"{name}: {where}")]


def _nets_inside(solver: SolverParameter) -> list[tuple[str, NetParameter]]:
    """The nets that a solver holds itself, and where."""
    single = [(field, getattr(solver, field)) for field in ("net_param", "train_net_param") if solver.HasField(field)]
    return [*single, *((f"test_net_param[{index}]", net) for index, net in enumerate(solver.test_net_param))]


def _batch_norms(net: NetParameter) -> list[LayerParameter]:
    """The BatchNorm layers with a `param` for each of their three blobs, as they were once written."""
    return [layer for layer in net.layer if layer.type == "BatchNorm" and len(layer.param) == 3]


def _merge_padding_layers(net: NetParameter, name: str) -> None:
    """Drop V0's padding layers and give their pad to the convolution or pooling layer that reads them."""
    makers: dict[str, V1LayerParameter | None] = dict.fromkeys(net.input)  # the layer that made each blob last
    for index, layer in enumerate(net.layers):
        v0, where = layer.layer, f'{name}: layers[{index}] "{layer.layer.name or layer.name}"'
        for place, bottom in enumerate(layer.bottom):
            if bottom not in makers:
                raise InputError(f'{where}: no layer before it produces its bottom "{bottom}"')
            padding = makers[bottom]
            if padding is None or padding.layer.type != "padding":
                continue
            if v0.type not in ("conv", "pool") or len(layer.bottom) != 1:
                raise InputError(
                    f'{where}: of type "{v0.type}" reads a padding layer; only a conv or pool layer with one bottom can'
                )
            if len(padding.bottom) != 1 or len(padding.top) != 1:
                raise InputError(f'{where}: its padding layer "{padding.layer.name}" must have one bottom and one top')
            v0.pad = padding.layer.pad
            layer.bottom[place] = padding.bottom[0]
        makers.update(dict.fromkeys(layer.top, layer))
    for index in reversed(range(len(net.layers))):
        if net.layers[index].layer.type == "padding":
            del net.layers[index]


def _v1_from_v0(connection: V1LayerParameter, where: str, lost: list[str]) -> V1LayerParameter:
    v0 = connection.layer
    if v0.type not in (known := _V0_TYPES.split()):
        raise InputError(f'{where}: "{v0.type}" is no V0 layer type; expected one of {", ".join(known)}')
    enum = _V1_FROM_V0.get(v0.type, v0.type.upper())
    v1 = V1LayerParameter(type=V1LayerParameter.LayerType.Value(enum), bottom=connection.bottom, top=connection.top)
    settings = f"{enum.lower()}_param"
    own = getattr(v1, settings, None)  # what took over the settings that V0 kept in the layer itself
    _note_unknown(v0, where, lost)
    for field, value in v0.ListFields():
        new_name = _V0_RENAMED.get(field.name, field.name.removeprefix("det_"))
        if field.name in ("name", "blobs", "blobs_lr", "weight_decay", settings):
            _assign(v1, field.name, value)
        elif field.name in _V0_TRANSFORM:
            setattr(v1.transform_param, _V0_TRANSFORM[field.name], value)
        elif own and new_name in own.DESCRIPTOR.fields_by_name and (field.name, v0.type) not in _V0_NOT_FOR:
            _assign(own, new_name, value)
        elif field.name not in _V0_PASSED_OVER:
            lost.append(f'{where}: a layer of type "{v0.type}" has no "{field.name}"; dropped')
    for field, _ in connection.ListFields():
        if field.name not in ("layer", "bottom", "top"):
            lost.append(f'{where}: "{field.name}" stands beside a V0 layer, which has no such field; dropped')
    return v1


def _layer_from_v1(v1: V1LayerParameter, where: str, lost: list[str]) -> LayerParameter:
    layer = LayerParameter()
    _note_unknown(v1, where, lost)
    for field, value in v1.ListFields():
        if field.name == "type":
            enum = V1LayerParameter.LayerType.Name(value)
            layer.type = _V1_TYPES.get(enum, "".join(part.capitalize() for part in enum.split("_")))
        elif field.name in _V1_PARAM_SPEC:
            for index, item in enumerate(value):
                while len(layer.param) <= index:
                    layer.param.add()
                setattr(layer.param[index], _V1_PARAM_SPEC[field.name], item)
        else:
            _assign(layer, field.name, value)
    return layer


def _transforming(net: NetParameter) -> list[tuple[V1LayerParameter, Any]]:
    """The data layers, each with its settings, if a transformation is among those of any."""
    layers = [(layer, getattr(layer, _V1_DATA[layer.type])) for layer in net.layers if layer.type in _V1_DATA]
    there = any(own.HasField(field) for _, own in layers for field in _V0_TRANSFORM.values())
    return layers if there else []


def _move_transformations(net: NetParameter) -> None:
    for layer, own in _transforming(net):
        for message in (own, layer.transform_param):  # of all data layers, as Caffe does
            message.SetInParent()
        for field in _V0_TRANSFORM.values():
            if own.HasField(field):
                setattr(layer.transform_param, field, getattr(own, field))
                own.ClearField(field)


def _upgrade_input(net: NetParameter, name: str) -> None:
    """Turn the net's `input` fields into an Input layer; without shapes (an old caffemodel) they only go away."""
    if net.input_shape or net.input_dim:
        shapes = [list(shape.dim) for shape in net.input_shape]
        if not shapes:
            shapes = [list(net.input_dim[start : start + 4]) for start in range(0, len(net.input_dim), 4)]
        if len(shapes) != len(net.input) or (not net.input_shape and len(net.input_dim) % 4):
            found = f"{len(net.input_shape)} input_shape" if net.input_shape else f"{len(net.input_dim)} input_dim"
            raise InputError(
                f"{name}: {len(net.input)} input and {found} do not fit; an input has one input_shape or four input_dim"
            )
        layer = LayerParameter(name="input", type="Input", top=net.input)
        for shape in shapes:
            layer.input_param.shape.add(dim=shape)
        net.layer.insert(0, layer)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)


def _assign(message: Any, field: str, value: Any) -> None:
    """Set a field of any kind; a repeated field takes a list, or one value, which is appended."""
    target = getattr(message, field)
    if hasattr(target, "extend"):
        target.extend(value if hasattr(value, "extend") else [value])
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(message, field, value)


def _note_unknown(layer: Any, where: str, lost: list[str]) -> None:
    for number in unknown_numbers(layer):
        lost.append(f"{where}: field {number} is unknown and cannot be upgraded; dropped")
