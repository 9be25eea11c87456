"""A batch in parts: a few images at a time go through many layers, while their values are in the processor's cache.

Layer by layer, the values of the whole batch would pass through main memory at every step. Only normalisation by the
batch's statistics needs all images at a time, and that for the statistics alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imae.layers.layer import Saved, Shape
from imae.nets.plan import FusedLayer, Normalise, plan_release
from imae.nets.remade import Remade, with_values, without

if TYPE_CHECKING:
    from imae.nets.net import Step

aten = torch.ops.aten
PART_BYTES = 1 << 21
"""Bytes of a part's largest value, for each thread, at most."""
_ROW = 1024
"""Elements that channels' coefficients are repeated to, so that long rows are multiplied by them."""


def in_parts(plan: "list[Step]", shapes: Sequence[Shape], outputs: set[int]) -> "list[Step]":
    """Return steps that compute what `plan` does, with runs of steps that go image by image replaced by `InParts`.

    `shapes` are those of all values. Of the values made in a run only those exist that a step outside reads or that are
    in `outputs`. A run with small values alone is left as it is: they stay in the cache anyway.
    """
    runs: list[list[Step]] = [[]]
    for step in plan:
        if not _goes_by_image(step, shapes):
            runs += [[step], []]
        else:
            runs[-1].append(step)
    return [step for run in runs for step in _joined(run, plan, shapes, outputs)]


def _goes_by_image(step: "Step", shapes: Sequence[Shape]) -> bool:
    """Whether an image's top depends on that image alone, but for a batch's statistics."""
    values = [shapes[number] for number in (*step.bottoms, *step.tops)]
    return (
        (step.layer.by_image or isinstance(step.layer, Normalise))
        and len(step.tops) == 1
        and not any(step.loss_weights)
        and all(len(shape) == 4 and shape[0] == values[0][0] for shape in values)
    )


def _joined(run: "list[Step]", plan: "list[Step]", shapes: Sequence[Shape], outputs: set[int]) -> "list[Step]":
    from imae.nets.net import Step

    if len(run) < 2:
        return run
    made = [number for step in run for number in step.tops]
    inside = {id(step) for step in run}
    read = {number for step in plan if id(step) not in inside for number in step.bottoms}
    bottoms = list(dict.fromkeys(number for step in run for number in step.bottoms if number not in made))
    tops = [number for number in made if number in read | outputs]
    largest = max(torch.Size(shapes[number][1:]).numel() for number in (*bottoms, *made))
    layer = InParts(run, bottoms, tops, largest)
    if layer.images_a_part(images := shapes[made[0]][0]) == images:
        return run
    needed = {number for step in run for number, need in zip(step.bottoms, step.needs, strict=True) if need}
    needs, backward = [number in needed for number in bottoms], any(step.backward for step in run)
    return [Step(layer, bottoms, tops, [0.0] * len(tops), needs, backward)]


