"""The execution plan: which layers run as one, and which values are made again for backward instead of kept."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from imae.layers.batch_norm import BatchNorm
from imae.layers.convolution import Convolution
from imae.layers.eltwise import Eltwise
from imae.layers.layer import Layer, Saved
from imae.layers.loss.cross_entropy import MultinomialLogisticLoss, SoftmaxWithLoss
from imae.layers.loss.gce import GCELoss, SoftmaxWithGCELoss
from imae.layers.loss.imae import IMAELoss, SoftmaxWithIMAELoss
from imae.layers.loss.mae import MAELoss, SoftmaxWithMAELoss
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities
from imae.layers.relu import ReLU
from imae.layers.scale import Scale
from imae.layers.softmax import Softmax

if TYPE_CHECKING:
    from imae.nets.net import Step

aten = torch.ops.aten
L = TypeVar("L", bound=Layer)

FUSED_LOSSES: dict[type[Layer], type[OnLogits]] = {
    MultinomialLogisticLoss: SoftmaxWithLoss,
    MAELoss: SoftmaxWithMAELoss,
    IMAELoss: SoftmaxWithIMAELoss,
    GCELoss: SoftmaxWithGCELoss,
}


def fused_plan(steps: "list[Step]") -> "list[Step]":
    """Return steps that compute what `steps` do, with chains of layers replaced by one where a fused form exists.

    A chain is fused only if nothing else reads the values inside it; those then do not exist. Fused forms:
    Convolution + BatchNorm (+ Scale) (+ ReLU); BatchNorm (+ Scale) (+ ReLU); Eltwise SUM + ReLU; Softmax + loss.
    """
    readers = Counter(bottom for step in steps for bottom in step.bottoms)
    following = {step.bottoms[0]: step for step in steps if step.bottoms}
    plan: list[Step] = []
    taken: set[int] = set()
    for step in steps:
        if id(step) in taken:
            continue
        chain = [step]
        while len(tops := chain[-1].tops) == 1 and readers[tops[0]] == 1 and not any(chain[-1].loss_weights):
            follower = following.get(tops[0])
            if follower is None or follower.backward != step.backward or follower.needs[0] != step.backward:
                break
            chain.append(follower)
        fused, length = _fuse([member.layer for member in chain], step.backward)
        if length == 1:
            plan.append(step)
            continue
        taken.update(id(member) for member in chain[:length])
        plan += _as_steps(fused, chain[:length])
    return plan


def plan_release(steps: "Sequence[Step]", kept: Collection[int]) -> None:
    """Note at each step which values no later one reads; those in `kept` are left out."""
    last: dict[int, Step] = {}
    for step in steps:
        step.finished = []
        last.update(dict.fromkeys([*step.tops, *step.bottoms], step))
    for value, step in last.items():
        if value not in kept:
            step.finished.append(value)


def _as_steps(layers: list[Layer], chain: "list[Step]") -> "list[Step]":
    """The steps of a fused chain: one, or two with the first chain member's top between them."""
    from imae.nets.net import Step

    first, last = chain[0], chain[-1]
    bottoms = first.bottoms + [bottom for member in chain[1:] for bottom in member.bottoms[1:]]
    needs = first.needs + [need for member in chain[1:] for need in member.needs[1:]]
    if len(layers) == 1:
        return [Step(layers[0], bottoms, last.tops, last.loss_weights, needs, first.backward)]
    between = first.tops
    return [
        Step(layers[0], first.bottoms, between, [0.0], first.needs, first.backward),
        Step(layers[1], between, last.tops, last.loss_weights, [first.backward], first.backward),
    ]


def _fuse(chain: list[Layer], backward: bool) -> tuple[list[Layer], int]:
    """Return the fused form of the longest known beginning of `chain`, and how many layers it stands for (1: none)."""
    rest = list(chain)
    convolution = _take(rest, Convolution, lambda layer: len(layer.param.bottom) == 1)
    if norm := _take(rest, BatchNorm, lambda layer: not (layer.use_global and backward)):
        scale = _take(rest, Scale, _scales_channels)
        relu = _take(rest, ReLU, _is_plain)
        length = len(chain) - len(rest)
        if norm.use_global:
            return ([FoldedConvolution(convolution, norm, scale, relu)], length) if convolution else ([], 1)
        normalise = Normalise(norm, scale, relu, convolution)
        return [*([BiaslessConvolution(convolution)] if convolution else []), normalise], length
    rest = list(chain)
    if (eltwise := _take(rest, Eltwise, lambda layer: layer.operation == "SUM")) and _take(rest, ReLU, _is_plain):
        return [SumReLU(eltwise)], 2
    if (softmax := _take(rest, Softmax)) and rest and isinstance(rest[0], OnProbabilities):
        return _fused_loss(softmax, rest[0])
    return [], 1


def _take(chain: list[Layer], kind: type[L], fits: Callable[[L], bool] = lambda layer: True) -> L | None:
    """Remove and return the first layer of `chain` if it is of `kind` (no subclass of it) and fits."""
    if chain and isinstance(layer := chain[0], kind) and type(layer) is kind and fits(layer):
        del chain[0]
        return layer
    return None


def _scales_channels(scale: Scale) -> bool:
    """Whether it multiplies by learned blobs, one value a channel."""
    return len(scale.param.bottom) == 1 and scale.first == 1 and scale.blobs[0].data.dim() == 1


def _is_plain(relu: ReLU) -> bool:
    return not relu.slope


