"""LSTM: long short-term memory."""

import torch
from torch import Tensor

from imae.layers.layer import Saved, Tensors
from imae.layers.recurrent.lstm_unit import unit_slopes
from imae.layers.recurrent.recurrent import Recurrent
from imae.layers.registry import register


@register
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
        size, weight, (h, c) = self.num_output, self._hidden_weight(gates).t(), before
        hs, cs, tanhs, hs_before, kept = (gates.new_empty(*gates.shape[:2], size) for _ in range(5))
        saved.update(gates=gates, before=hs_before, c0=c.clone(), c=cs, tanh=tanhs, kept=kept)
        i, f, o, g = (part.unbind() for part in gates.chunk(4, 2))
        sigmoids, steps = gates[:, :, : 3 * size].unbind(), gates.unbind()
        into = zip(hs.unbind(), cs.unbind(), tanhs.unbind(), hs_before.unbind(), kept.unbind(), strict=True)
        for t, (going_on, (h_t, c_t, tanh, h_before, kept_t)) in enumerate(zip(cont.unbind(), into, strict=True)):
            torch.mul(h, going_on, out=h_before)
            steps[t].addmm_(h_before, weight)
            sigmoids[t].sigmoid_()
            g[t].tanh_()
            torch.mul(f[t], going_on, out=kept_t)
            torch.mul(i[t], g[t], out=c_t)
            c_t.addcmul_(kept_t, c)
            torch.tanh(c_t, out=tanh)
            torch.mul(o[t], tanh, out=h_t)
            h, c = h_t, c_t
        return hs, [h, c]

    def unroll_backward(self, dy: Tensor, saved: Saved) -> Tensor:
        """dc_(t-1) = cont f dc_t, dh_(t-1) = dy_(t-1) + cont W_h' (the gates' derivatives)."""
        size, weight, cont = self.num_output, self._hidden_weight(dy), saved["cont"].unbind()
        c_before = torch.cat([saved["c0"][None], saved["c"][:-1]])
        slopes, from_h = unit_slopes(saved["gates"], c_before, saved["tanh"], saved["cont"])
        i_and_f = slopes[:, :, : 2 * size].unflatten(2, (2, size)).unbind()  # type: ignore[no-untyped-call]
        steps, dys, kept = slopes.unbind(), dy.unbind(), saved["kept"].unbind()
        o, g = (part.unbind() for part in slopes[:, :, 2 * size :].chunk(2, 2))
        through = from_h.unbind()
        dh, dc = dys[-1], torch.zeros_like(dy[-1])
        for t in reversed(range(len(steps))):
            dc = torch.addcmul(dc, dh, through[t])
            i_and_f[t].mul_(dc[:, None])
            o[t].mul_(dh)
            g[t].mul_(dc)
            if t:
                dh = torch.addcmul(dys[t - 1], steps[t] @ weight, cont[t])
                dc.mul_(kept[t])
        return slopes
