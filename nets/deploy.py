"""From the net that was trained to the net that predicts: what Caffe calls a deploy prototxt."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from imae.layers.data.data_layer import DataLayer
from imae.layers.data.input import Input
from imae.layers.layer import TEST, Context, Layer, Shapes, describe
from imae.layers.loss.accuracy import Accuracy
from imae.layers.loss.infogain_loss import InfogainLoss
from imae.layers.loss.sample_loss import OnLogits
from imae.layers.loss.sigmoid_cross_entropy_loss import SigmoidCrossEntropyLoss
from imae.layers.registry import create_layer, registry
from imae.nets.net import Net
from imae.nets.state import filter_layers
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter
from imae.prototxt_like.text import did_you_mean, read_net

ShapesOf = Callable[[LayerParameter], Shapes]  # of the tops of a data layer


def deploy(
    net: Net | NetParameter | str | Path,
    *,
    shape: Sequence[int] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
    folder: Path | None = None,
    skip_broken: bool = False,
) -> NetParameter:
    """Return the TEST phase of `net` (or of a prototxt, read or its path) without data, losses and accuracies.

    - A data layer becomes an Input of images of `shape` (C, H, W), by default of the data's own shape; the data must
      then be there (in the working directory, in `folder`, or beside the prototxt), but for what `skip_broken` leaves
      out as `Net` does. In a net without data layers the images of its one Input get `shape`, in a batch of the same
      size. `shapes` gives whole shapes to inputs, by name.
    - A loss on logits becomes the Softmax, or the Sigmoid, inside it, with the top `prob` (LOSS_prob where there are
      several), unless the net has that already.
    - Outputs are the named blobs, else all that nothing reads. What they do not need is left out.

    Raises InputError for a net of the TRAIN phase, if the data cannot be read, for an unknown output, or for a `shape`
    where no Input, or more than one, could have it.
    """
    shapes = shapes or {}
    param, of_data = _of_net(net) if isinstance(net, Net) else _of_prototxt(net, folder, shapes, skip_broken)
    fed = [top for layer in param.layer if issubclass(_kind(layer), DataLayer | Input) for top in layer.top]
    _check_names(param.name, shapes, fed)
    layers = _predicting(param.layer)
    wanted = set(outputs) or _outputs(layers, param.layer)
    produced = {top for layer in layers for top in layer.top}
    for name in wanted - produced:
        raise InputError(
            f'net "{param.name}": no layer of its TEST phase has the top "{name}"{did_you_mean(name, produced)}'
        )
    if not wanted:
        raise InputError(f'net "{param.name}": its TEST phase predicts nothing')
    deployed = NetParameter(name=param.name)
    deployed.layer.extend(_needed(layers, wanted, lambda layer: _given(layer, shape) or of_data(layer)))
    if shape:
        _reshape(deployed, {layer.name for layer in layers if issubclass(_kind(layer), Input)}, shape)
    _give_shapes(deployed, shapes)
    return deployed


def _give_shapes(deployed: NetParameter, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give the inputs called so these shapes; raises InputError for a name that no input has."""
    inputs = {
        top: dims
        for layer in deployed.layer
        if layer.type == "Input"
        for top, dims in zip(layer.top, layer.input_param.shape, strict=True)
    }
    _check_names(deployed.name, shapes, inputs)
    for name, shape in shapes.items():
        inputs[name].dim[:] = list(shape)


def _check_names(net: str, shapes: Mapping[str, Sequence[int]], inputs: Collection[str]) -> None:
    for name in shapes:
        if name not in inputs:
            known = f"inputs are {', '.join(inputs)}" if inputs else "it has none"
            raise InputError(
                f'net "{net}": no shape can be given to "{name}", which is no input of what predicts; {known}'
                f"{did_you_mean(name, inputs)}"
            )


def _reshape(deployed: NetParameter, names: set[str], shape: Sequence[int]) -> None:
    """Give `shape` to the images of the one Input, called one of `names`, unless data layers have it already."""
    inputs = [layer for layer in deployed.layer if layer.type == "Input"]
    if any(layer.name not in names for layer in inputs):
        return
    tops = [top for layer in inputs for top in layer.top]
    if len(tops) != 1:
        has = f"has the inputs {', '.join(tops)}, whose shapes its prototxt says" if tops else "has no input"
        raise InputError(f'net "{deployed.name}": {has}: the shape {describe(shape)} cannot be given')
    (given,) = inputs[0].input_param.shape
    given.dim[:] = [*given.dim[:1], *shape] if given.dim else [1, *shape]


def data_layer(
    net: Net | NetParameter | str | Path, top: str | None = None, folder: Path | None = None
) -> Layer | None:
    """Return the data layer, not set up, that gives the blob `top`, or any, in the TEST phase of `net`, if one does."""
    param, context = (net.param, net.context) if isinstance(net, Net) else _read(net, folder)
    given = (layer for layer in param.layer if top in (None, *layer.top) and issubclass(_kind(layer), DataLayer))
    return next((create_layer(layer, context) for layer in given), None)


def _of_net(net: Net) -> tuple[NetParameter, ShapesOf]:
    if net.context.phase != TEST:
        raise InputError(f'net "{net.name}": is of the TRAIN phase, expected the TEST phase')
    return net.param, lambda layer: [net.shapes[net.newest[top]] for top in layer.top]


