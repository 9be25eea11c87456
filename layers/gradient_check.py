"""The gradient checker: any layer's `backward` against central differences of its `forward`, in float64.

assert check_layer('type: "ReLU" relu_param { negative_slope: 0.1 }', [(2, 3)]).passed
for report in check_net(Net("train.prototxt", TRAIN)): ...
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from imae.layers.data.input import Input
from imae.layers.layer import TRAIN, Context, Diffs, Layer, Saved, Shape, Tensors, describe
from imae.layers.pass_counter import PassCounter
from imae.layers.registry import create_layer, registry
from imae.layers.values import as_tensor
from imae.prototxt_like.schema import LayerParameter
from imae.prototxt_like.text import parse_net

STEP, THRESHOLD = 1e-4, 1e-5
SMALLER_STEPS = 4  # how often an element that disagrees is tried again with a tenth of the step
ROUNDING = 1e-13  # error of a top, relative to the norm of what changes in it or, if that is more, to the largest
MOST_SKIPPED = 0.9  # the check fails if more than this fraction of the drawn elements was skipped


@dataclass(frozen=True)
class GradientReport:
    """How the gradients of one layer by its bottoms and learned blobs agree with finite differences."""

    name: str
    type: str
    compared: int  # elements at which both were compared
    skipped: int  # elements left out because the layer has a kink there, such as ReLU at 0 or a tie of MAX pooling
    absolute: float  # largest deviation
    relative: float  # largest deviation relative to its element's gradient (or to what rounding allows, if more)
    worst: str  # where `relative` was found, and both values
    passed: bool


class GraphStep(Protocol):
    """A layer at its place: the indices of the values it reads and makes."""

    layer: Layer
    bottoms: list[int]
    tops: list[int]


class Graph(Protocol):
    """What the checker needs of a net; `imae.nets.net.Net` is one."""

    @property
    def steps(self) -> Sequence[GraphStep]:
        """The layers, in order."""


def build_layer(
    param: str | LayerParameter,
    bottoms: Sequence[Shape],
    *,
    phase: int = TRAIN,
    forwards: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> Layer:
    """Return the layer that `param` describes, set up on bottoms of these shapes, as in a net of that `seed`.

    `param` is a LayerParameter or its text, the fields of a prototxt's `layer`; the names of the layer and of its
    bottoms and top may be left out. `forwards` is the number of the forward pass. Raises InputError for what is wrong.
    """
    if isinstance(param, str):
        param = parse_net(f"layer {{ {param} }}", "layer").layer[0]
    complete = LayerParameter()
    complete.CopyFrom(param)
    complete.name = complete.name or complete.type
    if not complete.bottom:
        complete.bottom.extend(f"bottom{i}" for i in range(len(bottoms)))
    if not complete.top and registry.get(complete.type, Layer).tops != (0, 0):
        complete.top.append("top")
    generator = torch.Generator().manual_seed(seed)
    passes = PassCounter(seed, forwards, device=torch.device(device))
    context = Context(phase=phase, device=torch.device(device), dtype=dtype, generator=generator, passes=passes)
    layer = create_layer(complete, context)
    shapes = [tuple(shape) for shape in bottoms]
    layer.setup(shapes)
    layer.reshape(shapes)
    return layer


def check_layer(
    param: str | LayerParameter,
    bottoms: Sequence[Tensor | Shape],
    *,
    phase: int = TRAIN,
    forwards: int = 0,
    blobs: Sequence[Tensor] = (),
    seed: int = 0,
    **settings: Any,
) -> GradientReport:
    """Check the layer that `build_layer` makes of `param` on `bottoms`.

    A bottom given as a shape is drawn from the standard normal distribution, and so are the learned blobs unless
    `blobs` gives all blobs. For `settings` see `check_at`.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [
        bottom if isinstance(bottom, Tensor) else torch.randn(bottom, generator=generator, dtype=torch.float64)
        for bottom in bottoms
    ]
    layer = build_layer(param, [tuple(value.shape) for value in values], phase=phase, forwards=forwards, seed=seed)
    for blob, data in zip(layer.blobs, blobs, strict=bool(blobs)):
        blob.data.copy_(data)
    for blob in layer.blobs:
        if blob.lr_mult and not blobs:
            blob.data.normal_(generator=generator)
    return check_at(layer, values, seed=seed, **settings)


