"""Export to ONNX: the net that predicts, with open sizes where it allows them."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imae import __version__
from imae.layers.data.input import Input
from imae.layers.layer import TEST, describe
from imae.layers.normalization.batch_norm import BatchNorm
from imae.layers.normalization.bn import BN
from imae.layers.onnx_graph import OnnxGraph, Size
from imae.layers.recurrent.recurrent import Recurrent
from imae.layers.values import as_tensor
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.onnx_model import check_opset, make_model, newest_opset, write_model
from imae.nets.onnx_preprocess import ImageOptions, Images, images_of
from imae.nets.onnx_simplify import drop_identities, drop_unread_constants, fold
from imae.nets.onnx_sizes import Open, Sizes, find_open_axes, larger, open_sizes
from imae.nets.onnx_whole import note
from imae.nets.state import with_stages
from imae.nets.undisturbed import undisturbed
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import check_regular
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import read_net
from imae.prototxt_like.weights import open_weights


@dataclass
class OnnxReport:
    """What `export_onnx` wrote."""

    path: Path
    inputs: dict[str, tuple[Size, ...]]  # by name; "N": any batch size, "H", "W": any height and width, "T": any time
    outputs: dict[str, tuple[Size, ...]]
    nodes: int
    constants: int  # how many numbers the weights and other constants hold
    opset: int
    net: Net  # the net that predicts, whose form the model is
    sizes: Sizes  # the open sizes of its inputs, and why others are fixed
    values: list[str]  # the names of the net's values in the model
    states: dict[str, tuple[str, str]] = field(default_factory=dict)  # by output: input of the next pass, and layer
    images: dict[str, Images] = field(default_factory=dict)  # what happens to those of inputs before the net sees them

    @property
    def by_batch(self) -> list[str]:
        """Why an image's results depend on the others of its batch."""
        layers = (step.layer for step in self.net.steps if isinstance(step.layer, BatchNorm | BN))
        return [str(layer.error("normalises by its statistics")) for layer in layers if not layer.use_global]


@dataclass
class _Built:
    """A graph, the names of the net's values, and for each layer the nodes and constants that it added."""

    graph: OnnxGraph
    values: list[str]
    parts: list[tuple[str, list[bytes], dict[str, Tensor]]]
    """What to say if the nodes, or the constants, of a layer depend on a size; and these."""

    def first_difference(self, other: "_Built") -> str | None:
        """Return what to say of the first layer whose part is another."""
        for (reason, nodes, constants), (_, others, values) in zip(self.parts, other.parts, strict=True):
            if nodes != others or constants.keys() != values.keys():
                return reason
            if any(not _same(value, values[name]) for name, value in constants.items()):
                return reason
        return None


