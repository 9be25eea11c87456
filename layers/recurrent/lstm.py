"""LSTM: long short-term memory."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, OnnxGraph, Saved, Tensors
from imae.layers.recurrent import onednn
from imae.layers.recurrent.lstm_unit import slopes, unit_to_onnx
from imae.layers.recurrent.recurrent import Recurrent


class LSTM(Recurrent):
    """h_t = o tanh c_t, c_t = cont f c_(t-1) + i g: Hochreiter and Schmidhuber 1997, with forget gates, no peepholes.

    i, f, o = sigmoid and g = tanh of the four parts of W_x x_t + b + W_static x_static + W_h (cont h_(t-1)). The top is
    h. Hidden values: h and c.
    """

    type = "LSTM"
    hidden = ("h", "c")
    gates = 4

    def go_through(self, bottoms: Tensors, saved: Saved) -> tuple[Tensor, Tensors]:
        """In oneDNN's kernels where those are faster."""
        x = bottoms[0].flatten(2)
        if self.static or not onednn.is_faster(x, self.num_output, saved["begins"]):
            return super().go_through(bottoms, saved)
        saved["h"], after, saved["runs"] = onednn.forward(
            x, saved["cont"], saved["begins"], self._weights(x), saved["first"]
        )
        return saved["h"], after

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """As forward went."""
        if "runs" not in saved:
            return super().backward(bottoms, tops, top_diffs, saved, needs)
        x = bottoms[0]
        dx, diffs = onednn.backward(
            x.flatten(2), saved["cont"], self._weights(x), saved["h"], saved["runs"], top_diffs[0]
        )
        for blob, diff in zip(self.blobs, diffs, strict=True):
            if blob.wants_diff:
                blob.diff += diff
        return [dx.view(x.shape) if needs[0] else None, *[None] * (len(bottoms) - 1)]

    def _weights(self, like: Tensor) -> Tensors:
        return [blob.data.to(like.dtype) for blob in self.blobs]

    def unroll(self, gates: Tensor, first: Tensors, saved: Saved) -> tuple[Tensor, Tensors]:
        """h_t and c_t, step by step."""
        size, weight, (h, c) = self.num_output, self._hidden_weight(gates).t().contiguous(), first
        hs, cs, tanhs = (gates.new_empty(*gates.shape[:2], size) for _ in range(3))
        saved.update(gates=gates, h=hs, c=cs, tanh=tanhs)
        i, f, o, g = (part.unbind() for part in gates.chunk(4, 2))
        sigmoids, steps, cont, begins = gates[:, :, : 3 * size].unbind(), gates.unbind(), saved["cont"], saved["begins"]
        for t, (h_t, c_t, tanh) in enumerate(zip(hs.unbind(), cs.unbind(), tanhs.unbind(), strict=True)):
            if begins[t]:
                h, c = h * cont[t], c * cont[t]
            steps[t].addmm_(h, weight)
            sigmoids[t].sigmoid_()
            g[t].tanh_()
            c = torch.mul(i[t], g[t], out=c_t).addcmul_(f[t], c)
            h = torch.mul(o[t], torch.tanh(c, out=tanh), out=h_t)
        return hs, [h, c]

    def unroll_backward(self, dy: Tensor, saved: Saved) -> Tensor:
        """dh_(t-1) = dy_(t-1) + cont W_h' (the gates' derivatives), dc_(t-1) = cont f dc_t."""
        weight, cont, begins, gates = self._hidden_weight(dy), saved["cont"], saved["begins"], saved["gates"]
        dgates, by_h = slopes(gates, self.before(1, saved["c"], saved), saved["tanh"])
        di_df, do, dg = (part.unbind() for part in (dgates[:, :, :2], dgates[:, :, 2], dgates[:, :, 3]))
        steps, f, slope, dys = dgates.flatten(2).unbind(), gates.chunk(4, 2)[1].unbind(), by_h.unbind(), dy.unbind()
        dh, dc = dys[-1], torch.zeros_like(dys[-1])
        for t in reversed(range(len(steps))):
            dc = torch.addcmul(dc, dh, slope[t])
            di_df[t].mul_(dc[:, None])
            do[t].mul_(dh)
            dg[t].mul_(dc)
            if t:
                dh, dc = steps[t] @ weight, dc.mul_(f[t])
                if begins[t]:
                    dh, dc = dh * cont[t], dc * cont[t]
                dh.add_(dys[t - 1])
        return dgates.flatten(2)

    def in_order(self, gates: Tensor) -> Tensor:
        """i, o, f, g."""
        i, f, o, g = gates.chunk(4)
        return torch.cat([i, o, f, g])

    def step_to_onnx(self, body: OnnxGraph, gates: str, before: list[str]) -> list[str]:
        """h and c."""
        c, h = (body.name(f"{self.name}/{what}_t") for what in "ch")
        unit_to_onnx(body, gates, before[1], [c, h])
        return [h, c]
