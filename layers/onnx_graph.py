"""The ONNX graph under construction, as layers add their nodes to it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


class OnnxGraph:
    """Nodes and constants; a name belongs to one value only, and those in `taken` to the net's blobs."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._taken = set(taken)

    def name(self, wanted: str) -> str:
        """Return `wanted`, with a number if a value has that name already, as the name of a new value."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add a node of ONNX operator `op`, from the named values `inputs` to new values `outputs`."""
        from onnx import helper  # here, as every layer imports this file and few nets are exported

        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), f"{outputs[0]}/{op}", **attributes))

    def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output, and return the output's new name."""
        output = self.name(f"{inputs[0]}/{op}")
        self.node(op, inputs, [output], **attributes)
        return output

    def constant(self, wanted: str, value: Tensor) -> str:
        """Add a constant (float32, or int64 where `value` is), and return its name: `wanted`, if that is free."""
        from onnx import numpy_helper

        name = self.name(wanted)
        array = value.detach().cpu()
        array = array.float() if array.is_floating_point() else array
        self.constants[name] = numpy_helper.from_array(array.contiguous().numpy(), name)
        return name

    def reshape(self, value: str, shape: Sequence[int], output: str | None = None) -> str:
        """Add a Reshape (0 keeps a size, -1 takes what is left); return the output's name, `output` if given."""
        output = output or self.name(f"{value}/Reshape")
        self.node("Reshape", [value, self.constant(f"{value}/shape", torch.tensor(shape, dtype=torch.int64))], [output])
        return output

    def cast(self, value: str, dtype: str, output: str | None = None) -> str:
        """Add a Cast to ONNX's `dtype`, such as INT64; return the output's name, `output` if given."""
        from onnx import TensorProto

        output = output or self.name(f"{value}/{dtype}")
        self.node("Cast", [value], [output], to=TensorProto.DataType.Value(dtype))
        return output