class InParts(FusedLayer):
    """A run of steps, done part by part of the batch, in stages: each `Normalise` begins one, as it needs all parts."""

    def __init__(self, steps: "list[Step]", bottoms: list[int], tops: list[int], largest: int) -> None:
        """Run `steps` from the values `bottoms` to `tops`; the largest value has `largest` elements an image."""
        super().__init__(*(step.layer for step in steps))
        self.steps = steps
        self.after_backward: Callable[[Step], None] = lambda step: None
        """As the net's, called for each of the steps."""
        self._bottoms, self._tops, self._largest = bottoms, tops, largest
        self._stages: list[list[int]] = [[]]
        for place, step in enumerate(steps):
            if isinstance(step.layer, Normalise):
                self._stages.append([])
            self._stages[-1].append(place)
        plan_release(steps, tops)

    def images_a_part(self, images: int) -> int:
        """Return how many of a batch's `images` make a part, the last of which may have fewer.

        It depends on the number of threads, as their caches are used together.
        """
        most = PART_BYTES * torch.get_num_threads() // (self._largest * self.context.dtype.itemsize)
        parts = -(-images // max(1, most))
        return -(-images // parts)

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """As the steps, one after the other."""
        size = self.images_a_part(len(bottoms[0]))
        norms = {i: PartwiseNormalise(s.layer) for i, s in enumerate(self.steps) if isinstance(s.layer, Normalise)}
        measuring: dict[int, list[PartwiseNormalise]] = {}
        """Those of them that read a value, by its number."""
        for place, norm in norms.items():
            measuring.setdefault(self.steps[place].bottoms[0], []).append(norm)
        parts = [
            _Part(dict(zip(self._bottoms, images, strict=True)), [{} for _ in self.steps])
            for images in zip(*(torch.split(bottom, size) for bottom in bottoms), strict=True)
        ]
        for part in parts:
            for number in self._bottoms:
                _measure(part, number, measuring)
        for stage in self._stages:
            if stage and stage[0] in norms:
                norms[stage[0]].begin()
            for part in parts:
                for place in stage:
                    self._forward(part, place, norms.get(place))
                    _measure(part, self.steps[place].tops[0], measuring)
                    for number in self.steps[place].finished:
                        del part.values[number]
        tops = [torch.cat([part.values[number] for part in parts]) for number in self._tops]
        for part in parts:
            part.values, part.remade = {}, {}
        saved.update(parts=parts, size=size, norms=norms)
        return tops

    def _forward(self, part: "_Part", place: int, norm: "PartwiseNormalise | None") -> None:
        """Run a step for a part."""
        step, saved = self.steps[place], part.saved[place]
        bottoms, top = [part.values[number] for number in step.bottoms], step.tops[0]
        (part.values[top],) = (norm or step.layer).forward(bottoms, saved)
        if not step.backward:
            saved.clear()
            return
        if norm:
            part.remade[top] = Remade(lambda: norm.remake(bottoms[0]))
        numbered = [(top, part.values[top]), *zip(step.bottoms, bottoms, strict=True)]
        part.saved[place] = without(saved, numbered, part.remade)

    def backward(self, top_diffs: list[Tensor], saved: Saved, needs: list[bool]) -> list[Tensor | None]:
        """As the steps, from the last to the first."""
        parts, norms = saved["parts"], saved["norms"]
        for number, diff in zip(self._tops, top_diffs, strict=True):
            for part, images in zip(parts, torch.split(diff, saved["size"]), strict=True):
                part.add_diff(number, images)
        measured: int | None = None
        """The place of a Normalise whose gradient has been measured over all parts, and not passed on."""
        for stage in reversed(self._stages):
            for part in parts:
                if measured is not None:
                    self._pass_on(part, measured, norms[measured])
                for place in reversed(stage):
                    self._backward(part, place, norms.get(place))
            measured = stage[0] if stage and stage[0] in norms else None
            if measured is not None:
                norms[measured].end()
            for place in reversed(stage):
                if self.steps[place].backward:
                    self.after_backward(self.steps[place])
        return [
            torch.cat([part.diffs[number] for part in parts]) if need and number in parts[0].diffs else None
            for number, need in zip(self._bottoms, needs, strict=True)
        ]

    def _backward(self, part: "_Part", place: int, norm: "PartwiseNormalise | None") -> None:
        """Run a step backward for a part; of a Normalise, measure the gradient by its top."""
        step, (top,) = self.steps[place], self.steps[place].tops
        if top not in part.diffs:
            return
        diff, saved = part.diffs.pop(top), with_values(part.saved[place])
        if norm:
            part.diffs[top], part.saved[place] = norm.measure_diff(diff, saved), {"x": saved["x"]}
            return
        part.saved[place] = {}
        bottom_diffs = step.layer.backward([diff], saved, step.needs)
        for number, bottom_diff, need in zip(step.bottoms, bottom_diffs, step.needs, strict=True):
            if need and bottom_diff is not None:
                part.add_diff(number, bottom_diff)

    def _pass_on(self, part: "_Part", place: int, norm: "PartwiseNormalise") -> None:
        """Pass a part's gradient by a Normalise's top on to its bottom."""
        (bottom,), (top,) = self.steps[place].bottoms, self.steps[place].tops
        if top in part.diffs:
            part.add_diff(bottom, norm.backward(part.diffs.pop(top), part.saved[place]))
            part.saved[place] = {}


@dataclass
class _Part:
    """Some images of a batch: their values and gradients by number, and what each step saved of them."""

    values: dict[int, Tensor]
    saved: list[Saved]
    remade: dict[int, Remade] = field(default_factory=dict)
    diffs: dict[int, Tensor] = field(default_factory=dict)

    def add_diff(self, number: int, diff: Tensor) -> None:
        """Add to the gradient by a value."""
        self.diffs[number] = self.diffs[number] + diff if number in self.diffs else diff


def _measure(part: _Part, number: int, measuring: "dict[int, list[PartwiseNormalise]]") -> None:
    for norm in measuring.get(number, ()):
        norm.measure(part.values[number])


class PartwiseNormalise:
    """A `Normalise` in one pass of a batch in parts, each N x C x H x W.

    Forward: `measure` each part, `begin`, then `forward` each. Backward: `measure_diff` each, `end`, `backward` each.
    """

    def __init__(self, layer: Normalise) -> None:
        self._layer = layer
        self._moments: list[tuple[int, Tensor, Tensor]] = []
        """The number of samples a channel, their mean and variance, of each part."""
        self._diffs: list[tuple[Tensor, Tensor]] = []
        """The gradients by gamma and beta, of each part."""

    def measure(self, x: Tensor) -> None:
        """Take a part into account."""
        self._moments.append((x.numel() // x.shape[1], *aten.batch_norm_update_stats(x, None, None, 0.0)))
        self._image = x.shape[1:]

    def begin(self) -> None:
        """Combine the parts' statistics (Chan et al. 1979), and have the running ones move on."""
        counts, *moments = zip(*self._moments, strict=True)
        means, variances = map(torch.stack, moments)
        self._samples = sum(counts)
        weight = torch.tensor([count / self._samples for count in counts], dtype=means.dtype)
        self._mean = mean = weight @ means
        self._var = var = weight @ (variances + (means - mean).square_())
        norm, bias = self._layer.norm, self._layer.bias
        unbiased = var * (self._samples / max(self._samples - 1, 1))
        norm.move_on(mean if bias is None else mean + bias.data, unbiased, self._samples)
        gamma, beta = self._layer.affine()
        self._inverse_std = (var + norm.eps).rsqrt_()
        self._scale = self._inverse_std if gamma is None else gamma * self._inverse_std
        shift = -mean * self._scale
        self._rows_of_scale, self._rows_of_shift = self._in_rows(self._scale, shift if beta is None else shift + beta)

    def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        """y = max(0, scale x + shift) with scale = gamma / sqrt(var + eps), shift = beta - scale mean."""
        saved["x"] = bottoms[0]
        y = self.remake(bottoms[0])
        if self._layer.relu:
            saved["y"] = y
        return [y]

    def remake(self, x: Tensor) -> Tensor:
        """y once more."""
        scale, shift = self._rows_of_scale, self._rows_of_shift
        y = torch.addcmul(shift, _rows(x, shift), scale)
        return self._images(y.relu_() if self._layer.relu else y)

    def measure_diff(self, dy: Tensor, saved: Saved) -> Tensor:
        """Take a part's gradient into account; return it where y > 0."""
        x = saved["x"]
        if self._layer.relu:
            dy = aten.threshold_backward(dy, saved["y"], 0)
        _, dgamma, dbeta = aten.native_batch_norm_backward(
            dy, x, None, self._mean, self._var, None, None, False, self._layer.norm.eps, [False, True, True]
        )
        self._diffs.append((dgamma, dbeta))
        return dy

    def end(self) -> None:
        """Combine the parts' gradients, and add to those of gamma and beta."""
        if not self._diffs:
            return
        dgamma, dbeta = (reduce(torch.add, diffs) for diffs in zip(*self._diffs, strict=True))
        self._layer.add_diffs(dgamma, dbeta)
        by_mean = self._scale * (-1 / self._samples)
        by_x = by_mean * dgamma * self._inverse_std
        self._rows_of_by_x, self._rows_of_constant = self._in_rows(by_x, by_mean * dbeta - by_x * self._mean)

    def backward(self, dy: Tensor, saved: Saved) -> Tensor:
        """dx = scale (dy - mean(dy) - xhat mean(dy xhat)) with xhat = (x - mean) / sqrt(var + eps)."""
        by_dy, by_x, constant = self._rows_of_scale, self._rows_of_by_x, self._rows_of_constant
        x = _rows(saved["x"], constant)
        dx = torch.addcmul(constant, x, by_x, out=x if self._layer.owns_bottom else None)
        return self._images(dx.addcmul_(_rows(dy, constant), by_dy))

    def _in_rows(self, *coefficients: Tensor) -> tuple[Tensor, ...]:
        """Coefficients for each channel, repeated for as many positions of an image as go into a row."""
        channels, height, width = self._image
        repeats = next(k for k in range(max(1, _ROW // channels), 0, -1) if height * width % k == 0)
        return tuple(torch.stack(coefficients)[:, None].expand(-1, repeats, -1).flatten(1))

    def _images(self, rows: Tensor) -> Tensor:
        channels, height, width = self._image
        return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _rows(x: Tensor, coefficients: Tensor) -> Tensor:
    """Images as a matrix whose rows are as long as the coefficients: channels last, and some positions in a row."""
    return x.permute(0, 2, 3, 1).reshape(-1, coefficients.numel())
