"""LSTMUnit: one step of an LSTM, from its gates."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, Saved, Shapes, Tensors, describe
from imae.layers.registry import register


@register
class LSTMUnit(Layer):
    """c = cont f c_prev + i g, h = o tanh c, with i, f, o = sigmoid and g = tanh of the four parts of the gates' input.

    Bottoms: c_prev (1 x N x D), the gates' input (1 x N x 4 D), cont (1 x N). Tops: c and h (1 x N x D).
    """

    type = "LSTMUnit"
    bottoms = (3, 3)
    tops = (2, 2)
    no_gradient_to = frozenset({2})
    index_bottoms = frozenset({2})
    capturable = True

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Check the bottoms against each other."""
        c_prev, gates, cont = bottoms
        if len(c_prev) != 3 or c_prev[0] != 1:
            raise self.error(f"needs c_prev of 1 x N x D, found {describe(c_prev)}")
        _, sequences, size = c_prev
        if gates != (1, sequences, 4 * size) or cont != (1, sequences):
            raise self.error(
                f"with c_prev of {describe(c_prev)} it needs gates of 1x{sequences}x{4 * size} and cont of "
                f"1x{sequences}, found {describe(gates)} and {describe(cont)}"
            )
        return [c_prev, c_prev]

    def keeps(self) -> Kept:
        """c_prev; the gates are saved as activated."""
        return Kept(bottoms=(0,))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """c and h."""
        c_prev, gates, cont = bottoms
        saved["gates"] = gates = activate(gates.clone())
        saved["cont"] = cont = cont.to(gates.dtype)[:, :, None]
        i, f, o, g = gates.chunk(4, -1)
        c = cont * f * c_prev + i * g
        saved["tanh"] = c.tanh()
        return [c, o * saved["tanh"]]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dc_prev = cont f dc, with dc what h passes on included; the gates' by their slopes."""
        (dc, dh), gates, cont = top_diffs, saved["gates"], saved["cont"]
        slopes, from_h = unit_slopes(gates, bottoms[0], saved["tanh"], cont)
        dc = dc + dh * from_h
        return [cont * gates.chunk(4, -1)[1] * dc, slopes * torch.cat([dc, dc, dh, dc], -1), None]


def activate(gates: Tensor) -> Tensor:
    """Replace the input of the gates (... x 4 D) by i, f, o = sigmoid and g = tanh of its parts, and return it."""
    size = gates.shape[-1] // 4
    gates[..., : 3 * size].sigmoid_()
    gates[..., 3 * size :].tanh_()
    return gates


def unit_slopes(gates: Tensor, c_prev: Tensor, tanh: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives by the gates' input, of c for i, f, g and of h for o (... x 4 D), and of h by c (... x D).

    `gates` are activated, `tanh` is that of c, and `cont` is ... x 1.
    """
    size = gates.shape[-1] // 4
    i, _, o, g = gates.chunk(4, -1)
    slopes = gates * gates
    torch.sub(gates, slopes, out=slopes)
    slopes[..., 3 * size :] = 1 - g * g
    for part, factor in zip(slopes.chunk(4, -1), (g, cont * c_prev, tanh, i), strict=True):
        part *= factor
    return slopes, o * (1 - tanh * tanh)