def _of_prototxt(
    source: NetParameter | str | Path, folder: Path | None, shapes: Mapping[str, Sequence[int]], skip_broken: bool
) -> tuple[NetParameter, ShapesOf]:
    param, context = _read(source, folder)
    context.skip_broken = skip_broken

    def shapes_of(layer: LayerParameter) -> Shapes:
        if layer.top[0] in shapes:
            return [tuple(shapes.get(top, (1,))) for top in layer.top]
        try:
            data = create_layer(layer, context)
            data.setup([])
            return data.reshape([]) or []
        except InputError as error:
            raise InputError(f"{error}; with the images' shape given, no data is needed") from None

    return param, shapes_of


def _read(source: NetParameter | str | Path, folder: Path | None) -> tuple[NetParameter, Context]:
    """The layers of a prototxt's TEST phase, and what its layers are created with."""
    if not isinstance(source, NetParameter):
        folder = folder or Path(source).parent
    param = NetParameter()
    param.CopyFrom(source if isinstance(source, NetParameter) else read_net(source))
    param.state.phase = TEST
    return filter_layers(param), Context(phase=TEST, folders=(Path(), folder) if folder else (Path(),))


def _given(layer: LayerParameter, shape: Sequence[int]) -> Shapes:
    """The shapes of a data layer's tops, images of `shape` and labels; none without `shape`."""
    labels: Shapes = [(1,)] * (len(layer.top) - 1)
    return [(1, *shape), *labels] if shape else []


def _kind(layer: LayerParameter) -> type[Layer]:
    return registry.get(layer.type, Layer)


def _predicting(layers: Sequence[LayerParameter]) -> list[LayerParameter]:
    """The layers without losses, accuracies and what depends on them, what is inside a loss taking its place."""
    there = {(layer.type, layer.bottom[0]) for layer in layers if layer.type in ("Softmax", "Sigmoid") and layer.bottom}
    inner = [(kind, layer.bottom[0]) for layer in layers if (kind := inside(_kind(layer)))]
    several = len(set(inner) - there) > 1
    taken = {top for layer in layers for top in layer.top}
    kept: list[LayerParameter] = []
    gone: set[str] = set()
    for layer in layers:
        kind = inside(_kind(layer))
        if kind and (len(layer.top) > 1 or (kind, layer.bottom[0]) not in there):
            there.add((kind, layer.bottom[0]))
            plain = "prob" if not several and "prob" not in taken else f"{layer.name}_prob"
            top = layer.top[1] if len(layer.top) > 1 else plain
            kept.append(LayerParameter(name=top, type=kind, bottom=layer.bottom[:1], top=[top]))
            if layer.HasField("softmax_param"):
                kept[-1].softmax_param.CopyFrom(layer.softmax_param)
            if layer.HasField("infogain_loss_param"):
                kept[-1].softmax_param.axis = layer.infogain_loss_param.axis
            gone.update(layer.top[:1])
        elif _is_measure(layer) or not gone.isdisjoint(layer.bottom):
            gone.update(layer.top)
        else:
            kept.append(layer)
    return kept


def inside(loss: type[Layer]) -> str:
    """Return the type of layer inside a loss that makes probabilities of its first bottom; empty for any other."""
    if issubclass(loss, OnLogits | InfogainLoss):
        return "Softmax"
    return "Sigmoid" if issubclass(loss, SigmoidCrossEntropyLoss) else ""


def _is_measure(layer: LayerParameter) -> bool:
    """Whether it compares predictions with labels."""
    return _kind(layer).is_loss or issubclass(_kind(layer), Accuracy)


def _outputs(layers: Sequence[LayerParameter], original: Sequence[LayerParameter]) -> set[str]:
    """The tops that nothing reads, without data and without what only served as labels."""
    unread: set[str] = set()
    for layer in layers:
        unread.difference_update(layer.bottom)
        if not issubclass(_kind(layer), DataLayer | Input):
            unread.update(layer.top)
    measures = [layer for layer in original if _is_measure(layer)]
    predictions = {bottom for layer in measures for bottom in layer.bottom[: getattr(_kind(layer), "predictions", 1)]}
    return unread - ({bottom for layer in measures for bottom in layer.bottom} - predictions)


def _needed(layers: Sequence[LayerParameter], wanted: set[str], shapes_of: ShapesOf) -> list[LayerParameter]:
    """The layers that the `wanted` blobs need, in order, with Input layers for the data layers among them."""
    needed, kept = set(wanted), []
    for layer in reversed(layers):
        tops = [top for top in layer.top if top in needed]
        if not tops:
            continue
        needed.difference_update(layer.top)
        needed.update(layer.bottom)
        if issubclass(_kind(layer), DataLayer | Input):
            is_input = issubclass(_kind(layer), Input)
            shapes = dict(zip(layer.top, Input(layer).reshape([]) if is_input else shapes_of(layer), strict=True))
            dims = [{"dim": shapes[top]} for top in tops]
            kept.append(LayerParameter(name=layer.name, type="Input", top=tops, input_param={"shape": dims}))
        else:
            kept.append(layer)
    return kept[::-1]
