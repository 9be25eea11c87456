"""LSTMUnit: one step of an LSTM, from its gates."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe

aten = torch.ops.aten


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
    kept = Kept(bottoms=(0,))  # c_prev; the gates are saved as activated

    def reshape(self, bottoms: Shapes) -> Shapes:
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

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        c_prev, gates, cont = bottoms
        saved["gates"] = gates = activate(gates.clone())
        saved["cont"] = cont = cont.to(gates.dtype)[:, :, None]
        i, f, o, g = gates.chunk(4, -1)
        c = f * (cont * c_prev) + i * g
        saved["tanh"] = c.tanh()
        return [c, o * saved["tanh"]]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dc goes on with dc + dh o (1 - tanh^2), which the slopes of i, f and g are multiplied by, that of o by dh."""
        cont, (dc, dh) = saved["cont"], top_diffs
        dgates, by_h = slopes(saved["gates"], cont * bottoms[0], saved["tanh"])
        dc = torch.addcmul(dc, dh, by_h)
        dgates[..., :2, :].mul_(dc[..., None, :])
        dgates[..., 2, :].mul_(dh)
        dgates[..., 3, :].mul_(dc)
        return [saved["gates"].chunk(4, -1)[1] * dc.mul_(cont), dgates.flatten(-2), None]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Sigmoid and Tanh of the parts of a Split, Mul and Add."""
        c_prev, gates, cont = bottoms
        kept = graph.add("Mul", [c_prev, graph.unsqueeze(cont, [2])])
        unit_to_onnx(graph, gates, kept, tops)


def activate(gates: Tensor) -> Tensor:
    """Replace the input of the gates (... x 4 D) by i, f, o = sigmoid and g = tanh of its parts, and return it."""
    size = gates.shape[-1] // 4
    gates[..., : 3 * size].sigmoid_()
    gates[..., 3 * size :].tanh_()
    return gates


def slopes(gates: Tensor, c_before: Tensor, tanh: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives by the gates' input of c (i, f and g) and of h (o), ... x 4 x D, and that of h by c.

    `gates` (... x 4 D) are activated, `c_before` is cont c_prev, and `tanh` that of c.
    """
    i, f, o, g = gates.chunk(4, -1)
    slope = gates.new_empty((*tanh.shape[:-1], 4, tanh.shape[-1]))
    di, df, do, dg = slope.unbind(-2)
    aten.sigmoid_backward(g, i, grad_input=di)
    aten.sigmoid_backward(c_before, f, grad_input=df)
    aten.sigmoid_backward(tanh, o, grad_input=do)
    aten.tanh_backward(i, g, grad_input=dg)
    return slope, aten.tanh_backward(o, tanh)


def unit_to_onnx(graph: OnnxGraph, gates: str, c_before: str, tops: list[str]) -> None:
    """Add c and h, called `tops`, of the input of the gates (... x 4 D) and `c_before`, which is cont c_prev."""
    names = [graph.name(f"{gates}/{part}") for part in "ifog"]
    graph.node("Split", [gates], names, axis=-1, **({"num_outputs": 4} if graph.opset >= 18 else {}))
    i, f, o = (graph.add("Sigmoid", [part]) for part in names[:3])
    c = graph.add(
        "Add", [graph.add("Mul", [f, c_before]), graph.add("Mul", [i, graph.add("Tanh", names[3:])])], tops[0]
    )
    graph.node("Mul", [o, graph.add("Tanh", [c])], tops[1:])
