"""What can be said of a net before anything runs: shapes, parameters, weights that fit, and what stands in the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from imae.layers.data.data_layer import DataLayer
from imae.layers.layer import TEST, TRAIN, Blob, Context, Layer, Shape, Shapes
from imae.layers.onnx_graph import OnnxGraph
from imae.layers.registry import registry
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.state import filter_layers, set_state
from imae.prototxt_like.blobs import Stored
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.known_names import FORK_LAYERS
from imae.prototxt_like.schema import LayerParameter, NetParameter, Phase
from imae.prototxt_like.text import read_net_past_unknown_names
from imae.prototxt_like.weights import open_weights

_FILES = ("source", "mean_file", "noise_file")
"""Fields of layers' settings that name files to be read."""


@dataclass
class LayerCheck:
    """What is known of a layer."""

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    shapes: list[Shape | None]
    """Of the tops; None where they cannot be told."""
    parameters: int | None = None
    """How many numbers it learns, those included that it shares; None where it could not be built."""
    needs: str = ""
    """Files that it reads and that are not here."""
    taken_from: str = ""
    """What tells its shapes without that file, if anything does."""
    whose: str = ""
    """The fork of Caffe that its type is of, if it is not BVLC's."""
    fault: str = ""
    """Why it cannot be built."""
    weights: str = ""
    """Whether the weights fit: `match`, `missing`, or how they do not; empty where there is nothing to compare."""

    @property
    def misfit(self) -> str:
        """How the weights do not fit; empty where they do."""
        return "" if self.weights in ("match", "missing") else self.weights


@dataclass
class Verdict:
    """Whether something can be done with a net."""

    possible: bool | None
    """None: cannot be told here."""
    reasons: list[str] = field(default_factory=list)
    """Why not, or on what condition."""
    obstacles: list[str] = field(default_factory=list)
    """Those of the reasons that are mistakes or layers in the way."""


@dataclass
class NetCheck:
    """What is known of a net in one phase, and whether it can be trained, in TRAIN, and exported, in TEST."""

    name: str
    phase: str
    layers: list[LayerCheck]
    parameters: int
    """How many numbers the layers that could be built learn, shared ones once."""
    fixed: int
    """How many they hold besides: statistics, and those whose lr_mult is 0."""
    unknown_names: list[str]
    """Fields, and values of fields, that the schema lacks, and whose they are."""
    left_over: list[str]
    """Layers of the weights that the net has no place for."""
    training: Verdict
    export: Verdict

    @property
    def obstacles(self) -> list[str]:
        """All that stands in the way, each once."""
        faults = [layer.fault for layer in self.layers if layer.fault]
        misfits = [layer.misfit for layer in self.layers if layer.misfit]
        found = [*self.unknown_names, *faults, *misfits, *self.training.obstacles, *self.export.obstacles]
        return list(dict.fromkeys(found))


def check_net(
    path: str | Path,
    phase: int = TRAIN,
    weights: str | Path | None = None,
    *,
    level: int | None = None,
    stages: Sequence[str] = (),
    shape: Sequence[int] = (),
    allow_python: bool = False,
) -> NetCheck:
    """Say what is known of the net of a prototxt: of the layers that a `Net` has in `phase`, at `level`, with `stages`.

    What cannot be built is noted and left out, so far as shapes can be followed. A data layer without its files gives
    images of `shape` (C, H, W), else of the size that its settings tell. `weights` are compared by the layers' names.
    Raises InputError for what is no prototxt, or no weights.
    """
    param, unknown_names = read_net_past_unknown_names(path)
    nets: dict[int, _PartialNet] = {}
    for each in (TRAIN, TEST):
        device = torch.device("cpu" if each == phase else "meta")
        context = Context(phase=each, device=device, folders=(Path(), Path(path).parent), allow_python=allow_python)
        nets[each] = _PartialNet(param, context, level, stages, tuple(shape))
    stored = open_weights(weights) if weights is not None else None
    left_over = {each: net.compare(stored) if stored else [] for each, net in nets.items()}
    net = nets[phase]
    return NetCheck(
        name=param.name,
        phase=Phase.Name(phase),
        layers=net.checks,
        parameters=_count(net.learnable),
        fixed=_count(net.learnable, learning=False),
        unknown_names=unknown_names,
        left_over=left_over[phase],
        training=nets[TRAIN].verdict(nets[TRAIN].hindering_training),
        export=nets[TEST].verdict(nets[TEST].hindering_export),
    )


