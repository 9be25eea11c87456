"""Layers under construction from an ONNX model's nodes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from imae.layers.layer import Shape
from imae.prototxt_like.schema import LayerParameter

Settings = Mapping[str, Any]
Array = NDArray[Any]


class NoLayer(Exception):
    """Why no layer does what a node does."""


@dataclass(frozen=True)
class Unmade:
    """What a value stands for that no blob holds: layers of one node and the next have it inside."""

    what: str
    """The "integers" of source, source "backwards" along the axis, or "places" of its largest values along it."""
    source: str
    axis: int = 0
    k: int = 1
    backwards: bool = False
    """Whether places count from the end."""


class Importing:
    """Layers under construction.

    `values` are all values as ONNX Runtime had them, `fixed` the names of those that are constants; `readers` are the
    nodes that read each, and `outputs` those of the graph. Inputs of the graph that are `inside` a layer, such as an
    LSTM's first hidden values, are no blobs. `blobs` are those of each layer, by its name.
    """

    def __init__(
        self,
        values: dict[str, Array],
        fixed: set[str],
        opset: int,
        readers: Mapping[str, Sequence[NodeProto]],
        outputs: Collection[str],
        inside: Collection[str] = (),
    ) -> None:
        self.values, self.fixed, self.opset, self.readers, self.outputs = values, fixed, opset, readers, outputs
        self.inside = inside
        self.layers: list[LayerParameter] = []
        self.blobs: dict[str, list[NDArray[np.float32]]] = {}
        self.pending: dict[str, tuple[LayerParameter, Array]] = {}
        """Averages that still lack a factor, by the value's name: the layer, and what is missing."""
        self.numbers: set[str] = set()
        """Values of other types than float32 that the layers give as float32."""
        self.unmade: dict[str, Unmade] = {}
        self.done: set[str] = set()
        """Values that a layer makes with those of a node before."""
        self._same: dict[str, str] = {}

    def layer(
        self, kind: str, bottoms: Sequence[str], tops: Sequence[str], blobs: Sequence[Array] = (), **settings: Any
    ) -> LayerParameter:
        """Add a layer between values."""
        for bottom in bottoms:
            if bottom in self.fixed:
                self.parameter(bottom)
            if bottom in self.pending:
                self.settle(bottom)
            if bottom in self.unmade:
                raise NoLayer(f'its input "{bottom}" is {self.unmade[bottom].what}, which no blob holds')
        below = [self._same.get(bottom, bottom) for bottom in bottoms]
        made = LayerParameter(name=tops[0], type=kind, bottom=below, top=tops, **settings)
        self.layers.append(made)
        if blobs:
            self.blobs[made.name] = [np.asarray(blob, np.float32) for blob in blobs]
        return made

    def settle(self, average: str) -> None:
        """Multiply an average by the numbers that Caffe divides by, over those that ONNX does, at each place."""
        layer, missing = self.pending.pop(average)
        layer.name = layer.top[0] = f"{average}/all"
        self.layer("Scale", [layer.name], [average], [1 / missing], scale_param={"axis": 2, "num_axes": 2})

    def parameter(self, constant: str) -> None:
        """Have a layer give a constant, unless one does."""
        value = self.values[constant]
        if value.dtype != np.float32:
            raise NoLayer(f'its input "{constant}" is a constant of {value.dtype}, expected float32')
        if all(constant not in layer.top for layer in self.layers):
            shape = {"shape": {"dim": value.shape}}
            self.layers.append(LayerParameter(name=constant, type="Parameter", top=[constant], parameter_param=shape))
            self.blobs[constant] = [value]

    def reshaped(self, source: str, name: str, shape: Shape) -> None:
        """Add a Reshape; a first axis that stays is the batch, any other takes what there is."""
        first = [0 if self.shape(source)[:1] == shape[:1] else -1] if shape else []
        self.layer("Reshape", [source], [name], reshape_param={"shape": {"dim": [*first, *shape[1:]]}})
        self.values[name] = self.values[source].reshape(shape)

    def alias(self, source: str, name: str) -> None:
        """Let `name` be `source`; an output has a layer for it."""
        if name in self.outputs:
            self.layer("Split", [source], [name])
        else:
            self._same[name] = self._same.get(source, source)

    def shape(self, name: str) -> Shape:
        """Return the shape of a value."""
        return tuple(self.values[name].shape)

    def constant(self, inputs: Sequence[str], place: int, default: Any = None) -> Any:
        """Return an input that has to be a constant, `default` for one that is not given."""
        if len(inputs) <= place or not inputs[place]:
            return default
        if inputs[place] not in self.fixed:
            raise NoLayer(f'its input "{inputs[place]}" is computed, expected a constant')
        return self.values[inputs[place]]

    def sole_reader(self, name: str, *kinds: str) -> NodeProto | None:
        """Return the node that alone reads a value, if it is of one of these kinds; an output has another reader."""
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs and readers[0].op_type in kinds else None

    def undo(self, top: str, kind: str) -> LayerParameter | None:
        """Take back the layer of this kind that makes a value for one node alone, and return it; None for others."""
        if len(self.readers.get(top, ())) != 1 or top in self.outputs:
            return None
        made = next((layer for layer in self.layers if list(layer.top) == [top] and layer.type == kind), None)
        if made is not None:
            self.layers.remove(made)
        return made

    def finish(self) -> None:
        """Let Silence read the parts that nothing else does, and nobody asked for."""
        read = {bottom for layer in self.layers for bottom in layer.bottom}
        for top in [top for layer in self.layers if len(layer.top) > 1 for top in layer.top if top not in read]:
            if top not in self.outputs:
                self.layers.append(LayerParameter(name=f"{top}/silence", type="Silence", bottom=[top]))
