"""What an ONNX graph has too much: values under a second name, and maps of channels behind a convolution."""

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imae.layers.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    from onnx import NodeProto

_LINEAR = ("Conv", "ConvTranspose", "Gemm")


def drop_identities(graph: OnnxGraph, outputs: Collection[str], inputs: Collection[str]) -> None:
    """Give the readers of each Identity what it reads; outputs keep their names, and inputs and constants theirs."""
    for node in [node for node in graph.nodes if node.op_type == "Identity"]:
        (source,), (copy,) = node.input, node.output
        if copy not in outputs:
            old, new = copy, source
        elif source not in outputs and source not in inputs and source not in graph.constants:
            old, new = source, copy
        else:
            continue
        graph.nodes.remove(node)
        for other in graph.nodes:
            for names in (other.input, other.output):
                names[:] = [new if name == old else name for name in names]


def fold(graph: OnnxGraph, outputs: Collection[str]) -> None:
    """Let convolutions and inner products do what BatchNorm, Scale and Bias, the only readers of theirs, do after them.

    (x W + b) a + c = x (a W) + (a b + c), with a and c by channel; computed in float64.
    """
    readers = Counter(name for node in graph.nodes for name in node.input)
    makers = {name: node for node in graph.nodes for name in node.output}
    kept = []
    for node in graph.nodes:
        name = node.input[0] if node.input else ""
        maker = makers.get(name) if readers[name] == 1 and name not in outputs else None
        if maker is None or not _fold_into(graph, maker, node):
            kept.append(node)
            continue
        maker.output[0] = node.output[0]
        makers[node.output[0]] = maker
    graph.nodes[:] = kept


def _fold_into(graph: OnnxGraph, maker: "NodeProto", node: "NodeProto") -> bool:
    """Have `maker`, a convolution or inner product, do what `node` does to what it makes; False if it cannot."""
    learned = [graph.constants.get(name) for name in maker.input[1:]]
    if maker.op_type not in _LINEAR or any(blob is None for blob in learned):
        return False
    weight, *bias = [blob for blob in learned if blob is not None]
    affine = _affine(graph, node, _channels(maker, weight), weight.dim())
    if affine is not None:
        _absorb(graph, maker, weight, bias[0] if bias else None, *affine)
    return affine is not None


def drop_unread_constants(graph: OnnxGraph) -> None:
    """Remove the constants that no node reads, those of folded layers."""
    bodies = [attribute.g for node in graph.nodes for attribute in node.attribute if attribute.HasField("g")]
    read = {name for nodes in (graph.nodes, *(body.node for body in bodies)) for node in nodes for name in node.input}
    graph.constants = {name: value for name, value in graph.constants.items() if name in read}


def _affine(graph: OnnxGraph, node: "NodeProto", channels: int, axes: int) -> tuple[Tensor, Tensor] | None:
    """What a node does to each channel of its first input: factor and summand (float64); None if it does more."""
    values = [graph.constants.get(name) for name in node.input[1:]]
    if any(value is None for value in values):
        return None
    given = [value.double() for value in values if value is not None]
    one, zero = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    if node.op_type == "BatchNormalization":
        scale, bias, mean, var = given
        (eps,) = [attribute.f for attribute in node.attribute if attribute.name == "epsilon"]
        factor = scale / (var + eps).sqrt()
        return factor, bias - mean * factor
    if node.op_type not in ("Mul", "Add", "Sub") or len(given) != 1:
        return None
    spread = (1,) * (axes - given[0].dim()) + tuple(given[0].shape)
    if len(spread) != axes or any(size != 1 for axis, size in enumerate(spread) if axis != 1):
        return None
    value = given[0].flatten().expand(channels)
    return (value, zero) if node.op_type == "Mul" else (one, value if node.op_type == "Add" else -value)


def _absorb(
    graph: OnnxGraph, maker: "NodeProto", weight: Tensor, bias: Tensor | None, factor: Tensor, summand: Tensor
) -> None:
    """Multiply the outputs of a convolution or inner product by `factor`, and add `summand`, by channel."""
    wide, axis = weight.double(), _output_axis(maker)
    if maker.op_type == "ConvTranspose":
        groups = _attribute(maker, "group", 1)
        by_group = wide.view(groups, -1, *wide.shape[1:]) * factor.view(groups, 1, -1, *[1] * (wide.dim() - 2))
        scaled = by_group.view_as(wide)
    else:
        scaled = wide * factor.view([-1 if at == axis else 1 for at in range(wide.dim())])
    added = summand if bias is None else bias.double() * factor + summand
    names = [graph.constant(maker.input[1], scaled), graph.constant(f"{maker.output[0]}/bias", added)]
    maker.input[1:] = names


def _channels(maker: "NodeProto", weight: Tensor) -> int:
    """How many outputs it has."""
    groups = _attribute(maker, "group", 1) if maker.op_type == "ConvTranspose" else 1
    return weight.shape[_output_axis(maker)] * groups


def _output_axis(maker: "NodeProto") -> int:
    """The weight's axis of outputs."""
    if maker.op_type == "Gemm":
        return 0 if _attribute(maker, "transB", 0) else 1
    return 1 if maker.op_type == "ConvTranspose" else 0


def _attribute(node: "NodeProto", name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)
