"""The rules of the fused plan: chains of layers, and the layers that do the same work in fewer passes over memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imae.layers.activation.relu import ReLU
from imae.layers.activation.scale import Scale
from imae.layers.layer import Layer
from imae.layers.loss.gce_loss import GCELoss, SoftmaxWithGCELoss
from imae.layers.loss.imae_loss import IMAELoss, SoftmaxWithIMAELoss
from imae.layers.loss.mae_loss import MAELoss, SoftmaxWithMAELoss
from imae.layers.loss.multinomial_logistic_loss import MultinomialLogisticLoss, SoftmaxWithLoss
from imae.layers.loss.sample_loss import OnLogits, OnProbabilities
from imae.layers.normalization.batch_norm import BatchNorm
from imae.layers.utility.eltwise import Eltwise
from imae.layers.utility.softmax import Softmax
from imae.layers.vision.convolution import Convolution
from imae.nets.fused_layers import BiaslessConvolution, FoldedConvolution, Normalise, SumReLU
from imae.nets.step import Step


@dataclass(frozen=True)
class Part:
    """One layer of a chain: exactly of `kind`, for which `fits` holds; an optional one may be absent."""

    kind: type[Layer]
    fits: Callable[..., bool] = lambda layer: True
    optional: bool = False


@dataclass(frozen=True)
class Rule:
    """What a chain is replaced by: `fuse` takes the chain's layers, None for an absent one.

    It returns the fused layers, of which each reads the one before, or none if the chain does not fit.
    """

    chain: Sequence[Part]
    fuse: Callable[..., list[Layer]]
    in_backward: bool = True  # whether the fused layers have a backward


CONVOLUTION = Part(Convolution, lambda layer: len(layer.param.bottom) == 1 and layer.windows.axis == 1)
BY_BATCH = Part(BatchNorm, lambda layer: not layer.use_global and not layer.is_affine)
BY_GLOBAL_STATISTICS = Part(BatchNorm, lambda layer: layer.use_global and not layer.is_affine)
OF_CHANNELS = Part(
    Scale,
    lambda layer: len(layer.param.bottom) == 1 and layer.geometry.first == 1 and layer.blobs[0].data.dim() == 1,
    optional=True,
)
SUM = Part(Eltwise, lambda layer: layer.operation == "SUM")
RELU = Part(ReLU, lambda layer: not layer.slope)
MAYBE_RELU = Part(ReLU, lambda layer: not layer.slope, optional=True)


def _on_logits(kind: type[OnLogits]) -> Callable[[Softmax, OnProbabilities], list[Layer]]:
    """Return a `fuse` that makes Softmax and a loss on probabilities the loss `kind` on logits, with the same bound."""

    def fuse(softmax: Softmax, loss: OnProbabilities) -> list[Layer]:
        if loss.geometry != softmax.geometry:
            return []
        param = type(loss.param)()
        param.CopyFrom(loss.param)
        param.type = kind.type
        layer = kind(param, loss.context)
        layer.setup([])
        layer.smallest = loss.smallest  # type: ignore[misc]  # of this one layer
        return [layer]

    return fuse


RULES = [
    Rule(
        [CONVOLUTION, BY_BATCH, OF_CHANNELS, MAYBE_RELU],
        lambda convolution, norm, scale, relu: [
            BiaslessConvolution(convolution),
            Normalise(norm, scale, relu, convolution),
        ],
    ),
    Rule(
        [CONVOLUTION, BY_GLOBAL_STATISTICS, OF_CHANNELS, MAYBE_RELU],
        lambda *chain: [FoldedConvolution(*chain)],
        in_backward=False,
    ),
    Rule([BY_BATCH, OF_CHANNELS, MAYBE_RELU], lambda norm, scale, relu: [Normalise(norm, scale, relu, None)]),
    Rule([SUM, RELU], lambda *chain: [SumReLU(*chain)]),
    Rule([Part(Softmax), Part(MultinomialLogisticLoss)], _on_logits(SoftmaxWithLoss)),
    Rule([Part(Softmax), Part(MAELoss)], _on_logits(SoftmaxWithMAELoss)),
    Rule([Part(Softmax), Part(IMAELoss)], _on_logits(SoftmaxWithIMAELoss)),
    Rule([Part(Softmax), Part(GCELoss)], _on_logits(SoftmaxWithGCELoss)),
]
LONGEST = max(len(rule.chain) for rule in RULES)


def fused_plan(steps: Sequence[Step]) -> list[Step]:
    """Return steps that compute what `steps` do, with each chain replaced by the first rule that fits.

    A chain is fused only if nothing else reads the values inside it, which the fused plan then does not have.
    """
    readers = Counter(bottom for step in steps for bottom in step.bottoms)
    following = {step.bottoms[0]: step for step in steps if step.bottoms}
    plan: list[Step] = []
    taken: set[int] = set()
    for step in steps:
        if id(step) in taken:
            continue
        chain = [step]
        while len(chain) < LONGEST and _leads_on(chain[-1], readers):
            follower = following.get(chain[-1].tops[0])
            if follower is None or follower.backward != step.backward or follower.needs[0] != step.backward:
                break
            chain.append(follower)
        fused, length = _fuse([member.layer for member in chain], step.backward)
        taken.update(id(member) for member in chain[:length])
        plan += _as_steps(fused, chain[:length]) if fused else [step]
    return plan


def _leads_on(step: Step, readers: Counter[int]) -> bool:
    """Whether a step makes exactly one value, which is no loss and which exactly one step reads."""
    return len(step.tops) == 1 and readers[step.tops[0]] == 1 and not any(step.loss_weights)


def _fuse(chain: Sequence[Layer], backward: bool) -> tuple[list[Layer], int]:
    """Apply the first rule that fits the beginning of `chain`: the fused layers, and how many layers they replace."""
    for rule in RULES:
        parts: list[Layer | None] = []
        length = 0
        for part in rule.chain:
            layer = chain[length] if length < len(chain) else None
            if layer is not None and type(layer) is part.kind and part.fits(layer):
                parts.append(layer)
                length += 1
            elif part.optional:
                parts.append(None)
            else:
                break
        if len(parts) == len(rule.chain) and length > 1 and (rule.in_backward or not backward):
            fused = rule.fuse(*parts)
            if fused:
                return fused, length
    return [], 1


def _as_steps(layers: Sequence[Layer], chain: Sequence[Step]) -> list[Step]:
    """The steps of a fused chain: one, or two with the first chain member's top between them."""
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