def check_net(
    net: Graph,
    inputs: Mapping[str, Tensor | np.ndarray] | None = None,
    *,
    seed: int = 0,
    samples: int = 8,
    **settings: Any,
) -> list[GradientReport]:
    """Check every layer of `net` that has a derivative, in order, on the values that its next pass would compute.

    Input layers take `inputs`, by name; those left out are drawn from the standard normal distribution, labels from
    0 and 1. The net stays as it is. For `settings` see `check_at`.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [step.layer for step in net.steps]
    values: dict[int, Tensor] = {}
    reports = []
    for place in net.steps:
        layer, bottoms = place.layer, [values[bottom] for bottom in place.bottoms]
        if isinstance(layer, Input):
            for index, name, shape in zip(place.tops, layer.param.top, layer.reshape([]), strict=True):
                given = (inputs or {}).get(name)
                value = (
                    _random_input(name, shape, layers, generator)
                    if given is None
                    else as_tensor(given, f'input "{name}"')
                )
                values[index] = value.to(layer.context.device).double()
            continue
        with _reshaped(layer, bottoms):
            with _float64_blobs(layer):
                tops = layer.forward(bottoms, {})
            values.update(zip(place.tops, map(Tensor.double, tops), strict=True))
            if tops and (_differentiable(layer, bottoms) or any(blob.lr_mult for blob in layer.blobs)):
                reports.append(check_at(layer, bottoms, seed=seed, samples=samples, **settings))
    return reports


def check_at(
    layer: Layer,
    bottoms: Sequence[Tensor],
    *,
    seed: int = 0,
    samples: int = 64,
    step: float = STEP,
    threshold: float = THRESHOLD,
) -> GradientReport:
    """Check a layer that is set up, at the point `bottoms` and with the blobs it has; both stay as they are.

    Compares the derivatives of a randomly weighted sum of the tops by up to `samples` random elements of each bottom
    and of each blob with an lr_mult. An element passes if both values differ by at most `threshold` of the larger, at
    `step` or at one of a few smaller steps. It is skipped, as a kink, if at each step they differ by no more than the
    slopes to its two sides do. What is differentiated is `Layer.surrogate`.
    """
    generator = torch.Generator().manual_seed(seed)
    with _float64_blobs(layer):
        surface = _Surface(layer, [bottom.double() for bottom in bottoms], generator, step, threshold)
        return surface.report(samples)


def backward(
    layer: Layer, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
) -> Diffs:
    """Run `layer.backward` with NaN in place of the bottoms and tops that the layer does not keep."""
    kept, lost = layer.keeps(), torch.full((), torch.nan)
    read = [x if i in kept.bottoms else lost for i, x in enumerate(bottoms)]
    made = [y if i in kept.tops else lost for i, y in enumerate(tops)]
    return layer.backward(read, made, top_diffs, saved, needs)


class _Surface:
    """The weighted sum of a layer's tops as a function of its bottoms and blobs around a point."""

    def __init__(
        self, layer: Layer, bottoms: list[Tensor], generator: torch.Generator, step: float, threshold: float
    ) -> None:
        self.layer, self.step, self.threshold, self.generator = layer, step, threshold, generator
        self.bottoms = [bottom.clone(memory_format=torch.contiguous_format) for bottom in bottoms]
        self.blobs = [blob.data for blob in layer.blobs]
        self.state = [tensor.clone() for tensor in layer.state]
        self.saved: Saved = {}
        self._restore()
        tops = layer.forward([bottom.clone() for bottom in self.bottoms], self.saved)
        # Positive weights keep a monotone kink's slopes on the two sides of the gradient there.
        self.weights = [
            torch.rand(top.shape, generator=generator, dtype=torch.float64).add_(0.5).to(top.device) for top in tops
        ]
        self.centre = [top.clone() for top in self._tops()]  # a layer may return its bottom itself
        terms = [weight * top for weight, top in zip(self._kept(self.weights), self.centre, strict=True)]
        self.largest = max((float(term.abs().max()) for term in terms if term.numel()), default=0.0)

    def report(self, samples: int) -> GradientReport:
        """Compare up to `samples` elements of each bottom and learned blob."""
        compared = skipped = 0
        absolute = relative = 0.0
        worst = ""
        for name, values, gradient in self._gradients():
            left = samples
            for element in torch.randperm(values.numel(), generator=self.generator)[: 4 * samples].tolist():
                if not left:
                    break
                backward = float(gradient[element])
                found = self._compare(values, element, backward)
                if found is None:
                    skipped += 1
                    continue
                left -= 1
                compared += 1
                deviation, share, numeric = found
                absolute = max(absolute, deviation)
                if share > relative or not worst:
                    relative = share
                    place = [int(i) for i in np.unravel_index(element, values.shape)]
                    worst = f"{name}{place}: backward gives {backward:.9g}, finite differences {numeric:.9g}"
        enough = compared > 0 and skipped <= MOST_SKIPPED * (compared + skipped)
        passed = enough and relative <= self.threshold
        layer = self.layer
        return GradientReport(layer.name, layer.param.type, compared, skipped, absolute, relative, worst, passed)

    def _gradients(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Run `backward` once; yield each bottom and learned blob with its name and its flat gradient."""
        saved: Saved = {}
        self._restore()
        bottoms = [bottom.clone() for bottom in self.bottoms]
        tops = self.layer.forward(bottoms, saved)
        differentiable = _differentiable(self.layer, self.bottoms)
        needs = [i in differentiable for i in range(len(self.bottoms))]
        weights = [weight.clone() for weight in self.weights]
        diffs = backward(self.layer, bottoms, tops, weights, saved, needs)
        for i in differentiable:
            x, diff = self.bottoms[i], diffs[i]
            if diff is None or diff.shape != x.shape:
                found = "none" if diff is None else describe(diff.shape)
                raise self.layer.error(
                    f"backward must give bottom {i} a gradient of {describe(x.shape)}, gives {found}"
                )
            yield f"bottom {i} ", x, diff.flatten()
        for i, blob in enumerate(self.layer.blobs):
            if blob.lr_mult:
                yield f"blob {i} ", self.blobs[i], blob.diff.flatten()

    def _compare(self, values: Tensor, element: int, backward: float) -> tuple[float, float, float] | None:
        """Return the absolute and the relative deviation and the numerical derivative at an element; None at a kink."""
        steps = [self.step / 10**k for k in range(SMALLER_STEPS + 1)]
        steps.append(self.step * abs(float(values.view(-1)[element])))  # for a value smaller than all of these
        best: tuple[float, float, float] | None = None
        floor, kink = 0.0, True
        for step in filter(None, steps):
            left, right, rounding = self._slopes(values, element, step)
            numeric = (left + right) / 2
            floor = floor or rounding  # the first step's: at smaller steps rounding errors would exceed any deviation
            deviation = abs(backward - numeric)
            share = deviation / max(abs(backward), abs(numeric), floor / self.threshold, 1e-300)
            if not math.isfinite(share):
                deviation = share = math.inf
            if best is None or share < best[1]:
                best = deviation, share, numeric
            if share <= self.threshold:
                return best
            kink = kink and deviation <= abs(right - left) + rounding
        return None if kink else best

    def _slopes(self, values: Tensor, element: int, step: float) -> tuple[float, float, float]:
        """Return the slopes to the left and to the right of an element, and their error from rounding."""
        flat = values.view(-1)
        here = float(flat[element])
        slopes, rounding = [], 0.0
        for there in (here - step, here + step):
            flat[element] = there
            change = square = 0.0
            for weight, centre, top in zip(self._kept(self.weights), self.centre, self._tops(), strict=True):
                moved = top - centre
                change += float((weight * moved).sum())
                square += float((weight * top)[moved != 0].square().sum())
            slopes.append(change / (there - here))
            rounding = max(rounding, ROUNDING * max(math.sqrt(square), self.largest) / step)
        flat[element] = here
        return slopes[0], slopes[1], rounding

    def _tops(self) -> list[Tensor]:
        """The tops that have a derivative, here."""
        self._restore()
        return self._kept(self.layer.surrogate(list(self.bottoms), self.saved))

    def _kept(self, tops: Sequence[Tensor]) -> list[Tensor]:
        return [top for i, top in enumerate(tops) if i not in self.layer.no_gradient_from]

    def _restore(self) -> None:
        """Set the layer's blobs and state to this point's, which forward may move."""
        for blob, data in zip(self.layer.blobs, self.blobs, strict=True):
            blob.data = data.clone()
        for tensor, value in zip(self.layer.state, self.state, strict=True):
            tensor.copy_(value)


def _differentiable(layer: Layer, bottoms: Sequence[Tensor]) -> list[int]:
    """The bottoms by which the layer has a derivative."""
    return [i for i in range(len(bottoms)) if i not in layer.no_gradient_to]


@contextmanager
def _reshaped(layer: Layer, bottoms: Sequence[Tensor]) -> Iterator[None]:
    """Give the layer the geometry for these bottoms; its own again at the end."""
    own = layer.geometry
    if bottoms:
        layer.reshape([tuple(bottom.shape) for bottom in bottoms])
    try:
        yield
    finally:
        layer.geometry = own


@contextmanager
def _float64_blobs(layer: Layer) -> Iterator[None]:
    """Give the layer copies of its blobs and state in float64, with no gradient yet; its own again at the end."""
    own = [(blob, blob.data, blob.diff) for blob in layer.blobs]
    state, layer.state = layer.state, [tensor.to(torch.float64, copy=True) for tensor in layer.state]
    for blob, data, _ in own:
        blob.data = data.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
        blob.diff = torch.zeros_like(blob.data)
    try:
        yield
    finally:
        layer.state = state
        for blob, data, diff in own:
            blob.data, blob.diff = data, diff


def _random_input(name: str, shape: Shape, layers: Sequence[Layer], generator: torch.Generator) -> Tensor:
    """Values for an input: 0 and 1 where a reader takes it for labels, or none has a derivative, else normal ones."""
    readers = [(layer, i) for layer in layers for i, bottom in enumerate(layer.param.bottom) if bottom == name]
    labels = any(i in layer.index_bottoms for layer, i in readers)
    if labels or (readers and all(i in layer.no_gradient_to for layer, i in readers)):
        return torch.randint(2, shape, generator=generator)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
