"""Export to ONNX: the net that predicts, for any batch size."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor

from imae import __version__
from imae.layers.data.image_set import ImageSetData, mean_image
from imae.layers.data.input import Input
from imae.layers.data.transform import Transform
from imae.layers.layer import TEST, Shape, describe
from imae.layers.onnx_graph import OnnxGraph
from imae.layers.values import as_tensor
from imae.nets.deploy import data_layer, deploy
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.schema import NetParameter


@dataclass
class OnnxReport:
    """What `export_onnx` wrote."""

    path: Path
    inputs: dict[str, tuple[int | str, ...]]
    """Shapes by name; "N" stands for any batch size."""
    outputs: dict[str, tuple[int | str, ...]]
    nodes: int
    constants: int
    """How many numbers the weights and other constants hold."""
    opset: int


def export_onnx(
    net: Net | NetParameter | str | Path,
    weights: NetParameter | str | Path | None,
    path: str | Path,
    *,
    shape: Sequence[int] = (),
    outputs: Sequence[str] = (),
    folder: Path | None = None,
    include_transform: bool = False,
    opset: int = 17,
    allow_python: bool = False,
    skip_broken: bool = False,
) -> OnnxReport:
    """Write the net that predicts (`imae.nets.deploy`, which `shape`, `outputs` and `folder` are for) to `path`.

    `weights` are a caffemodel's, or those in a given Net if None. The batch size stays open, as "N". The graph takes
    images as the net does: with the mean removed, and scaled; with `include_transform` it takes pixels, 0 to 255, of
    the window that the net sees, and does that itself as the data layer's `transform_param` says.
    `allow_python` and `skip_broken` are as for `Net`.

    Raises InputError, naming it, for a layer without ONNX form or without weights, and as `deploy` does.
    """
    if not 17 <= opset <= onnx.defs.onnx_opset_version():
        raise InputError(f"opset must be 17 to {onnx.defs.onnx_opset_version()}, not {opset}")
    predictor = _predictor(net, weights, shape, outputs, folder, allow_python, skip_broken)
    graph = OnnxGraph(predictor.names)
    inputs = dict(zip(predictor.inputs, _input_values(predictor), strict=True))
    values = _value_names(predictor, graph)
    shapes = {name: predictor.shapes[index] for name, index in inputs.items()}
    if include_transform:
        for name, index in inputs.items():
            if transform := _transform(net, name, folder):
                values[index] = transform.to_onnx(graph, name, shapes[name][1:])
    for step in predictor.steps:
        if not isinstance(step.layer, Input):
            step.layer.to_onnx(graph, [values[i] for i in step.bottoms], [values[i] for i in step.tops])
    made = [values[predictor.newest[name]] for name in outputs or predictor.outputs]
    model = _model(predictor, graph, shapes, made, opset)
    write_atomically(path, model.SerializeToString())
    return OnnxReport(
        Path(path),
        {value.name: _shape(value) for value in model.graph.input},
        {value.name: _shape(value) for value in model.graph.output},
        len(graph.nodes),
        sum(int(np.prod(constant.dims)) for constant in graph.constants.values()),
        opset,
    )


def compare_with_onnxruntime(path: str | Path, net: Net, images: np.ndarray | Tensor | Mapping[str, Any]) -> float:
    """Return the largest absolute difference between the outputs of the model at `path`, run on the CPU, and of `net`.

    `images` (B x C x H x W, as the net takes them) go to the one input, or a mapping gives each input by name. Compared
    are the outputs that the model has. Raises InputError if they are not in `net`, or `images` do not fit.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    # An output that is made in place of an input is called INPUT/LAYER.
    blobs = {name: name if name in net.newest else name.rpartition("/")[0] or name for name in names}
    predictor = _predictor(net, None, (), list(blobs.values()), None)
    if not isinstance(images, Mapping):
        if len(predictor.inputs) != 1:
            raise InputError(f'net "{net.name}": has the inputs {", ".join(predictor.inputs)}; give each by name')
        images = {predictor.inputs[0]: images}
    predictor.forward(**images)
    feeds = {name: as_tensor(value, f'input "{name}"').detach().cpu().float().numpy() for name, value in images.items()}
    actual = dict(zip(names, session.run(names, feeds), strict=True))
    return max(
        float(np.abs(actual[name] - predictor.blobs[blobs[name]].double().cpu().numpy()).max(initial=0))
        for name in names
    )