class _PartialNet(Net):
    """A net as far as it can be built: the tops of other layers are `unknown`."""

    def __init__(
        self, param: NetParameter, context: Context, level: int | None, stages: Sequence[str], images: Shape
    ) -> None:
        self._whole = NetParameter()
        self._whole.CopyFrom(param)
        set_state(self._whole.state, context.phase, level, stages)
        self.param, self.context, self.name = filter_layers(self._whole), context, param.name
        self.names, self.shapes, self.newest, self.steps, self._users = [], [], {}, [], {}
        self.unknown: set[int] = set()
        self.without_data = NetParameter(name=param.name)
        """The layers that were built, Inputs of the same shapes in place of those that read data."""
        self.checks = [self._place(layer, images) for layer in self.param.layer]
        self.learnable, self._shared, self._no_derivative = [], set(), None
        self.contradiction = ""
        try:
            self.params = self._collect_params()
            self.learnable = self._share_params()
            self._plan_backward()
        except InputError as error:
            self.contradiction = str(error)
            self.params = {step.layer.name: step.layer.blobs for step in self.steps if step.layer.blobs}

    def _place(self, param: LayerParameter, images: Shape) -> LayerCheck:
        """Build the layer, if that can be done, and say what is known of it."""
        check = LayerCheck(param.name, param.type, list(param.bottom), list(param.top), [None] * len(param.top))
        check.whose = FORK_LAYERS.get(param.type, "") if param.type not in registry else ""
        reads_data = issubclass(registry.get(param.type, Layer), DataLayer)
        followed = not any(self.newest.get(bottom) in self.unknown for bottom in param.bottom)
        shapes: Shapes | None = None
        try:
            if not followed:
                self._connected(param)
            else:
                self.steps.append(self._add_step(param))
                shapes = [self.shapes[top] for top in self.steps[-1].tops]
                check.parameters = _count(self.steps[-1].layer.blobs)
        except InputError as error:
            check.needs = self._absent(param)
            check.fault = "" if check.needs and param.type in registry else str(error)
            if reads_data:
                shapes, check.taken_from = _shapes_by_settings(param, images)
        if shapes and reads_data:
            inputs = LayerParameter(name=param.name, type="Input", top=param.top)
            for shape in shapes:
                inputs.input_param.shape.add(dim=shape)
            self.without_data.layer.append(inputs)
            if check.parameters is None:
                self.steps.append(self._add_step(inputs))
                check.parameters = 0
        elif shapes is not None:
            self.without_data.layer.append(param)
            for rules in ("include", "exclude"):  # which have been followed
                self.without_data.layer[-1].ClearField(rules)
        else:
            for top in param.top:
                self.newest[top] = len(self.names)
                self.unknown.add(len(self.names))
                self.names.append(top)
                self.shapes.append(())
        if shapes is not None:
            check.shapes = list(shapes[: len(param.top)])
        return check

    def _absent(self, param: LayerParameter) -> str:
        """The files that the layer's settings name and that are not there."""
        messages = [own for _, own in param.ListFields() if hasattr(own, "ListFields")]
        named = [
            str(getattr(own, file)) for own in messages for file in _FILES if file in own.DESCRIPTOR.fields_by_name
        ]
        return ", ".join(file for file in named if file and not self.context.find(file).exists())

    def compare(self, stored: Stored) -> list[str]:
        """Note in the checks how the stored weights fit; return the layers of theirs that the net has no place for."""
        given = {layer.name: layer.blobs for layer in stored.message.layer if layer.blobs}
        for check in self.checks:
            if check.name not in self.params:
                continue
            check.weights = "match" if check.name in given else "missing" if check.name in self.owners else ""
            try:
                if check.name in given:
                    self.copies(check.name, given[check.name], stored)
            except InputError as error:
                check.weights = str(error)
        unbuilt = {check.name for check in self.checks if check.parameters is None}
        return [name for name in given if name not in self.params and name not in unbuilt]

    def verdict(self, hindering: Callable[[], tuple[list[str], list[str]]]) -> Verdict:
        """Whether what `hindering` finds the reasons against, and which of them are obstacles, can be done."""
        if not any(not step.bottoms for step in self.steps) and not any(check.needs for check in self.checks):
            return Verdict(False, [f"phase {Phase.Name(self.context.phase)} has no data"])
        obstacles = [check.fault for check in self.checks if check.fault]
        obstacles += [check.misfit for check in self.checks if check.misfit]
        obstacles += [self.contradiction] if self.contradiction else []
        if obstacles:
            return Verdict(False, obstacles, obstacles)
        needs = list(dict.fromkeys(f"needs {check.needs}" for check in self.checks if check.needs))
        if any(None in check.shapes for check in self.checks):
            return Verdict(None, needs)
        benign, obstacles = hindering()
        return Verdict(not benign and not obstacles, [*obstacles, *benign] or needs, obstacles)

    def hindering_training(self) -> tuple[list[str], list[str]]:
        """Why it cannot be trained: what it lacks, and which layer is in the way."""
        if not any(any(step.loss_weights) for step in self.steps):
            return ["no layer of it is a loss"], []
        if not any(blob.lr_mult for step in self.steps if step.backward for blob in step.layer.blobs):
            return ["nothing that learns leads to its loss"], []
        return [], [str(self._refusal())] if self._no_derivative else []

    def hindering_export(self) -> tuple[list[str], list[str]]:
        """Why it cannot be exported: what it lacks, and which layers are in the way."""
        lacking = [check.name for check in self.checks if check.weights == "missing"]
        if lacking:
            return [], [f"the weights lack the layers {', '.join(lacking)}"]
        try:
            context, folder = self.context, self.context.folders[-1]
            net = Net(
                deploy(self.without_data),
                TEST,
                device="meta",
                backward=False,
                folder=folder,
                allow_python=context.allow_python,
            )
        except InputError as error:
            return [str(error)], []
        return [], list(_without_onnx(net))