def _fused_loss(softmax: Softmax, loss: OnProbabilities) -> tuple[list[Layer], int]:
    """The loss on logits in place of Softmax and a loss on probabilities, with the latter's bound on p_y."""
    if loss.along != softmax.along or type(loss) not in FUSED_LOSSES:
        return [], 1
    fused = type(loss.param)()
    fused.CopyFrom(loss.param)
    fused.type = FUSED_LOSSES[type(loss)].type
    layer = FUSED_LOSSES[type(loss)](fused, loss.context)
    layer.setup([softmax.shape, loss.labels.shape])
    layer.smallest = loss.smallest  # type: ignore[misc]  # of this one layer
    return [layer], 2


class FusedLayer(Layer):
    """Several layers run as one; named after the last, whose top it makes."""

    def __init__(self, *layers: Layer | None) -> None:
        present = [layer for layer in layers if layer]
        super().__init__(present[-1].param, present[-1].context)
        self.blobs = [blob for layer in present for blob in layer.blobs]


class BiaslessConvolution(FusedLayer):
    """A Convolution before a BatchNorm, without its bias: the BatchNorm takes it out again."""

    by_image = True

    def __init__(self, convolution: Convolution) -> None:
        super().__init__(convolution)
        self.convolution = convolution

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = x * w."""
        saved["x"] = bottoms
        return [self.convolution.convolve(bottoms[0], None)]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dw and dx; db is 0, since the BatchNorm's output does not depend on the bias."""
        return self.convolution.backward(top_diffs, saved, needs, bias=False)


class Normalise(FusedLayer):
    """BatchNorm by the batch's statistics, then Scale and ReLU where there are any.

    The bias of the `convolution` before was left out: it belongs in the running mean. The top is made again for
    backward: it costs little, and its bottom is kept anyway.
    """

    remakes = True

    def __init__(
        self, norm: BatchNorm, scale: Scale | None, relu: ReLU | None, convolution: Convolution | None
    ) -> None:
        super().__init__(norm, scale, relu)
        self.norm, self.scale, self.relu = norm, scale, relu
        self.bias = convolution.blobs[1] if convolution and convolution.bias_term else None
        self.owns_bottom = convolution is not None
        """Whether no other layer reads or keeps the bottom: its memory is free for the gradient by it."""

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = max(0, gamma (x - mean) / sqrt(var + eps) + beta)."""
        x = bottoms[0] if bottoms[0].dim() > 1 else bottoms[0][:, None]
        mean, var = (torch.zeros_like(blob.data) for blob in self.norm.blobs[:2])
        gamma, beta = self.affine()
        y, batch_mean, inverse_std = aten.native_batch_norm(x, gamma, beta, mean, var, True, 1.0, self.norm.eps)
        self.norm.move_on(mean if self.bias is None else mean.add_(self.bias.data), var, x.numel() // x.shape[1])
        top = (y.relu_() if self.relu else y).view_as(bottoms[0])
        saved.update(x=x, mean=batch_mean, inverse_std=inverse_std)
        if self.relu:
            saved["y"] = top
        return [top]

    def remake(self, saved: Saved) -> list[Tensor]:
        """y, by the mean and 1 / sqrt(var + eps) that were saved."""
        x, var = saved["x"], saved["inverse_std"] ** -2
        y = aten.native_batch_norm(x, *self.affine(), saved["mean"], var, False, 0.0, 0.0)[0]
        return [(y.relu_() if self.relu else y).view(saved["tops"][0][0])]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """As BatchNorm, Scale and ReLU, one after the other."""
        dy = top_diffs[0].view_as(saved["x"])
        if self.relu:
            dy = aten.threshold_backward(dy, saved["y"].view_as(dy), 0)
        gamma, _ = self.affine()
        learned = gamma is not None
        dx, dgamma, dbeta = aten.native_batch_norm_backward(
            dy,
            saved["x"],
            gamma,
            None,
            None,
            saved["mean"],
            saved["inverse_std"],
            True,
            self.norm.eps,
            [needs[0], learned, learned],
        )
        self.add_diffs(dgamma, dbeta)
        return [dx.view_as(top_diffs[0]) if needs[0] else None]

    def add_diffs(self, dgamma: Tensor, dbeta: Tensor) -> None:
        """Add to the gradients of gamma and beta, as far as they are there and learned."""
        for blob, diff in zip(self.scale.blobs if self.scale else (), (dgamma, dbeta), strict=False):
            if blob.lr_mult:
                blob.diff += diff

    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """Return gamma and beta, None without a Scale."""
        if not self.scale:
            return None, None
        gamma, *beta = (blob.data for blob in self.scale.blobs)
        return gamma, beta[0] if beta else torch.zeros_like(gamma)


class FoldedConvolution(FusedLayer):
    """Convolution, BatchNorm by the global statistics, Scale and ReLU: one convolution with other weights."""

    by_image = True

    def __init__(self, convolution: Convolution, norm: BatchNorm, scale: Scale | None, relu: ReLU | None) -> None:
        super().__init__(convolution, norm, scale, relu)
        self.convolution, self.norm, self.scale, self.relu = convolution, norm, scale, relu
        self._folded: list[tuple[Tensor, int]] = []
        """The blobs' data, and how often it had been changed, when weight and bias were last folded."""

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = max(0, x * (w g) + (b - mean) g + beta) with g = gamma / sqrt(var + eps)."""
        # A replayed pass must see the weights of its time, and replayed updates count no versions.
        if self.context.number is not None or self.context.device.type != "cpu":
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

    by_image = True

    def __init__(self, eltwise: Eltwise) -> None:
        super().__init__(eltwise)
        self.eltwise = eltwise

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = max(0, sum of coeff_i x_i)."""
        saved["y"] = y = self.eltwise.forward(bottoms, saved)[0].relu_()
        return [y]

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """dx_i = coeff_i dy where y > 0."""
        return self.eltwise.backward([aten.threshold_backward(top_diffs[0], saved["y"], 0)], saved, needs)