def export_onnx(
    net: Net | NetParameter | str | Path,
    weights: NetParameter | str | Path | None,
    path: str | Path,
    *,
    shape: Sequence[int] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
    stages: Sequence[str] = (),
    folder: Path | None = None,
    include_transform: bool = False,
    preprocess: bool | ImageOptions = False,
    opset: int | None = None,
    dynamic: Sequence[str] = ("batch",),
    fold_channels: bool = True,
    continuous: bool = False,
    labels: Sequence[str] = (),
    allow_python: bool = False,
    skip_broken: bool = False,
) -> OnnxReport:
    """Write the net that predicts (`imae.nets.deploy`, which `shape`, `shapes`, `outputs` and `folder` are for) to
    `path`; weights that one file cannot hold go to `path`.data. A prototxt's include and exclude rules choose its
    layers by `stages`.

    `weights` are a caffemodel's, or those in a given Net if None. The sizes of `dynamic` (batch, height, width) stay
    open; a batch that a layer ties to another size is fixed, as the report says. The graph takes images as the net
    does: with the mean removed, and scaled; with `include_transform` it takes pixels, 0 to 255, of the window that the
    net sees, and does that itself as the data layer's `transform_param` says; with `preprocess` it takes images as
    files have them, uint8 N x H x W x C (`imae.nets.onnx_preprocess`). With `fold_channels` BatchNorm, Scale and Bias
    become part of the layer before them; with `continuous` recurrent layers take their cont as 1 throughout. The names
    `labels` of the classes go into the metadata. `opset` is the newest that is installed and runs, unless given;
    `allow_python` and `skip_broken` are as for `Net`, and Python layers add their own nodes.

    Raises InputError for a layer without ONNX form or without weights, for a height or width that cannot stay open, and
    as `deploy` does, before anything is written.
    """
    check_opset(opset or newest_opset())
    source = net
    if stages:
        if isinstance(net, Net):
            raise InputError(f'net "{net.name}": is built, and has the stages that it was built with')
        if not isinstance(net, NetParameter):
            folder = folder or Path(net).parent
        source = with_stages(net if isinstance(net, NetParameter) else read_net(net), stages)
    predictor = _predictor(source, weights, shape, outputs, folder, shapes or {}, allow_python, skip_broken)
    opset = opset or min(newest_opset(), *(step.layer.last_opset for step in predictor.steps))
    made = list(dict.fromkeys(outputs or predictor.outputs))
    _check_labels(predictor, made, labels)
    images = _images(predictor, source, folder, preprocess) if preprocess or include_transform else {}
    fixed = any(of.fixes_window for of in images.values())
    sizes = open_sizes(predictor, [name for name in dynamic if name == "batch" or not fixed])

    def build() -> _Built:
        return _build(predictor, made, sizes, images, opset, continuous)

    built = _settled(predictor, sizes, build)
    for dimension, reason in sizes.closed.items():
        if dimension != "batch":
            raise InputError(f'net "{predictor.name}": its {dimension} cannot stay open: {reason}')
    graph, values = built.graph, built.values
    ends = [values[predictor.newest[name]] for name in made] + list(graph.outputs)
    inputs = {
        name: images[name].shape(shape) if name in images else shape
        for name, index in predictor.input_values.items()
        if not (continuous and _is_cont(predictor, index))
        for shape in [sizes.shape(name, predictor.shapes[index])]
    } | graph.inputs
    drop_identities(graph, ends, inputs)
    if fold_channels:
        fold(graph, ends)
    drop_unread_constants(graph)
    metadata = _metadata(predictor, [net, weights], labels, images)
    types = {name: np.uint8 for name, of in images.items() if of.raw}
    given = {values[index]: _given_shape(predictor, sizes, index) for index in map(predictor.newest.__getitem__, made)}
    given |= {name: graph.inputs[before] for name, (before, _) in graph.outputs.items()}
    model = make_model(graph, predictor.name, inputs, given, metadata, types)
    write_model(Path(path), model, graph.constants)
    return OnnxReport(
        Path(path),
        {value.name: _shape(value) for value in model.graph.input},
        {value.name: _shape(value) for value in model.graph.output},
        len(graph.nodes),
        sum(value.numel() for value in graph.constants.values()),
        opset,
        predictor,
        sizes,
        values,
        graph.outputs,
        images,
    )


