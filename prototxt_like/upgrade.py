"""Bringing nets and solvers written for older versions of Caffe up to the present form, as Caffe does on reading."""

import logging
from typing import Any

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter, SolverParameter, V1LayerParameter, unknown_numbers

_log = logging.getLogger(__name__)

# Each V0 type: its V1 type, and the message that took over the settings V0 kept in the layer itself.
_V0_TYPES = {
    "accuracy": ("ACCURACY", None),
    "bnll": ("BNLL", None),
    "concat": ("CONCAT", "concat_param"),
    "conv": ("CONVOLUTION", "convolution_param"),
    "data": ("DATA", "data_param"),
    "dropout": ("DROPOUT", "dropout_param"),
    "euclidean_loss": ("EUCLIDEAN_LOSS", None),
    "flatten": ("FLATTEN", None),
    "hdf5_data": ("HDF5_DATA", "hdf5_data_param"),
    "hdf5_output": ("HDF5_OUTPUT", "hdf5_output_param"),
    "im2col": ("IM2COL", None),
    "images": ("IMAGE_DATA", "image_data_param"),
    "infogain_loss": ("INFOGAIN_LOSS", "infogain_loss_param"),
    "innerproduct": ("INNER_PRODUCT", "inner_product_param"),
    "lrn": ("LRN", "lrn_param"),
    "multinomial_logistic_loss": ("MULTINOMIAL_LOGISTIC_LOSS", None),
    "pool": ("POOLING", "pooling_param"),
    "relu": ("RELU", None),
    "sigmoid": ("SIGMOID", None),
    "softmax": ("SOFTMAX", None),
    "softmax_loss": ("SOFTMAX_LOSS", None),
    "split": ("SPLIT", None),
    "tanh": ("TANH", None),
    "window_data": ("WINDOW_DATA", "window_data_param"),
}
_V0_RENAMED = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
    "det_fg_threshold": "fg_threshold",
    "det_bg_threshold": "bg_threshold",
    "det_fg_fraction": "fg_fraction",
    "det_context_pad": "context_pad",
    "det_crop_mode": "crop_mode",
}
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}
_V0_DONE = {"name", "type", "blobs", "blobs_lr", "weight_decay", "new_num", "new_channels"}

# The V1 types whose present name is not merely the enum's name in camel case.
_V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_V1_PARAM_SPEC = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}
_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def upgrade_net(net: NetParameter, name: str) -> None:
    """Rewrite, in place, what `net` holds in an older form; a net in the present form stays as it is.

    The same steps as Caffe's: V0 layers, V1 layers (`layers`), the transformations once kept in the data layers' own
    settings, the net's `input` fields, and BatchNorm's three multipliers, which must be 0. What cannot be carried over
    is logged as a warning. Raises InputError, beginning with `name`, where the old form contradicts itself.
    """
    if any(layer.HasField("layer") for layer in net.layers):
        _merge_padding_layers(net, name)
        for index, layer in enumerate(net.layers):
            if layer.HasField("layer"):
                layer.CopyFrom(_v1_from_v0(layer, f'{name}: layers[{index}] "{layer.layer.name}"'))
        _log.info("%s: upgraded from V0 layers", name)
    if net.layers:
        if net.layer:
            raise InputError(f'{name}: the net has both "layer" and the older "layers"; write all of them as "layer"')
        for index, layer in enumerate(net.layers):
            net.layer.append(_layer_from_v1(layer, f'{name}: layers[{index}] "{layer.name}"'))
        net.ClearField("layers")
        _log.info("%s: upgraded from V1 layers", name)
    if net.input:
        _upgrade_input(net, name)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for param in layer.param:
                param.lr_mult = param.decay_mult = 0


