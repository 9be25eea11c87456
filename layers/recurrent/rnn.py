"""RNN: the plain recurrent network."""

import torch
from torch import Tensor

from imae.layers.layer import OnnxGraph, Saved, Shapes, Tensors
from imae.layers.recurrent.recurrent import Recurrent


class RNN(Recurrent):
    """o_t = tanh(W_o h_t + b_o), h_t = tanh(W_x x_t + b + W_static x_static + W_h (cont h_(t-1))).

    The top is o. Hidden values: h. Blobs after those of Recurrent: W_o (num_output x num_output), b_o (num_output).
    """

    type = "RNN"
    hidden = ("h",)
    gates = 1

    def setup(self, bottoms: Shapes) -> None:
        super().setup(bottoms)
        param = self.param.recurrent_param
        self.add_blob((self.num_output, self.num_output), param.weight_filler)
        self.add_blob((self.num_output,), param.bias_filler)

    def unroll(self, gates: Tensor, first: Tensors, saved: Saved) -> tuple[Tensor, Tensors]:
        """h_t step by step, then o of all steps in one product."""
        weight, (h,) = self._hidden_weight(gates).t().contiguous(), first
        for h_t, cont, begins in zip(gates.unbind(), saved["cont"], saved["begins"], strict=True):
            h = h_t.addmm_(h * cont if begins else h, weight).tanh_()
        saved["h"] = gates
        output, bias = (blob.data.to(gates.dtype) for blob in self.blobs[-2:])
        saved["o"] = torch.addmm(bias, gates.flatten(0, 1), output.t()).view_as(gates).tanh_()
        return saved["o"], [h]

    def unroll_backward(self, dy: Tensor, saved: Saved) -> Tensor:
        """Through W_o in one product, then dh_(t-1) += cont W_h' (1 - h_t^2) dh_t."""
        weight, cont, begins, h, o = self._hidden_weight(dy), *(saved[name] for name in ("cont", "begins", "h", "o"))
        output, bias = self.blobs[-2:]
        rows = (dy * (1 - o * o)).flatten(0, 1)
        if output.wants_diff:
            output.diff += rows.t() @ h.flatten(0, 1)
        if bias.wants_diff:
            bias.diff += rows.sum(0)
        dhs = (rows @ output.data.to(dy.dtype)).view_as(dy).unbind()
        slopes: Tensor = 1 - h * h
        steps, dh = slopes.unbind(), dhs[-1]
        for t in reversed(range(len(steps))):
            steps[t].mul_(dh)
            if t:
                dh = steps[t] @ weight
                dh = (dh * cont[t] if begins[t] else dh).add_(dhs[t - 1])
        return slopes

    def step_to_onnx(self, body: OnnxGraph, gates: str, before: list[str]) -> list[str]:
        """h."""
        return [body.add("Tanh", [gates])]

    def top_to_onnx(self, graph: OnnxGraph, h: str, top: str) -> None:
        """Add o of all steps."""
        last = len(self.blobs) - 1
        graph.node("Tanh", [self._affine(graph, h, last - 1, last)], [top])