def compare_with_onnxruntime(path: str | Path, net: Net, images: np.ndarray | Tensor | Mapping[str, Any]) -> float:
    """Return the largest absolute difference between the outputs of the model at `path`, run on the CPU, and of `net`.

    `images` (B x C x H x W, as the net takes them) go to the one input, or a mapping gives each input by name; hidden
    values begin as zeros. Compared are the blobs that the model gives out. Raises InputError if they are not in `net`,
    or `images` do not fit.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {given.name: given.shape for given in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    names = [name for name in names if f"{name.removesuffix('_T')}_0" not in taken]  # hidden values are no blobs
    # An output that is made in place of an input is called INPUT/LAYER, or INPUT/seen.
    blobs = [name if name in net.newest else name.rpartition("/")[0] or name for name in names]
    predictor = _predictor(net, None, (), blobs, None, {}, allow_python=False, skip_broken=False)
    if not isinstance(images, Mapping):
        if len(predictor.inputs) != 1:
            raise InputError(f'net "{net.name}": has the inputs {", ".join(predictor.inputs)}; give each by name')
        images = {predictor.inputs[0]: images}
    with undisturbed(predictor):  # whose weights are the net's
        predictor.forward(**images)
        expected = [predictor.blobs[blob].double().cpu().numpy().copy() for blob in blobs]
    feeds = {name: as_tensor(value, f'input "{name}"').detach().cpu().float().numpy() for name, value in images.items()}
    sizes = {
        size: number
        for name in taken.keys() & feeds.keys()
        for size, number in zip(taken[name], feeds[name].shape, strict=True)
    }
    begun = {name: np.zeros([sizes.get(size, size) for size in shape], np.float32) for name, shape in taken.items()}
    actual = session.run(names, {name: feeds.get(name, zeros) for name, zeros in begun.items()})
    return max(float(np.abs(value - wanted).max(initial=0)) for value, wanted in zip(actual, expected, strict=True))


def _predictor(
    source: Net | NetParameter | str | Path,
    weights: NetParameter | str | Path | None,
    shape: Sequence[int],
    outputs: Sequence[str],
    folder: Path | None,
    shapes: Mapping[str, Sequence[int]],
    allow_python: bool,
    skip_broken: bool,
) -> Net:
    """The deployed net with its weights, of which a damaged file is told of before data that may be missing."""
    stored = open_weights(weights) if isinstance(weights, str | Path) else weights
    param = deploy(source, shape=shape, shapes=shapes, outputs=outputs, folder=folder, skip_broken=skip_broken)
    settings: dict[str, Any] = {"folder": folder, "allow_python": allow_python}
    if isinstance(source, Net):
        context = source.context
        settings = {"folder": folder or context.folders[-1], "allow_python": allow_python or context.allow_python}
        settings |= {"device": context.device, "dtype": context.dtype, "tf32": None}
    elif folder is None and not isinstance(source, NetParameter):
        settings["folder"] = Path(source).parent
    with _naming(shape):
        predictor = Net(param, TEST, backward=False, filled=False, **settings)
        if isinstance(source, Net) and stored is None:
            predictor.share_weights(source)
        kept = predictor.copy_weights(stored).kept if stored is not None else []
    if kept:
        raise InputError(f'net "{predictor.name}": the weights lack the layers {", ".join(kept)}')
    if stored is None and not isinstance(source, Net) and predictor.params:
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


def _value_names(net: Net, graph: OnnxGraph, images: Collection[str]) -> list[str]:
    """A name for each value: its blob's for an input and for the last value of that name, BLOB/LAYER for the others.

    What the net sees of images that the model prepares is INPUT/seen.
    """
    producer = {top: step.layer.name for step in net.steps for top in step.tops}
    seen = {net.input_values[name]: "seen" for name in images}
    producer |= seen
    named = set({**net.newest, **net.input_values}.values()) - seen.keys()
    return [name if i in named else graph.name(f"{name}/{producer[i]}") for i, name in enumerate(net.names)]


def _images(
    predictor: Net, source: Net | NetParameter | str | Path, folder: Path | None, preprocess: bool | ImageOptions
) -> dict[str, Images]:
    """What happens to the images of each input that takes some."""
    options = preprocess if isinstance(preprocess, ImageOptions) else ImageOptions()
    windows = {name: predictor.shapes[index][1:] for name, index in predictor.input_values.items()}
    found = {
        name: images_of(source, name, window, folder, raw=bool(preprocess), options=options)
        for name, window in windows.items()
    }
    if preprocess and not any(found.values()):
        raise InputError(f'net "{predictor.name}": no input of it takes images, N x C x H x W, to prepare')
    return {name: images for name, images in found.items() if images is not None}


def _build(
    net: Net, made: Sequence[str], sizes: Sizes, images: Mapping[str, Images], opset: int, continuous: bool
) -> _Built:
    """The graph of the net as it is now shaped, with the open axes of `sizes`."""
    names = _value_names(net, OnnxGraph(net.names), images)
    read = {bottom for step in net.steps for bottom in step.bottoms} | {net.newest[name] for name in made}
    graph = OnnxGraph(
        net.names,
        opset=opset,
        open_axes={name: axes for name, axes in zip(names, sizes.axes, strict=True) if axes},
        unread={name for index, name in enumerate(names) if index not in read},
        continuous=continuous,
    )
    values = _value_names(net, graph, images)
    for name, of in images.items():
        graph.node("Identity", [of.to_onnx(graph, name)], [values[net.input_values[name]]])
    parts = []
    for step in net.steps:
        if not isinstance(step.layer, Input):
            nodes, constants, graph.whole = len(graph.nodes), len(graph.constants), False
            bottoms, tops = ([values[i] for i in indices] for indices in (step.bottoms, step.tops))
            step.layer.to_onnx(graph, bottoms, tops)
            if graph.whole:
                note(step.layer.param, graph, nodes, bottoms, tops)
            added = [node.SerializeToString() for node in graph.nodes[nodes:]]
            reason = str(step.layer.error("its ONNX form depends on it"))
            parts.append((reason, added, dict(list(graph.constants.items())[constants:])))
    return _Built(graph, values, parts)


def _settled(net: Net, sizes: Sizes, build: Callable[[], _Built]) -> _Built:
    """Build the graph, and build it for larger inputs; fix those sizes for which a layer's nodes are others then."""
    while True:
        find_open_axes(net, sizes)
        built = build()
        fixed = next((found for size in sizes.opened if (found := _differing(net, size, built, build))), None)
        if fixed is None:
            return built
        sizes.fix(*fixed)


