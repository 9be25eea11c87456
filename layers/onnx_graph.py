"""The ONNX graph under construction, as layers add their nodes to it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Size = int | str  # of an axis: a number, or the name of a size that stays open


class OnnxGraph:
    """Nodes and constants; a name belongs to one value only, and those in `taken` to the net's blobs.

    `opset` is the version of ONNX's operators, `open_axes` says which axes of a value have an open size, and its name;
    nobody reads the values `unread`. With `continuous` no sequence begins inside of a batch: cont is 1 throughout.
    A layer sets `whole` where its nodes are no layers one by one, but to be taken together on the way back.
    """

    def __init__(
        self,
        taken: Iterable[str] = (),
        *,
        opset: int = 17,
        open_axes: Mapping[str, Mapping[int, str]] | None = None,
        unread: Collection[str] = (),
        continuous: bool = False,
    ) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Tensor] = {}
        self.inputs: dict[str, tuple[Size, ...]] = {}  # layers' own, as hidden values that a recurrent one begins with
        self.outputs: dict[str, tuple[str, str]] = {}  # layers' own: the input that each is in the next pass, and layer
        self.opset, self.unread, self.continuous = opset, unread, continuous
        self.whole = False
        self._open = open_axes or {}
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

        name = next(filter(None, outputs))
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), f"{name}/{op}", **attributes))

    def add(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name: `output`, or a new one."""
        output = output or self.name(f"{inputs[0]}/{op}")
        self.node(op, inputs, [output], **attributes)
        return output

    def constant(self, wanted: str, value: "Tensor | np.ndarray | float | Sequence[int]") -> str:
        """Add a constant (float32, or `value`'s own dtype if that has no points); return its name, `wanted` if free."""
        name = self.name(wanted)
        tensor = torch.as_tensor(value).detach()
        tensor = tensor if tensor.is_meta else tensor.cpu()
        self.constants[name] = tensor.float() if tensor.is_floating_point() else tensor
        return name

    def open_axes(self, value: str) -> Mapping[int, str]:
        """Return the axes of a net's value whose sizes are open, with their names."""
        return self._open.get(value, {})

    def sizes(self, value: str, first: int, end: int) -> str:
        """Add nodes for the sizes of axes `first` to `end` - 1 of a value, and return the name of that int64 vector."""
        bounds = [self.constant(f"{value}/axis", [at]) for at in (first, end)]
        return self.add("Slice", [self.add("Shape", [value]), *bounds])

    def reshape(self, value: str, shape: Sequence[int] | str, output: str | None = None) -> str:
        """Add a Reshape to `shape` or to the value of that name (0 keeps a size, -1 takes what is left); return the
        output's name, `output` if given.
        """
        sizes = shape if isinstance(shape, str) else self.constant(f"{value}/shape", torch.tensor(shape).long())
        return self.add("Reshape", [value, sizes], output)

    def unsqueeze(self, value: str, axes: Sequence[int], output: str | None = None) -> str:
        """Add an Unsqueeze, which inserts axes of 1 at the places `axes`; return the output's name."""
        return self.add("Unsqueeze", [value, self.constant(f"{value}/axes", list(axes))], output)

    def squeeze(self, value: str, axes: Sequence[int], output: str | None = None) -> str:
        """Add a Squeeze, which drops the axes `axes`, of size 1; return the output's name."""
        return self.add("Squeeze", [value, self.constant(f"{value}/axes", list(axes))], output)

    def reduce(self, op: str, value: str, axes: Sequence[int], *, keepdims: bool, output: str | None = None) -> str:
        """Add a reduction such as ReduceMean over `axes`; return the output's name."""
        if self.opset < 18 and op != "ReduceSum":
            return self.add(op, [value], output, axes=list(axes), keepdims=int(keepdims))
        return self.add(op, [value, self.constant(f"{value}/axes", list(axes))], output, keepdims=int(keepdims))

    def cast(self, value: str, dtype: str, output: str | None = None) -> str:
        """Add a Cast to ONNX's `dtype`, such as INT64; return the output's name, `output` if given."""
        from onnx import TensorProto

        return self.add("Cast", [value], output or self.name(f"{value}/{dtype}"), to=TensorProto.DataType.Value(dtype))

    def body(self) -> "OnnxGraph":
        """Return an empty graph for the body of a Scan, whose constants are this graph's."""
        body = OnnxGraph(opset=self.opset)
        body.constants, body._taken = self.constants, self._taken
        return body

    def as_body(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> "GraphProto":
        """Return this graph as the attribute `body`, of float32 values."""
        from onnx import TensorProto, helper

        begin, end = (
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, None) for x in xs] for xs in (inputs, outputs)
        )
        return helper.make_graph(self.nodes, name, begin, end)