def _predictor(
    source: Net | NetParameter | str | Path,
    weights: NetParameter | str | Path | None,
    shape: Sequence[int],
    outputs: Sequence[str],
    folder: Path | None,
    allow_python: bool = False,
    skip_broken: bool = False,
) -> Net:
    """The deployed net with its weights."""
    param = deploy(source, shape=shape, outputs=outputs, folder=folder, skip_broken=skip_broken)
    with _naming(shape):
        if isinstance(source, Net):
            context = source.context
            predictor = Net(param, TEST, device=context.device, dtype=context.dtype, backward=False, tf32=None)
            predictor.share_weights(source)
        else:
            beside = folder or (None if isinstance(source, NetParameter) else Path(source).parent)
            predictor = Net(param, TEST, backward=False, folder=beside, allow_python=allow_python)
        kept = predictor.copy_weights(weights).kept if weights is not None else []
    if kept:
        raise InputError(f'net "{predictor.name}": the weights lack the layers {", ".join(kept)}')
    if weights is None and not isinstance(source, Net) and predictor.params:
        raise InputError(f'net "{predictor.name}": has learnable layers, but no weights were given')
    return predictor


@contextmanager
def _naming(shape: Sequence[int]) -> Iterator[None]:
    """Add the `shape` of the images, where one was given, to errors raised inside."""
    try:
        yield
    except InputError as error:
        if not shape:
            raise
        raise InputError(f"with images of {describe(shape)}: {error}") from None


def _input_values(net: Net) -> list[int]:
    """The values that the caller feeds, in the order of the net's inputs."""
    return [index for step in net.steps if isinstance(step.layer, Input) for index in step.tops]


def _value_names(net: Net, graph: OnnxGraph) -> list[str]:
    """A name for each value: its blob's for an input and for the last value of that name, BLOB/LAYER for the others."""
    producer = {top: step.layer.name for step in net.steps for top in step.tops}
    inputs = {net.names[index]: index for index in _input_values(net)}
    named = set({**net.newest, **inputs}.values())
    return [name if i in named else graph.name(f"{name}/{producer[i]}") for i, name in enumerate(net.names)]


def _transform(source: Net | NetParameter | str | Path, name: str, folder: Path | None) -> Transform | None:
    """What the data layer that gives the blob `name` does to its images; None for an input of another kind."""
    layer = data_layer(source, name, folder)
    if layer is None or layer.param.top[0] != name:
        return None
    param, mean = layer.param.transform_param, None
    if isinstance(layer, ImageSetData) and not param.mean_value and not param.HasField("mean_file"):
        mean = mean_image(layer.load(True)[0])
    return Transform(layer, random_crop=False, mirror=False, default_mean=mean)


def _model(
    net: Net, graph: OnnxGraph, inputs: Mapping[str, Shape], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    """The checked model; all inputs with the first one's batch size have it open, as "N"."""
    batch = next(iter(inputs.values()), ())[:1]
    open_shapes: dict[str, tuple[int | str, ...]] = {
        name: ("N", *shape[1:]) if shape[:1] == batch else shape for name, shape in inputs.items()
    }
    onnx_graph = helper.make_graph(
        graph.nodes,
        net.name or "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in open_shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(graph.constants.values()),
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        onnx_graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # for runtimes older than the onnx installed here
        producer_name="imae",
        producer_version=__version__,
        doc_string=f"{net.name}, with the weights of its Caffe layers",
    )
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _shape(value: ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
