"""Layers that do the work of several: each is equal to a chain of plain layers, which `imae.nets.rules` lists."""

import torch
from torch import Tensor

from imae.layers.activation.relu import ReLU
from imae.layers.activation.scale import Scale
from imae.layers.layer import Diffs, Kept, Layer, Saved, Shapes, Tensors
from imae.layers.normalization.batch_norm import BatchNorm, with_channels
from imae.layers.utility.eltwise import Eltwise
from imae.layers.vision.convolution import Convolution

aten = torch.ops.aten


class FusedLayer(Layer):
    """A chain of layers run as one; named after the last, whose top it makes."""

    def __init__(self, *chain: Layer | None) -> None:
        self.chain = [layer for layer in chain if layer]
        super().__init__(self.chain[-1].param, self.chain[-1].context)
        self.blobs = [blob for layer in self.chain for blob in layer.blobs]

    def reshape(self, bottoms: Shapes) -> Shapes:
        """As the layers of the chain, one after the other: each takes the one before it as its first bottom."""
        shapes, others = bottoms[: len(self.chain[0].param.bottom)], bottoms[len(self.chain[0].param.bottom) :]
        for layer in self.chain:
            shapes = layer.reshape(shapes) or []
            count = len(layer.param.bottom) - 1 if layer is not self.chain[0] else 0
            shapes, others = [*shapes, *others[:count]], others[count:]
        return shapes


class BiaslessConvolution(FusedLayer):
    """A Convolution before a BatchNorm, without its bias, which the BatchNorm would subtract again."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__(convolution)
        self.convolution = convolution

    def keeps(self) -> Kept:
        """As the Convolution."""
        return self.convolution.keeps()

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = x * w."""
        return [self.convolution.convolve(bottoms[0], None)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dw and dx; db is 0, since the BatchNorm's output does not depend on the bias."""
        return self.convolution.convolve_backward(bottoms, top_diffs, needs, bias=False)


class Normalise(FusedLayer):
    """BatchNorm by the batch's statistics, then Scale and ReLU where there are any.

    The bias that the `convolution` before leaves out is added to the running mean. The top is recomputed for backward:
    it costs little, and its bottom is kept anyway.
    """

    recomputes = True

    def __init__(
        self, norm: BatchNorm, scale: Scale | None, relu: ReLU | None, convolution: Convolution | None
    ) -> None:
        super().__init__(norm, scale, relu)
        self.norm, self.scale, self.relu = norm, scale, relu
        self.bias = convolution.blobs[1] if convolution and convolution.bias_term else None

    def keeps(self) -> Kept:
        """x, and the sign of y."""
        return Kept(bottoms=(0,), tops=(0,) if self.relu else ())

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = max(0, gamma (x - mean) / sqrt(var + eps) + beta)."""
        x = with_channels(bottoms[0])
        mean, var = (torch.zeros_like(blob.data) for blob in self.norm.blobs[:2])
        y, batch_mean, inverse_std = aten.native_batch_norm(x, *self._affine(), mean, var, True, 1.0, self.norm.eps)
        self.norm.move_on(mean if self.bias is None else mean.add_(self.bias.data), var, x.numel() // x.shape[1])
        saved.update(mean=batch_mean, inverse_std=inverse_std)
        return [self._rectified(y).view_as(bottoms[0])]

    def recompute(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y, by the mean and 1 / sqrt(var + eps) that were saved."""
        x, var = with_channels(bottoms[0]), saved["inverse_std"] ** -2
        y = aten.native_batch_norm(x, *self._affine(), saved["mean"], var, False, 0.0, 0.0)[0]
        return [self._rectified(y).view_as(bottoms[0])]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """As BatchNorm, Scale and ReLU, one after the other."""
        x = with_channels(bottoms[0])
        dy = top_diffs[0].view_as(x)
        if self.relu:
            dy = aten.threshold_backward(dy, tops[0].view_as(x), 0)
        gamma, _ = self._affine()
        wanted = [needs[0], gamma is not None, gamma is not None]
        dx, dgamma, dbeta = aten.native_batch_norm_backward(
            dy, x, gamma, None, None, saved["mean"], saved["inverse_std"], True, self.norm.eps, wanted
        )
        for blob, diff in zip(self.scale.blobs if self.scale else (), (dgamma, dbeta), strict=False):
            if blob.wants_diff:
                blob.diff += diff
        return [dx.view_as(top_diffs[0]) if needs[0] else None]

    def _affine(self) -> tuple[Tensor | None, Tensor | None]:
        """gamma and beta, None without a Scale."""
        if not self.scale:
            return None, None
        gamma, *beta = (blob.data for blob in self.scale.blobs)
        return gamma, beta[0] if beta else torch.zeros_like(gamma)

    def _rectified(self, y: Tensor) -> Tensor:
        return y.relu_() if self.relu else y


class FoldedConvolution(FusedLayer):
    """Convolution, BatchNorm by the global statistics, Scale and ReLU: one convolution with other weights."""

    def __init__(self, convolution: Convolution, norm: BatchNorm, scale: Scale | None, relu: ReLU | None) -> None:
        super().__init__(convolution, norm, scale, relu)
        self.convolution, self.norm, self.scale, self.relu = convolution, norm, scale, relu
        self._folded: list[tuple[Tensor, int]] = []  # the blobs' data and their versions when last folded

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = max(0, x * (w g) + (b - mean) g + beta) with g = gamma / sqrt(var + eps)."""
        # A replayed pass must fold the current weights, and a replayed update does not raise version counters.
        if self.context.passes.on_device is not None or self.context.device.type != "cpu":
            self._folded = []
        if not self._folded or any(
            blob.data is not data or data._version != version
            for blob, (data, version) in zip(self.blobs, self._folded, strict=True)
        ):
            self._weight, self._bias = self._fold()
            self._folded = [(blob.data, blob.data._version) for blob in self.blobs]
        y = self.convolution.convolve(bottoms[0], self._bias, self._weight)
        return [y.relu_() if self.relu else y]

    def _fold(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias of the one convolution."""
        mean, var = self.norm.statistics()
        factor = (var + self.norm.eps).rsqrt()
        bias = -mean
        if self.convolution.bias_term:
            bias = bias + self.convolution.blobs[1].data
        if self.scale:
            factor = factor * self.scale.blobs[0].data
        bias = bias * factor
        if self.scale and self.scale.bias_term:
            bias = bias + self.scale.blobs[1].data
        weight = self.convolution.blobs[0].data
        return weight * factor.view(-1, *[1] * (weight.dim() - 1)), bias


class SumReLU(FusedLayer):
    """Eltwise SUM, then ReLU on the sum in place."""

    kept = Kept(tops=(0,))  # The sign of y

    def __init__(self, eltwise: Eltwise, relu: ReLU) -> None:
        super().__init__(eltwise, relu)
        self.eltwise = eltwise

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = max(0, sum of coeff_i x_i)."""
        return [self.eltwise.forward(bottoms, saved)[0].relu_()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx_i = coeff_i dy where y > 0."""
        dy = aten.threshold_backward(top_diffs[0], tops[0], 0)
        return self.eltwise.backward(bottoms, tops, [dy], saved, needs)