def _count(blobs: Sequence[Blob], *, learning: bool = True) -> int:
    """How many numbers the blobs hold that learn, or that do not."""
    return sum(blob.data.numel() for blob in blobs if bool(blob.lr_mult) == learning)


def _without_onnx(net: Net) -> Iterator[str]:
    """What the layers without ONNX form say."""
    graph = OnnxGraph(net.names)
    values = [graph.name(name) for name in net.names]
    for step in net.steps:
        if step.layer.type != "Input":
            try:
                step.layer.to_onnx(graph, [values[i] for i in step.bottoms], [values[i] for i in step.tops])
            except InputError as error:
                yield str(error)


def _shapes_by_settings(param: LayerParameter, images: Shape) -> tuple[Shapes | None, str]:
    """The shapes of a data layer's tops as its settings tell them, or with the `images` given, and what told them."""
    settings = {
        "Data": param.data_param,
        "ImageData": param.image_data_param,
        "WindowData": param.window_data_param,
        "Cifar10Data": param.cifar10_data_param,
        "MarsData": param.mars_data_param,
        "HDF5Data": param.hdf5_data_param,
    }
    own, transform = settings.get(param.type), param.transform_param
    if own is None or own.batch_size < 1 or len(param.top) > 2:
        return None, ""
    size, told = (transform.crop_size, transform.crop_size), "crop_size"
    channels = 3
    if param.type == "ImageData":
        channels = 3 if own.is_color else 1
        if not transform.crop_size:
            size, told = (own.new_height, own.new_width), "new_height and new_width"
    elif param.type == "Cifar10Data" and not transform.crop_size:
        size, told = (32 + 2 * own.pad,) * 2, "CIFAR-10"
    elif param.type == "Data":
        channels = 1 if transform.force_gray else 3
        if not (transform.force_gray or transform.force_color):
            told += ", taking three channels"
    if images:
        shape, told = images, "the shape given"
    elif min(size) and param.type != "HDF5Data":
        shape = (channels, *size)
    else:
        return None, ""
    return [(own.batch_size, *shape), (own.batch_size,)][: len(param.top)], told