def _differing(net: Net, size: Open, built: _Built, build: Callable[[], _Built]) -> tuple[str, str] | None:
    """The dimension of `size` and why it must be fixed, if it must."""
    for step in {size.steps[0], size.steps[-1]}:
        with larger(net, size.slots, step):
            if (reason := built.first_difference(build())) is not None:
                return size.dimension, reason
    return None


def _given_shape(net: Net, sizes: Sizes, index: int) -> tuple[Size | None, ...] | None:
    """The shape of a value, without a number where it is open and has no name; None where values decide it."""
    varying: set[int] = set()
    for step in net.steps:
        if step.layer.tops_vary or not varying.isdisjoint(step.bottoms):
            varying.update(step.tops)
    if index in varying:
        return None
    return tuple(sizes.axes[index].get(axis, size) or None for axis, size in enumerate(net.shapes[index]))


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _is_cont(net: Net, index: int) -> bool:
    """Whether a value is read as cont by recurrent layers alone."""
    places = [(step.layer, i) for step in net.steps for i, bottom in enumerate(step.bottoms) if bottom == index]
    return bool(places) and all(isinstance(layer, Recurrent) and i == 1 for layer, i in places)


def _check_labels(net: Net, outputs: Sequence[str], labels: Sequence[str]) -> None:
    """Raise InputError if names of classes were given, and no output has as many."""
    shapes = {name: net.shape(name) for name in outputs}
    if labels and not any(len(labels) in shape[1:] for shape in shapes.values()):
        given = ", ".join(f"{name} {describe(shape)}" for name, shape in shapes.items())
        raise InputError(f'net "{net.name}": {counted(len(labels), "label")} do not fit its outputs: {given}')


def _metadata(
    predictor: Net, sources: Sequence[object], labels: Sequence[str], images: Mapping[str, Images]
) -> dict[str, str]:
    """What the model says of itself: see docs/onnx.md."""
    hashes = {}
    for source in sources:
        if isinstance(source, str | Path):
            check_regular(source)
            with Path(source).open("rb") as file:
                hashes[Path(source).name] = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {"imae.version": __version__, "imae.net": predictor.name, "imae.sources": json.dumps(hashes)}
    if labels:
        metadata["imae.labels"] = json.dumps(list(labels))
    if images:
        metadata["imae.images"] = json.dumps({name: of.describe() for name, of in images.items()})
    return metadata


def _shape(value: Any) -> tuple[Size, ...]:
    """The sizes of a value, "?" where one is open without a name."""
    dims = value.type.tensor_type.shape.dim
    return tuple("?" if dim.dim_param.startswith("unk__") else dim.dim_param or dim.dim_value or "?" for dim in dims)
