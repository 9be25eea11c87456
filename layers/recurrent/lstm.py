"""LSTM: long short-term memory."""

import torch
from torch import Tensor

from imae.layers.layer import OnnxGraph, Saved, Tensors
from imae.layers.recurrent.lstm_unit import unit_backward, unit_to_onnx
from imae.layers.recurrent.recurrent import Recurrent


class LSTM(Recurrent):
    """h_t = o tanh c_t, c_t = cont f c_(t-1) + i g: Hochreiter and Schmidhuber 1997, with forget gates, no peepholes.

    i, f, o = sigmoid and g = tanh of the four parts of W_x x_t + b + W_static x_static + W_h (cont h_(t-1)). The top is
    h. Hidden values: h and c.
    """

    type = "LSTM"
    hidden = ("h", "c")
    gates = 4

    def unroll(self, gates: Tensor, cont: Tensor, before: Tensors, saved: Saved) -> tuple[Tensor, Tensors]:
        """h_t and c_t, step by step."""
        size, weight, (h, c) = self.num_output, self._hidden_weight(gates).t().contiguous(), before
        hs, tanhs, h_before, c_before = (gates.new_empty(*gates.shape[:2], size) for _ in range(4))
        saved.update(gates=gates, before=h_before, c_before=c_before, tanh=tanhs)
        i, f, o, g = (part.unbind() for part in gates.chunk(4, 2))
        sigmoids, steps, going_on = gates[:, :, : 3 * size].unbind(), gates.unbind(), cont.unbind()
        into = zip(hs.unbind(), tanhs.unbind(), h_before.unbind(), c_before.unbind(), strict=True)
        for t, (h_t, tanh, h_kept, c_kept) in enumerate(into):
            torch.mul(h, going_on[t], out=h_kept)
            torch.mul(c, going_on[t], out=c_kept)
            steps[t].addmm_(h_kept, weight)
            sigmoids[t].sigmoid_()
            g[t].tanh_()
            c = (i[t] * g[t]).addcmul_(f[t], c_kept)
            torch.tanh(c, out=tanh)
            h = torch.mul(o[t], tanh, out=h_t)
        return hs, [h, c]

    def unroll_backward(self, dy: Tensor, saved: Saved) -> Tensor:
        """dh_(t-1) = dy_(t-1) + cont W_h' (the gates' derivatives), dc_(t-1) = cont f dc_t."""
        weight, cont = self._hidden_weight(dy), saved["cont"].unbind()
        dgates = torch.empty_like(saved["gates"])
        gates, c_before, tanh = (saved[name].unbind() for name in ("gates", "c_before", "tanh"))
        dys, steps = dy.unbind(), dgates.unbind()
        dh, dc = dys[-1], torch.zeros_like(dys[-1])
        for t in reversed(range(len(steps))):
            dc = unit_backward(gates[t], c_before[t], tanh[t], dc, dh, steps[t])
            if t:
                dh = torch.addcmul(dys[t - 1], steps[t] @ weight, cont[t])
                dc.mul_(cont[t])
        return dgates

    def in_order(self, gates: Tensor) -> Tensor:
        """i, o, f, g."""
        i, f, o, g = gates.chunk(4)
        return torch.cat([i, o, f, g])

    def step_to_onnx(self, body: OnnxGraph, gates: str, before: list[str]) -> list[str]:
        """h and c."""
        c, h = (body.name(f"{self.name}/{what}_t") for what in "ch")
        unit_to_onnx(body, gates, before[1], [c, h])
        return [h, c]
