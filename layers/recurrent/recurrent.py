"""What LSTM and RNN share: a layer that steps through time, and goes on in the next pass where it ended in this."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from imae.layers.layer import Context, Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe
from imae.prototxt_like.schema import LayerParameter


class Recurrent(Layer):
    """T steps of N independent sequences: at each, gates from the input, the hidden values of the step before, and b.

    Bottoms: x (T x N x ...), cont (T x N), by option x_static (N x ...), the same input at each step, and with
    `expose_hidden` the hidden values before the first step (each 1 x N x num_output). Tops: one value a step
    (T x N x num_output) and, with `expose_hidden`, the hidden values after the last. The hidden values of the step
    before are multiplied by cont: 0 where a sequence begins, else 1.

    Without `expose_hidden` the values before the first step are those after the last one of the pass before: zero at
    first, and again when the number of sequences changes. No gradient goes from pass to pass, by either way.

    Blobs: input weight (gates num_output x inputs), bias (gates num_output), with x_static its weight (gates
    num_output x static inputs), hidden weight (gates num_output x num_output); then what a subclass adds.
    """

    hidden: ClassVar[tuple[str, ...]]  # the values that go from step to step
    gates: ClassVar[int]  # how many there are of each output
    index_bottoms = frozenset({1})
    no_gradient_from = frozenset({1, 2})
    capturable = True
    geometry: tuple[int, int]  # T and N

    def __init__(self, param: LayerParameter, context: Context | None = None) -> None:
        super().__init__(param, context)
        exposed = len(self.hidden) if param.recurrent_param.expose_hidden else 0
        self.exposed, self.static = exposed, len(param.bottom) > 2 + exposed
        self.bottoms = (2 + exposed, 3 + exposed)  # type: ignore[misc]  # of this one layer, as what follows
        self.tops = (1 + exposed, 1 + exposed)  # type: ignore[misc]
        first = 2 + self.static
        self.held_fixed = frozenset(range(first, first + exposed))
        self.no_gradient_to = self.held_fixed | {1}
        # By the number of sequences: a recorded pass finds its own where it was.
        self._states: dict[int, list[Tensor]] = {}

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.recurrent_param
        self.num_output = param.num_output
        if not self.num_output:
            raise self.error("num_output is missing or 0")
        rows = self.gates * self.num_output
        self.add_blob((rows, self._inputs("x", bottoms[0], 2)), param.weight_filler)
        self.add_blob((rows,), param.bias_filler)
        if self.static:
            self.add_blob((rows, self._inputs("x_static", bottoms[2], 1)), param.weight_filler)
        self.hidden_weight = len(self.blobs)
        self.add_blob((rows, self.num_output), param.weight_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Check the bottoms against each other and the weights; other numbers of sequences begin anew."""
        x, cont, *others = bottoms
        inputs = self._inputs("x", x, 2)
        if inputs != self.blobs[0].shape[1]:
            raise self.error(f"its weight has {self.blobs[0].shape[1]} inputs, x of {describe(x)} has {inputs}")
        steps, sequences = x[:2]
        if not steps:
            raise self.error(f"needs at least 1 step, x is {describe(x)}")
        if cont != (steps, sequences):
            raise self.error(f"cont must be {steps}x{sequences}, as x is {describe(x)}, found {describe(cont)}")
        if self.static:
            static = others.pop(0)
            inputs = self._inputs("x_static", static, 1)
            if static[0] != sequences or inputs != self.blobs[2].shape[1]:
                wanted = f"{sequences} sequences of {self.blobs[2].shape[1]} inputs"
                raise self.error(f"x_static must have {wanted}, is {describe(static)}")
        start = (1, sequences, self.num_output)
        for name, shape in zip(self.hidden, others, strict=False):
            if shape != start:
                raise self.error(f"{name}_0 must be {describe(start)}, found {describe(shape)}")
        self.check_size("gates", (steps, sequences, self.gates * self.num_output))
        self.geometry = steps, sequences
        if not self.exposed and (not self.state or self.state[0].shape != start):
            if sequences not in self._states:
                dtype = torch.float64 if self.context.dtype == torch.float64 else torch.float32
                self._states[sequences] = [
                    torch.zeros(start, dtype=dtype, device=self.context.device) for _ in self.hidden
                ]
            self.state = self._states[sequences]
            self.reset()
        return [(steps, sequences, self.num_output), *[start] * self.exposed]

    def keeps(self) -> Kept:
        """The inputs."""
        return Kept(bottoms=(0, 2) if self.static else (0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """All steps, from the hidden values that are bottoms or that the pass before has left."""
        x, cont = bottoms[:2]
        before = bottoms[2 + self.static :] if self.exposed else self.state
        first = [value[0].to(x.dtype, copy=True) for value in before]
        saved.update(first=first, cont=cont.to(x.dtype)[:, :, None], begins=self._begins(cont))
        top, after = self.go_through(bottoms, saved)
        if self.exposed:
            return [top, *(value[None].clone() for value in after)]
        for tensor, value in zip(self.state, after, strict=True):
            tensor[0].copy_(value)
        return [top]

    def go_through(self, bottoms: Tensors, saved: Saved) -> tuple[Tensor, Tensors]:
        """One matrix product for the inputs of all steps, then step after step; return what `unroll` does."""
        x = bottoms[0]
        weight, bias = (blob.data.to(x.dtype) for blob in self.blobs[:2])
        gates = torch.addmm(bias, self._rows(x), weight.t()).view(*self.geometry, len(bias))
        if self.static:
            gates += bottoms[2].flatten(1) @ self.blobs[2].data.to(x.dtype).t()
        return self.unroll(gates, saved["first"], saved)

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """Back through time to the gates' inputs, then one product for each weight and bottom."""
        x = bottoms[0]
        diff = self.unroll_backward(top_diffs[0], saved)
        rows, (weight, bias) = diff.flatten(0, 1), self.blobs[:2]
        diffs: Diffs = [None] * len(bottoms)
        if weight.wants_diff:
            weight.diff += rows.t() @ self._rows(x)
        if bias.wants_diff:
            bias.diff += rows.sum(0)
        if needs[0]:
            diffs[0] = (rows @ weight.data.to(x.dtype)).view(x.shape)
        if self.static:
            static, weight, total = bottoms[2], self.blobs[2], diff.sum(0)
            if weight.wants_diff:
                weight.diff += total.t() @ static.flatten(1)
            if needs[2]:
                diffs[2] = (total @ weight.data.to(x.dtype)).view(static.shape)
        if self.blobs[self.hidden_weight].wants_diff:
            h = self.before(0, saved["h"], saved)
            self.blobs[self.hidden_weight].diff += rows.t() @ h.flatten(0, 1)
        return diffs

    def unroll(self, gates: Tensor, first: Tensors, saved: Saved) -> tuple[Tensor, Tensors]:
        """Step through time; return the top and the hidden values after the last step.

        `gates` (T x N x gates num_output) is the inputs' part of them, and may be changed; the hidden values `first`,
        before the first step, are N x num_output. `saved` has `cont` (T x N x 1) and `begins`, whether at a step it is
        other than 1 anywhere. Puts in `saved`, beside its own, `h`: that of each step, T x N x num_output.
        """
        raise NotImplementedError

    def before(self, i: int, values: Tensor, saved: Saved) -> Tensor:
        """Return what each step made of hidden value `i` of the step before, T x N x num_output: cont times that."""
        before: Tensor = torch.cat([saved["first"][i][None], values[:-1]]).mul_(saved["cont"])
        return before

    def unroll_backward(self, dy: Tensor, saved: Saved) -> Tensor:
        """Return the derivative by the gates before their activation, T x N x gates num_output."""
        raise NotImplementedError

    def _begins(self, cont: Tensor) -> list[bool]:
        """At which steps cont is not 1 throughout; all, where the host must not wait for the device."""
        if self.context.passes.on_device is not None or cont.device.type != "cpu":
            return [True] * len(cont)
        begins: list[bool] = (cont != 1).any(1).tolist()
        return begins

    def _inputs(self, name: str, shape: Shape, first: int) -> int:
        """The number of inputs of a step: all from axis `first` on."""
        if len(shape) <= first or not math.prod(shape[first:]):
            raise self.error(f"needs at least 1 input from axis {first} on, {name} is {describe(shape)}")
        return math.prod(shape[first:])

    def _rows(self, x: Tensor) -> Tensor:
        """x with a row for each step of each sequence."""
        return x.reshape(math.prod(self.geometry), self.blobs[0].shape[1])

    def _hidden_weight(self, like: Tensor) -> Tensor:
        return self.blobs[self.hidden_weight].data.to(like.dtype)

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """MatMul for the inputs of all steps, then Scan; ONNX's LSTM or RNN where cont is 1 throughout.

        The hidden values before the first step and after the last are inputs LAYER_h_0 (and LAYER_c_0) and outputs
        LAYER_h_T of the graph, 1 x N x num_output, unless they are bottoms and tops.
        """
        x, cont, *others = bottoms
        static = others.pop(0) if self.static else None
        after = tops[1:]
        if not self.exposed:
            is_open = 1 in graph.open_axes(x)
            sequences = graph.open_axes(x)[1] or f"{self.name}_sequences" if is_open else self.geometry[1]
            for hidden in self.hidden:
                others.append(graph.name(f"{self.name}_{hidden}_0"))
                after.append(graph.name(f"{self.name}_{hidden}_T"))
                graph.inputs[others[-1]] = (1, sequences, self.num_output)
                graph.outputs[after[-1]] = others[-1], self.name
        rows = graph.reshape(x, [0, 0, -1])
        if graph.continuous and static is None:
            self._operator(graph, rows, others, tops[0], after)
            return
        gates = self._affine(graph, rows, 0, 1)
        if static is not None:
            gates = graph.add("Add", [gates, self._affine(graph, graph.add("Flatten", [static], axis=1), 2)])
        self._scan(graph, gates, None if graph.continuous else cont, others, tops[0], after)

    def _affine(self, graph: OnnxGraph, rows: str, weight: int, bias: int | None = None, top: str | None = None) -> str:
        """Add x W' + b, by the blobs of these numbers."""
        matrix = graph.constant(f"{self.name}_{weight}", self.blobs[weight].data.t())
        if bias is None:
            return graph.add("MatMul", [rows, matrix], top)
        product = graph.add("MatMul", [rows, matrix])
        return graph.add("Add", [product, graph.constant(f"{self.name}_{bias}", self.blobs[bias].data)], top)

    def _scan(
        self, graph: OnnxGraph, gates: str, cont: str | None, before: list[str], top: str, after: list[str]
    ) -> None:
        """Step through time: `before` and `after` are 1 x N x num_output, the gates T x N x gates num_output."""
        body, ends = graph.body(), [graph.name(f"{name}/last") for name in after]
        states = [body.name(f"{self.name}/{hidden}") for hidden in self.hidden]
        step, going_on = body.name(f"{self.name}/gates"), body.name(f"{self.name}/cont")
        kept = states if cont is None else [body.add("Mul", [state, going_on]) for state in states]
        gated = body.add("Add", [step, self._affine(body, kept[0], self.hidden_weight)])
        new = self.step_to_onnx(body, gated, kept)
        out = body.add("Identity", new[:1])
        begin = [graph.squeeze(name, [0]) for name in before]
        scanned = [gates] if cont is None else [gates, graph.unsqueeze(cont, [2])]
        each = [step] if cont is None else [step, going_on]
        outputs = graph.name(f"{top}/h")
        graph.node(
            "Scan",
            [*begin, *scanned],
            [*ends, outputs],
            body=body.as_body(f"{self.name}/step", [*states, *each], [*new, out]),
            num_scan_inputs=len(scanned),
        )
        self.top_to_onnx(graph, outputs, top)
        for end, name in zip(ends, after, strict=True):
            graph.unsqueeze(end, [0], name)

    def _operator(self, graph: OnnxGraph, rows: str, before: list[str], top: str, after: list[str]) -> None:
        """ONNX's own operator, whose gates are in another order, and whose weights have an axis of directions."""
        weights = [
            graph.constant(f"{self.name}_{what}", self.in_order(self.blobs[i].data)[None])
            for what, i in (("W", 0), ("R", self.hidden_weight))
        ]
        bias = self.in_order(self.blobs[1].data)
        both = graph.constant(f"{self.name}_B", torch.cat([bias, torch.zeros_like(bias)])[None])
        stacked = graph.name(f"{top}/directions")
        graph.node(self.type, [rows, *weights, both, "", *before], [stacked, *after], hidden_size=self.num_output)
        self.top_to_onnx(graph, graph.squeeze(stacked, [1]), top)

    def top_to_onnx(self, graph: OnnxGraph, h: str, top: str) -> None:
        """Add what makes the top of h of all steps: nothing."""
        graph.node("Identity", [h], [top])

    def in_order(self, gates: Tensor) -> Tensor:
        """Return rows by gates in the order of ONNX's operator."""
        return gates

    def step_to_onnx(self, body: OnnxGraph, gates: str, before: list[str]) -> list[str]:
        """Add one step, from the input of the gates and the hidden values before; return the names of those after."""
        raise NotImplementedError
