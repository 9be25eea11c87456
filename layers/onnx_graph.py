"""The ONNX graph under construction, as layers add their nodes to it."""

from collections.abc import Sequence
from typing import Any

import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor


class OnnxGraph:
    """Nodes and constants; layers name values after blobs, in-between values get names of their own."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add a node of ONNX operator `op`."""
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), f"{op}_{len(self.nodes)}", **attributes))

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output, and return the output's new name."""
        output = f"{inputs[0]}/{op}_{len(self.nodes)}"
        self.node(op, inputs, [output], **attributes)
        return output

    def constant(self, name: str, value: Tensor) -> str:
        """Add a constant (float32, or int64 where `value` is), and return its name."""
        array = value.detach().cpu()
        array = array.float() if array.is_floating_point() else array
        self.constants[name] = numpy_helper.from_array(array.contiguous().numpy(), name)
        return name

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Add a Reshape (0 keeps a size, -1 takes what is left), and return the output's name."""
        return self.add("Reshape", [value, self.constant(f"{value}/shape_{len(self.nodes)}", torch.tensor(shape))])
