"""ONNX files: a graph as a checked model, written whole, its weights beside it where one file cannot hold them."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from onnx import TensorProto, external_data_helper, helper, numpy_helper
from torch import Tensor

from imae import __version__
from imae.layers.onnx_graph import OnnxGraph, Size
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import Buffer, write_atomically
from imae.prototxt_like.wire import header

OLDEST_OPSET = 13
LARGEST_FILE = 2**31 - 2**20
"""Bytes of a model in one file; protobuf holds 2 GiB."""
_SMALL = 1024
"""Bytes of a constant, such as a shape, that stays in the model."""
_GRAPH, _INITIALIZER, _RAW_DATA = (
    kind.DESCRIPTOR.fields_by_name[field].number
    for kind, field in ((onnx.ModelProto, "graph"), (onnx.GraphProto, "initializer"), (TensorProto, "raw_data"))
)
_TYPES = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.float32): TensorProto.FLOAT}

Shapes = Mapping[str, tuple[Size, ...]]


@cache
def newest_opset() -> int:
    """Return the newest version of ONNX's operators that both onnx and ONNX Runtime, as installed, know."""
    import onnxruntime

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [value], [output])
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    for opset in range(onnx.defs.onnx_opset_version(), OLDEST_OPSET, -1):
        try:
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
            model.ir_version = helper.find_min_ir_version_for(model.opset_import)
            onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        except Exception:  # of several kinds of ONNX Runtime's own
            continue
        return opset
    return OLDEST_OPSET


def check_opset(opset: int) -> None:
    """Raise InputError unless it is one that nets can be exported with."""
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise InputError(f"opset must be {OLDEST_OPSET} to {newest}, not {opset}")


def make_model(
    graph: OnnxGraph,
    name: str,
    inputs: Shapes,
    outputs: Mapping[str, tuple[Size | None, ...] | None],
    metadata: Mapping[str, str],
    types: Mapping[str, type[np.generic]] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Return the checked model without its large constants; `types` are those of inputs, float32 unless given."""
    light = {name: value for name, value in graph.constants.items() if value.nbytes <= _SMALL}
    heavy = [
        helper.make_tensor_value_info(name, _TYPES.get(value.numpy().dtype, TensorProto.INT64), value.shape)
        for name, value in graph.constants.items()
        if name not in light
    ]
    given = [
        helper.make_tensor_value_info(name, _TYPES[np.dtype(types.get(name, np.float32))], shape)
        for name, shape in inputs.items()
    ]
    onnx_graph = helper.make_graph(
        graph.nodes,
        name or "net",
        [*given, *heavy],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [_tensor(name, value) for name, value in light.items()],
    )
    opsets = [helper.make_opsetid("", graph.opset)]
    model = helper.make_model(
        onnx_graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # for runtimes older than the onnx installed here
        producer_name="imae",
        producer_version=__version__,
        doc_string=f"{name}, with the weights of its Caffe layers",
    )
    helper.set_model_props(model, dict(metadata))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    del model.graph.input[len(given) :]
    return model


def write_model(path: Path, model: onnx.ModelProto, constants: Mapping[str, Tensor]) -> None:
    """Write the model with its large constants, in `path`.data beside it if they are too large for one file.

    Raises InputError if the files cannot be written.
    """
    data = path.with_name(f"{path.name}.data")
    small = {tensor.name for tensor in model.graph.initializer}
    heavy = {name: value for name, value in constants.items() if name not in small}
    if model.ByteSize() + sum(value.nbytes for value in heavy.values()) <= LARGEST_FILE:
        write_atomically(path, _whole(model, heavy))
        data.unlink(missing_ok=True)
        return
    offset = 0
    for name, value in heavy.items():
        tensor = _described(name, value)
        tensor.raw_data = b"elsewhere"  # for a moment, as external_data_helper asks for it
        external_data_helper.set_external_data(tensor, data.name, offset, value.nbytes)
        tensor.ClearField("raw_data")
        model.graph.initializer.append(tensor)
        offset += value.nbytes
    write_atomically(data, map(_bytes, heavy.values()))
    write_atomically(path, model.SerializeToString())


def rewrite_model(path: Path, model: onnx.ModelProto) -> None:
    """Write a model that has all constants in itself, as `write_model` does."""
    constants = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensor for tensor in constants if tensor.ByteSize() <= _SMALL)
    small = {tensor.name for tensor in model.graph.initializer}
    heavy = {tensor.name: numpy_helper.to_array(tensor) for tensor in constants if tensor.name not in small}
    write_model(path, model, {name: torch.from_numpy(value.copy()) for name, value in heavy.items()})


def _whole(model: onnx.ModelProto, heavy: Mapping[str, Tensor]) -> Iterator[Buffer]:
    """The model as `SerializeToString` gives it, with its large constants, of which no copy is made."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    graph = model.graph.SerializeToString()
    heads = {name: _head(name, value) for name, value in heavy.items()}
    yield rest.SerializeToString()
    yield header(_GRAPH, len(graph) + sum(len(head) + heavy[name].nbytes for name, head in heads.items()))
    yield graph
    for name, head in heads.items():
        yield head
        yield _bytes(heavy[name])


def _head(name: str, value: Tensor) -> bytes:
    """What a graph has of a constant before its values."""
    described = _described(name, value).SerializeToString() + header(_RAW_DATA, value.nbytes)
    return header(_INITIALIZER, len(described) + value.nbytes) + described


def _described(name: str, value: Tensor) -> TensorProto:
    """A constant without its values."""
    return TensorProto(name=name, dims=value.shape, data_type=_tensor("", value[:0]).data_type)


def _bytes(value: Tensor) -> memoryview:
    return value.cpu().contiguous().numpy().data.cast("B")


def _tensor(name: str, value: Tensor) -> TensorProto:
    return numpy_helper.from_array(value.cpu().contiguous().numpy(), name)
