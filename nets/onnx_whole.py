"""Layers whose nodes are none by themselves: the export says in the first what they are together, for the way back.

The node's `doc_string` has a line of JSON, then the layer's prototxt. The line counts the nodes and has a digest of the
text, the operators, the constants and of what goes where: others than were exported are told by it, under any names.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto

from imae.layers.onnx_graph import OnnxGraph
from imae.nets.onnx_importing import Importing, NoLayer
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter
from imae.prototxt_like.text import format_text, parse_net

_BEGINS = "imae layer "


def note(layer: LayerParameter, graph: OnnxGraph, first: int, bottoms: Sequence[str], tops: Sequence[str]) -> None:
    """Say in node `first` what layer it and those after it are, from the values `bottoms` to `tops`."""
    kept = LayerParameter(name=layer.name, type=layer.type, bottom=layer.bottom, top=layer.top)
    for field, value in layer.ListFields():
        if field.name.endswith("_param"):
            getattr(kept, field.name).CopyFrom(value)
    nodes, text = graph.nodes[first:], format_text(kept)
    numbers = _numbers(nodes)
    said: dict[str, Any] = {"nodes": len(nodes)}
    said |= {"bottoms": [numbers[name] for name in bottoms], "tops": [numbers[name] for name in tops]}
    constants = {name: value.numpy() for name, value in graph.constants.items() if name in numbers}
    said["sha256"] = _digest(nodes, constants, said, text)
    nodes[0].doc_string = f"{_BEGINS}{json.dumps(said)}\n{text}"


@dataclass
class Noted:
    """What a node says of itself and those after it: its `nodes` are `layer`, whose blobs have the values' names."""

    nodes: Sequence[NodeProto]
    layer: LayerParameter
    said: dict[str, Any]
    text: str

    def add(self, importing: Importing, constants: Collection[str]) -> None:
        """Add the layer; raises NoLayer if the nodes are not those that were exported, or something else reads them."""
        names, tops, layer = _numbers(self.nodes), self.layer.top, self.layer
        given = {name: importing.values[name] for name in names if name in constants}
        made = {name for node in self.nodes for name in node.output}
        inside = made - set(tops)
        elsewhere = [node for name in inside for node in importing.readers.get(name, ()) if node not in self.nodes]
        is_changed = _digest(self.nodes, given, self.said, self.text) != self.said["sha256"]
        if is_changed or elsewhere or not inside.isdisjoint(importing.outputs):
            raise NoLayer(f'begins layer "{layer.name}" ({layer.type}), but what follows is not what the export wrote')
        settings: Any = {field.name: value for field, value in layer.ListFields() if field.name.endswith("_param")}
        importing.layer(layer.type, layer.bottom, tops, **settings)
        importing.done.update(made)


def noted(nodes: Sequence[NodeProto], at: int) -> Noted | None:
    """Return what node `at` and those after it are, if it says so."""
    line, _, text = nodes[at].doc_string.partition("\n")
    if not line.startswith(_BEGINS):
        return None
    try:
        said = json.loads(line.removeprefix(_BEGINS))
        (layer,) = parse_net(f"layer {{ {text} }}").layer
        own = nodes[at : at + said["nodes"]]
        names = list(_numbers(own))
        for which, blobs in (("bottoms", layer.bottom), ("tops", layer.top)):
            blobs[:] = [names[number] for number in said[which]]
    except (InputError, ValueError, LookupError, TypeError):  # it is not what we write
        return None
    return Noted(own, layer, said, text)


def _numbers(nodes: Sequence[NodeProto]) -> dict[str, int]:
    """The values of the nodes, numbered as they come."""
    names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output) if name)
    return {name: number for number, name in enumerate(names)}


def _digest(nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray], said: Mapping[str, Any], text: str) -> str:
    said = {name: value for name, value in said.items() if name != "sha256"}
    numbers, digest = _numbers(nodes), hashlib.sha256(json.dumps([said, text]).encode())
    for node in nodes:
        places = [[numbers.get(name, -1) for name in names] for names in (node.input, node.output)]
        digest.update(json.dumps([node.domain, node.op_type, places]).encode())
        for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
            digest.update(attribute.SerializeToString(deterministic=True))
    for name, number in numbers.items():
        if name in constants and number not in said["bottoms"]:
            value = np.asarray(constants[name])
            digest.update(json.dumps([number, value.dtype.str, value.shape]).encode() + value.tobytes())
    return digest.hexdigest()
