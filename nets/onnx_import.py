"""Back from ONNX: a model's nodes as Caffe's layers, and its constants as their blobs."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.inliner import inline_local_functions

from imae.layers.layer import TEST, Shape, describe
from imae.nets.net import Net
from imae.nets.onnx_importing import Importing, NoLayer
from imae.nets.onnx_nodes import LAYERS
from imae.nets.onnx_prepared import Prepared, prepared
from imae.nets.onnx_recurrent_nodes import inner_states
from imae.nets.onnx_session import giving_out, run, start_session
from imae.nets.onnx_verify import ROUNDING, TOLERANCE, in_float64, relative_difference, standard_deviation
from imae.nets.onnx_whole import noted
from imae.prototxt_like.binary import write_binaryproto, write_caffemodel
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import check_regular, write_atomically
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import format_text
from imae.prototxt_like.wire import LARGEST

_OPEN = {"N": 1, "T": 4}
"""What sizes become that `export_onnx` left open: images or sequences of a batch, steps of a sequence."""


@dataclass
class ImportReport:
    """What `import_onnx` wrote."""

    prototxt: Path
    caffemodel: Path
    layers: int
    numbers: int
    """Of the weights."""
    difference: float
    """From the model in ONNX Runtime, the largest of any output, over the output's standard deviation."""
    undecided: list[str]
    """Outputs that differ by more, but in what rounding decides, as near ties of scores: left out of `difference`."""
    images: dict[str, str] = field(default_factory=dict)
    """By input: what the model does to images, which the net takes with that done."""


