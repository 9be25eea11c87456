"""LRN: each value divided by a power of the squares around it."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.layers.values import at_least_float32


class LRN(Layer):
    """y = x s^-`beta`, s = k + `alpha` / n times the sum of x^2 over a window of n values (Krizhevsky et al. 2012).

    ACROSS_CHANNELS: the window is `local_size` channels at one place, and k is a setting. WITHIN_CHANNEL: it is
    `local_size` x `local_size` places of one channel, and k is 1. n is the window's full size at the borders, too.
    Computed in float32 at least.
    """

    type = "LRN"
    capturable = True
    kept = Kept(bottoms=(0,))

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.lrn_param
        self.size, self.beta = param.local_size, param.beta
        if self.size % 2 == 0:
            raise self.error(f"local_size must be odd, not {self.size}")
        self.across = param.norm_region == param.ACROSS_CHANNELS
        self.axes = (1,) if self.across else (2, 3)
        self.k = param.k if self.across else 1.0
        self.factor = param.alpha / self.size ** len(self.axes)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's, of 4 axes."""
        if len(bottoms[0]) != 4:
            raise self.error(f"needs a bottom of 4 axes, found {describe(bottoms[0])}")
        return bottoms

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        x = at_least_float32(bottoms[0])
        saved["s"] = s = self._window_sum(x * x).mul_(self.factor).add_(self.k)
        return [(x * s.pow(-self.beta)).to(bottoms[0].dtype)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = s^-beta dy - 2 beta alpha / n x times the sum of x s^(-beta - 1) dy over the window."""
        x, dy, s = at_least_float32(bottoms[0]), at_least_float32(top_diffs[0]), saved["s"]
        direct = dy * s.pow(-self.beta)
        around = self._window_sum((direct * x).div_(s)).mul_(x)
        return [direct.sub_(around.mul_(2 * self.beta * self.factor)).to(top_diffs[0].dtype)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """LRN; within channels its formula, by AveragePool."""
        param = self.param.lrn_param
        if self.across:
            graph.node("LRN", bottoms, tops, alpha=param.alpha, beta=self.beta, bias=self.k, size=self.size)
            return
        alpha, k, power = (
            graph.constant(f"{self.name}_{what}", torch.tensor(value))
            for what, value in (("alpha", param.alpha), ("k", self.k), ("power", -self.beta))
        )
        squares = graph.add("Mul", bottoms * 2)
        mean = graph.add(
            "AveragePool",
            [squares],
            kernel_shape=[self.size] * 2,
            pads=[self.size // 2] * 4,
            count_include_pad=1,
        )
        s = graph.add("Add", [graph.add("Mul", [mean, alpha]), k])
        graph.node("Mul", [bottoms[0], graph.add("Pow", [s, power])], tops)

    def _window_sum(self, x: Tensor) -> Tensor:
        """The sum over the window around each value, 0 being past the border, by shifted copies."""
        for axis in self.axes:
            size, total = x.shape[axis], x.clone()
            for shift in range(1, min(self.size // 2, size - 1) + 1):
                total.narrow(axis, shift, size - shift).add_(x.narrow(axis, 0, size - shift))
                total.narrow(axis, 0, size - shift).add_(x.narrow(axis, shift, size - shift))
            x = total
        return x
