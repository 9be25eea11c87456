"""Back from ONNX: LSTM and RNN, of ONNX's own operators and of the Scan that `to_onnx` makes."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper

from imae.nets.onnx_importing import Array, Importing, NoLayer, Settings

_STEPS = {
    "RNN": Counter(("MatMul", "Add", "Tanh")),
    "LSTM": Counter({"MatMul": 1, "Add": 2, "Split": 1, "Sigmoid": 3, "Tanh": 2, "Mul": 3}),
}
"""The nodes of a step, without those that multiply the hidden values by cont."""
_STATE = re.compile(r"(.+)_([hc])_0")


def inner_states(graph: GraphProto, readers: Mapping[str, Sequence[NodeProto]]) -> dict[str, str]:
    """Return the inputs that are hidden values as `to_onnx` calls them, each with the output that goes on from it."""
    outputs = {output.name for output in graph.output}
    found = {}
    for value in graph.input:
        named = _STATE.fullmatch(value.name)
        after = f"{named[1]}_{named[2]}_T" if named else ""
        nodes = readers.get(value.name, ())
        if len(nodes) == 1 and nodes[0].op_type == "Squeeze":
            nodes = readers.get(nodes[0].output[0], ())
        if after in outputs and [node.op_type for node in nodes] in (["Scan"], ["LSTM"], ["RNN"]):
            found[value.name] = after
    return found


def scan(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """LSTM or RNN, whose inputs' weights are in the layers before, which are taken back."""
    body, count = settings["body"], settings["num_scan_inputs"]
    kinds = Counter(node.op_type for node in body.node if node.op_type != "Identity")
    *states, gates, cont = [*inputs, ""] if count == 1 else inputs
    size = len(states)
    kind = "LSTM" if size == 2 else "RNN"
    if count > 2 or size not in (1, 2) or kinds - _STEPS[kind] != (Counter(Mul=size) if cont else Counter()):
        raise NoLayer(f"has steps of {', '.join(sorted(kinds))}, which no layer of Caffe's does")
    matrix = next(node.input[1] for node in body.node if node.op_type == "MatMul")
    inner = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}
    hidden = inner[matrix] if matrix in inner else importing.constant([matrix], 0)
    x, static, blobs = _inputs(importing, gates)
    blobs.append(hidden.T)
    before = [_taken(importing, state) for state in states]
    after = []
    for end in outputs[:size]:
        unsqueeze = importing.sole_reader(end, "Unsqueeze")
        if unsqueeze is None:
            raise NoLayer(f'its last hidden value "{end}" is read otherwise than Caffe gives it, 1 x N x num_output')
        after.append(unsqueeze.output[0])
    cont = _taken(importing, cont) if cont else ""
    _layer(importing, kind, x, cont, static, blobs, before, outputs[size], after)


def operator(kind: str) -> Callable[..., None]:
    """ONNX's LSTM or RNN, forwards and with the usual activations."""

    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        usual = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "RNN": [b"Tanh"]}[kind]
        given = [*inputs, *[""] * (8 - len(inputs))]
        if settings.get("direction", b"forward") != b"forward" or settings.get("activations", usual) != usual:
            raise NoLayer("goes backwards, or has other activations than Caffe's")
        if any(settings.get(name) for name in ("clip", "layout", "input_forget")) or given[4] or given[7]:
            raise NoLayer("clips, has peepholes, the batch first or lengths of sequences, which Caffe has not")
        weight, hidden = (_in_order(kind, importing.constant(inputs, i)[0]) for i in (1, 2))
        both = importing.constant(inputs, 3)
        bias = np.zeros(len(weight)) if both is None else _in_order(kind, both[0].reshape(2, -1).sum(0))
        before = [name for name in given[5 : 6 + (kind == "LSTM")] if name]
        zero = all(name in importing.fixed and not importing.values[name].any() for name in before)
        after = [name for name in outputs[1:] if name in importing.readers or name in importing.outputs]
        if zero and after:
            raise NoLayer("gives its last hidden values, but does not take the first ones")
        squeeze = importing.sole_reader(outputs[0], "Squeeze")
        if squeeze is None:
            raise NoLayer("keeps its axis of directions")
        top = squeeze.output[0]
        importing.done.add(top)
        _layer(importing, kind, inputs[0], "", "", [weight, bias, hidden], [] if zero else before, top, outputs[1:])

    return translate


def _in_order(kind: str, rows: Array) -> Array:
    """Rows by gates i, o, f, c of ONNX in Caffe's order, i, f, o, g."""
    if kind == "RNN":
        return rows
    i, o, f, g = np.split(rows, 4)
    return np.concatenate([i, f, o, g])


def _inputs(importing: Importing, gates: str) -> tuple[str, str, list[Array]]:
    """What a Scan's gates are of: x, x_static if there is one, and the weight, bias and static weight."""
    static = None
    bias = importing.undo(gates, "Bias") or importing.undo(gates, "Power")  # by a single number
    if bias is not None and len(bias.bottom) == 2:
        static = importing.undo(bias.bottom[1], "InnerProduct")
        bias = importing.undo(bias.bottom[0], "Bias") or importing.undo(bias.bottom[0], "Power") if static else None
    product = importing.undo(bias.bottom[0], "InnerProduct") if bias is not None else None
    if bias is None or product is None:
        raise NoLayer(f'its gates "{gates}" are no matrix product and bias of an input')
    shift = importing.blobs.pop(bias.name, [np.array([bias.power_param.shift], np.float32)])
    weights = [*importing.blobs.pop(product.name), *shift]
    if static is None:
        return product.bottom[0], "", weights
    return product.bottom[0], static.bottom[0], [*weights, *importing.blobs.pop(static.name)]


def _taken(importing: Importing, name: str) -> str:
    """What a Scan takes without its axis of 1, or with one more, as Caffe's layer takes it."""
    made = importing.undo(name, "Reshape") or importing.undo(name, "Flatten")
    return name if made is None else made.bottom[0]


def _layer(
    importing: Importing,
    kind: str,
    x: str,
    cont: str,
    static: str,
    blobs: list[Array],
    before: list[str],
    top: str,
    after: list[str],
) -> None:
    """Add the layer; `before` and `after` are the hidden values where they are no layer's own."""
    if kind == "RNN":
        top, output = _output(importing, top)
        blobs += output
    if not cont:
        cont = f"{top}/cont"
        ones: Any = {"shape": [{"dim": importing.shape(x)[:2]}], "data_filler": [{"type": "constant", "value": 1.0}]}
        importing.layer("DummyData", [], [cont], dummy_data_param=ones)
    exposed = [name for name in before if name not in importing.inside]
    importing.done.update(after)
    own = {"num_output": blobs[-1 - 2 * (kind == "RNN")].shape[1], "expose_hidden": bool(exposed)}
    bottoms = [x, cont, *([static] if static else []), *exposed]
    importing.layer(kind, bottoms, [top, *(after if exposed else [])], blobs, recurrent_param=own)


def _output(importing: Importing, h: str) -> tuple[str, list[Array]]:
    """The top of Caffe's RNN, tanh(W_o h + b_o), whose nodes come behind, and W_o and b_o."""
    last, blobs = h, list[Array]()
    for kind in ("MatMul", "Add", "Tanh"):
        node = importing.sole_reader(last, kind)
        if node is None:
            raise NoLayer(f'gives "{h}", where Caffe\'s RNN gives tanh(W h + b) of it')
        if kind != "Tanh":
            constants = [name for name in node.input if name != last]
            blobs.append(importing.constant(constants, 0))
        last = node.output[0]
        importing.done.add(last)
    return last, [blobs[0].T, blobs[1]]