def upgrade_solver(solver: SolverParameter, name: str) -> None:
    """Replace, in place, the enum `solver_type` by `type`, and upgrade the nets that the solver holds itself.

    Raises InputError, beginning with `name`, if both are given.
    """
    if solver.HasField("solver_type"):
        if solver.HasField("type"):
            raise InputError(f'{name}: the solver has both "type" and the older "solver_type"; keep "type"')
        solver.type = _SOLVER_TYPES[type(solver).SolverType.Name(solver.solver_type)]
        solver.ClearField("solver_type")
    for field in ("net_param", "train_net_param"):
        if solver.HasField(field):
            upgrade_net(getattr(solver, field), f"{name}: {field}")
    for index, net in enumerate(solver.test_net_param):
        upgrade_net(net, f"{name}: test_net_param[{index}]")


def _merge_padding_layers(net: NetParameter, name: str) -> None:
    """Drop V0's padding layers and give their pad to the convolution or pooling layer that reads them."""
    padding: dict[str, Any] = {}  # by the name of the padded blob
    kept = []
    for layer in net.layers:
        padded = [padding[bottom] for bottom in layer.bottom if bottom in padding]
        if padded:
            if layer.layer.type not in ("conv", "pool") or len(layer.bottom) != 1:
                raise InputError(
                    f'{name}: layer "{layer.layer.name}" of type "{layer.layer.type}" reads a padding layer; '
                    "only a conv or pool layer with one bottom can"
                )
            layer.layer.pad = padded[0].layer.pad
            layer.bottom[0] = padded[0].bottom[0]
        for top in layer.top:
            padding.pop(top, None)
        if layer.layer.type != "padding":
            kept.append(layer)
            continue
        if len(layer.bottom) != 1 or len(layer.top) != 1:
            raise InputError(f'{name}: padding layer "{layer.layer.name}" must have one bottom and one top')
        padding[layer.top[0]] = layer
    upgraded = NetParameter(layers=kept)
    net.ClearField("layers")
    net.MergeFrom(upgraded)


def _v1_from_v0(connection: V1LayerParameter, where: str) -> V1LayerParameter:
    v0 = connection.layer
    if v0.type not in _V0_TYPES:
        raise InputError(f'{where}: "{v0.type}" is no V0 layer type; expected one of {", ".join(_V0_TYPES)}')
    enum, settings = _V0_TYPES[v0.type]
    v1 = V1LayerParameter(
        name=v0.name,
        type=V1LayerParameter.LayerType.Value(enum),
        bottom=connection.bottom,
        top=connection.top,
        blobs=v0.blobs,
        blobs_lr=v0.blobs_lr,
        weight_decay=v0.weight_decay,
    )
    _warn_of_unknown(v0, where)
    for field, value in v0.ListFields():
        if field.name in _V0_DONE:
            continue
        new_name = _V0_RENAMED.get(field.name, field.name)
        if field.name in _V0_TRANSFORM:
            setattr(v1.transform_param, _V0_TRANSFORM[field.name], value)
        elif settings and field.name == settings:
            getattr(v1, settings).CopyFrom(value)
        elif settings and new_name in getattr(v1, settings).DESCRIPTOR.fields_by_name:
            _assign(getattr(v1, settings), new_name, value)
        else:
            _log.warning('%s: a layer of type "%s" has no "%s"; ignored', where, v0.type, field.name)
    return v1


def _layer_from_v1(v1: V1LayerParameter, where: str) -> LayerParameter:
    layer = LayerParameter()
    _warn_of_unknown(v1, where)
    _move_transformation(v1)
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


def _move_transformation(v1: V1LayerParameter) -> None:
    for settings in ("data_param", "image_data_param", "window_data_param"):
        if v1.HasField(settings):
            old = getattr(v1, settings)
            for field in ("scale", "mean_file", "crop_size", "mirror"):
                if old.HasField(field):
                    setattr(v1.transform_param, field, getattr(old, field))
                    old.ClearField(field)


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


def _warn_of_unknown(layer: Any, where: str) -> None:
    for number in unknown_numbers(layer):
        _log.warning("%s: field %d is unknown and cannot be upgraded; dropped", where, number)