def import_onnx(path: Path, out: Path, *, shape: Sequence[int] = ()) -> ImportReport:
    """Write the model as `out`.prototxt and `out`.caffemodel, and compare the net with it on random input.

    Blobs have the names of the model's values. Sizes that are open become 1 for the batch, 4 for the steps of recurrent
    layers, and for images those of `shape` (C, H, W). Of a model that prepares its images (`imae export --preprocess`)
    the net begins behind that, and says how in a comment; a mean image is written as `out`.mean.binaryproto. Raises
    InputError for a node that no layer of Caffe's does, with the reason, and for a net that differs by more than
    TOLERANCE, before anything is written.
    """
    check_regular(path)
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("it has no node")
        model = inline_local_functions(model) if model.functions else model
    except Exception as error:  # of protobuf's, and onnx's own
        raise InputError(f"{path}: is no sound ONNX model: {' '.join(str(error).split())}") from error
    said = {entry.key: entry.value for entry in model.metadata_props}
    if precision := said.get("imae.precision"):
        raise InputError(
            f"{path}: its numbers are rounded to {precision}; import the float32 model that it was made of"
        )
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST:
        raise InputError(f"{path}: it has more than the 2 GiB that a caffemodel can have")
    readers = defaultdict[str, list[onnx.NodeProto]](list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    raw = _image_inputs(model, said.get("imae.images", "{}"))
    states, sizes = inner_states(model.graph, readers), _inputs(path, model, shape, raw)
    choices = _choices(model, sizes, readers)
    feeds: dict[str, NDArray[Any]]
    feeds = {name: _drawn(name, size, 1 if name in states else choices.get(name)) for name, size in sizes.items()}
    feeds |= {name: _pixels(name, sizes[name]) for name in raw} | _image_sizes(model, sizes)
    values = _values(path, model, feeds)
    images = {name: _prepared(path, name, model, readers, values) for name in raw}
    given = {name: value for name, value in feeds.items() if name not in states}
    given |= {name: values[how.seen] for name, how in images.items()}
    param, blobs = _translate(path, model, given, values, dict(readers), states, images)
    net = _built(path, param, blobs)
    outputs = [output.name for output in model.graph.output if output.name not in states.values()]
    difference, undecided = _compare(path, net, given, {name: values[name] for name in outputs})
    described = {}
    for number, (name, how) in enumerate(images.items()):
        mean = out.with_name(f"{out.name}.mean{number or ''}.binaryproto")
        if how.mean is not None and how.has_mean_image:
            write_binaryproto(how.whole_mean(values[how.seen].shape[1:])[None], mean)
        described[name] = how.describe(raw[name].get("channels", ""), mean)
    prototxt, caffemodel = (out.with_name(f"{out.name}.{ending}") for ending in ("prototxt", "caffemodel"))
    write_caffemodel(net.to_proto(), caffemodel)
    comments = [f'# Input "{name}": {what}\n' for name, what in described.items()]
    write_atomically(prototxt, "".join([*comments, format_text(param)]).encode())
    numbers = sum(value.size for of_layer in blobs.values() for value in of_layer)
    return ImportReport(prototxt, caffemodel, len(param.layer), numbers, difference, undecided, described)


def _image_inputs(model: onnx.ModelProto, metadata: str) -> dict[str, dict[str, Any]]:
    """The inputs that take images, uint8, each with what the metadata says of it."""
    said: Any = {}
    with suppress(ValueError):
        said = json.loads(metadata)
    raw = [value.name for value in model.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8]
    return {name: said.get(name) or {} if isinstance(said, dict) else {} for name in raw}


def _prepared(
    path: Path,
    name: str,
    model: onnx.ModelProto,
    readers: Mapping[str, Sequence[onnx.NodeProto]],
    values: Mapping[str, NDArray[Any]],
) -> Prepared:
    constants = {tensor.name for tensor in model.graph.initializer}
    found = prepared(name, readers, values, constants, {output.name for output in model.graph.output})
    if found is None:
        raise InputError(
            f'{path}: its input "{name}" is of UINT8, expected FLOAT, as blobs are, or images N x H x W x C that '
            "a Transpose and a Cast bring to float32 N x C x H x W first, as `imae export --preprocess` has them"
        )
    return found


def _inputs(
    path: Path, model: onnx.ModelProto, shape: Sequence[int], raw: Mapping[str, Mapping[str, Any]]
) -> dict[str, Shape]:
    """The inputs' shapes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name in constants:
            continue
        if kind.elem_type != onnx.TensorProto.FLOAT and value.name not in raw:
            name = onnx.TensorProto.DataType.Name(kind.elem_type)
            raise InputError(f'{path}: its input "{value.name}" is of {name}, expected FLOAT, as blobs are')
        sizes = [dim.dim_value or _OPEN.get(dim.dim_param, 0) for dim in kind.shape.dim]
        own = raw.get(value.name, {})
        window = own.get("window", ())  # of images of which that is cut out, or that become as large
        if shape and len(sizes) == len(shape) + 1:
            sizes[1:] = [*shape[1:], shape[0]] if value.name in raw else shape
        elif len(sizes) == 4 and len(window) == 2:
            sizes[1:3] = [size or part + 4 * ("cut" in own) for size, part in zip(sizes[1:3], window, strict=True)]
        sizes[:1] = [sizes[0] or 1] if sizes else []
        if 0 in sizes:
            raise InputError(
                f'{path}: its input "{value.name}" has open sizes, {describe(sizes)}; say which by --shape, as CxHxW'
            )
        inputs[value.name] = tuple(sizes)
    return inputs


def _drawn(name: str, shape: Shape, choices: int | None) -> NDArray[np.float32]:
    """Random input, of the numbers from 0 to `choices` - 1, the largest of them first, where it chooses."""
    generator = np.random.default_rng(len(name))
    if choices is None:
        return generator.standard_normal(shape).astype(np.float32)
    drawn = generator.integers(choices, size=shape).astype(np.float32)
    drawn.reshape(-1)[:1] = choices - 1
    return drawn


def _pixels(name: str, shape: Shape) -> NDArray[np.uint8]:
    return np.random.default_rng(len(name)).integers(256, size=shape, dtype=np.uint8)


def _image_sizes(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
    """Height, width and scale of an image, for inputs that Proposal reads as such."""
    nodes = model.graph.node
    layers = [found.layer for at in range(len(nodes)) if (found := noted(nodes, at))]
    taken = [layer.bottom[2] for layer in layers if layer.type == "Proposal"]
    sizes: NDArray[Any] = np.array([600, 800, 1, 1], np.float32)
    return {name: sizes[: math.prod(inputs[name])].reshape(inputs[name]) for name in taken if name in inputs}


def _choices(
    model: onnx.ModelProto, inputs: Mapping[str, Shape], readers: Mapping[str, Sequence[onnx.NodeProto]]
) -> dict[str, int]:
    """Among how many each input chooses that is made integers, or tells where sequences go on."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} | dict(inputs)
    found = {}
    for source in inputs:
        names = [source]
        for name in names:
            for node in readers.get(name, ()):
                if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
                    names.append(node.output[0])
                elif node.op_type == "Gather" and name == node.input[1]:
                    found[source] = sizes.get(node.input[0], (1,))[0]
                elif (node.op_type, name) in (("Compress", node.input[-1]), ("Scan", node.input[-1])):
                    found[source] = 2
    return found


def _values(path: Path, model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """All values of the model, by ONNX Runtime."""
    made = [name for node in model.graph.node for name in node.output if name]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with giving_out(path, copy, made) as whole:
        values = dict(zip(made, run(start_session(whole), path, feeds, made), strict=True))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return constants | values | dict(feeds)


def _translate(
    path: Path,
    model: onnx.ModelProto,
    feeds: Mapping[str, NDArray[Any]],
    values: dict[str, NDArray[Any]],
    readers: Mapping[str, Sequence[onnx.NodeProto]],
    states: Mapping[str, str],
    images: Mapping[str, Prepared],
) -> tuple[NetParameter, dict[str, list[NDArray[np.float32]]]]:
    """The layers, and the blobs of each."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    fixed = {tensor.name for tensor in graph.initializer}
    importing = Importing(values | dict(feeds), fixed, opset, readers, outputs, states)
    for name, value in feeds.items():
        importing.layer("Input", [], [name], input_param={"shape": [{"dim": value.shape}]})
    for name, how in images.items():
        importing.alias(name, how.seen)
        importing.done.update(how.made)
    constants, wrong = frozenset(fixed), []
    for at, node in enumerate(graph.node):
        if set(filter(None, node.output)) <= importing.done:
            continue
        found, is_fixed = noted(graph.node, at), all(name in fixed for name in node.input if name)
        if not found and (is_fixed or node.op_type in ("Shape", "Size", "Constant")):
            fixed.update(node.output)
            continue
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        translate = LAYERS.get(node.op_type)
        try:
            if found:
                found.add(importing, constants)
                continue
            if translate is None or node.domain not in ("", "ai.onnx"):
                raise NoLayer("no layer of Caffe's does that")
            translate(importing, list(node.input), list(node.output), settings)
        except NoLayer as error:
            wrong.append(f'node "{node.name or node.output[0]}" ({node.op_type}): {error}')
    for name in list(importing.pending):
        importing.settle(name)
    if wrong:
        others = f"; and {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
        ours = any(entry.key == "imae.version" for entry in model.metadata_props)
        advice = "; `imae export --outputs` can end before what does not come back" if ours else ""
        raise InputError(f"{path}: {wrong[0]}{others}{advice}")
    for name in outputs & fixed:
        importing.parameter(name)
    importing.finish()
    return NetParameter(name=graph.name, layer=importing.layers), importing.blobs


def _built(path: Path, param: NetParameter, blobs: Mapping[str, Sequence[NDArray[np.float32]]]) -> Net:
    """The net with its blobs."""
    net = Net(param, TEST, backward=False)
    for name, given in blobs.items():
        for blob, value in zip(net.params[name], given, strict=True):
            if math.prod(blob.shape) != value.size:
                raise InputError(f'{path}: layer "{name}" takes {describe(blob.shape)}, found {describe(value.shape)}')
            blob.data.copy_(torch.tensor(value).view(blob.shape))
    return net


def _compare(
    path: Path, net: Net, feeds: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> tuple[float, list[str]]:
    """The largest difference of an output, over its standard deviation, and those in which rounding alone is larger."""
    given: dict[str, Any] = dict(feeds)
    net.forward(**given)
    exact, largest, undecided = None, 0.0, []
    for name, value in expected.items():
        actual, spread = net.blobs[name].numpy(), standard_deviation(value)
        difference = relative_difference(actual, value, spread)
        if difference > TOLERANCE and exact is None:
            exact = in_float64(net)
            exact.forward(**given)
        if difference > TOLERANCE and exact is not None:
            rounding = relative_difference(actual, exact.blobs[name].numpy(), spread)
            if not difference <= ROUNDING * rounding:
                raise InputError(
                    f'{path}: its output "{name}", {describe(value.shape)}, differs from the net\'s, '
                    f"{describe(actual.shape)}, by {difference:.1e} of its standard deviation, more than {TOLERANCE:g}"
                )
            undecided.append(name)
        else:
            largest = max(largest, difference)
    return largest, undecided
