"""Exported models against the net: run in ONNX Runtime on inputs of several sizes and kinds, output by output."""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from imae.layers.layer import TEST, Layer, Saved, Shape, Tensors
from imae.layers.utility.batch_reindex import BatchReindex
from imae.nets.deploy import data_layer
from imae.nets.net import Net
from imae.nets.onnx_export import OnnxReport
from imae.nets.onnx_preprocess import ImageOptions, Images, images_of
from imae.nets.onnx_session import giving_out, run, start_session
from imae.nets.step import Observer, Step
from imae.nets.undisturbed import undisturbed
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.schema import NetParameter

TOLERANCE = 1e-4
"""How much of an output's standard deviation an exported model may differ by."""
ROUNDING = 8
"""By how many times what rounding to float32 after each layer changes, where that is more."""
_PIXELS = {"zero": 0, "large": 255}
"""The pixels of these kinds of images."""
Progress = Callable[[int, int], None]
_OWN = "its own data as"
KINDS = ("random", "zero", "large")
"""Inputs at the first sizes."""
BATCHES = (1, 3, 2, 4, 6, 8)
"""Batch sizes to try, where the batch is open: the first two that the net takes."""
_LARGE = 100
"""How many times as large as usual the large inputs are."""
_OWN_IMAGES = 4
"""How many of the net's own images are compared."""


@dataclass
class Verification:
    """How far a model is from its net."""

    difference: float = 0.0
    """The largest of any output, over the output's standard deviation."""
    output: str = ""
    runs: int = 0
    kinds: list[str] = field(default_factory=list)
    """What was fed, and in which sizes."""
    undecided: dict[str, float] = field(default_factory=dict)
    """Those of them on which rounding to float32 alone changes an output by much, with the largest difference there."""

    def __str__(self) -> str:
        left = [f"{kind} by {difference:.1e}" for kind, difference in self.undecided.items()]
        but = f" (but for {', '.join(left)}, where rounding decides)" if left else ""
        return (
            "Largest difference from the net in ONNX Runtime, relative to an output's standard deviation, in "
            f"{counted(self.runs, 'run')} on {', '.join(self.kinds)} input{but}: {self.difference:.1e}"
        )


@dataclass
class _Case:
    """One input: its kind, what the net is fed and what the model, and the hidden values that both begin with."""

    kind: str
    shapes: dict[str, Shape]
    fed: dict[str, Tensor] = field(default_factory=dict)
    given: dict[str, NDArray[Any]] = field(default_factory=dict)
    states: dict[str, list[Tensor]] = field(default_factory=dict)
    """By recurrent layer."""

    @property
    def is_own(self) -> bool:
        """Whether it is what the net's data layers give."""
        return self.kind == _OWN


def verify(
    report: OnnxReport,
    source: Net | NetParameter | str | Path,
    *,
    folder: Path | None = None,
    tolerance: float = TOLERANCE,
    kinds: Sequence[str] = KINDS,
    batches: Sequence[int] = BATCHES,
    progress: Progress = lambda done, total: None,
) -> Verification:
    """Compare the model that `report` tells of with its net, on the CPU; `source` is what was exported.

    The inputs are of `kinds` at small sizes, random at larger ones in all that is open, and what the net's data layers
    give, where they can read it; an open batch has the first two sizes of `batches` that the net takes. Each output is
    compared relative to its standard deviation. Raises InputError that names the first blob that differs if one does by
    more than `tolerance`; the file stays, as does the net's state. `progress` is told how many of the runs are done.
    """
    with undisturbed(report.net):
        report.net.keep_blobs = False
        return _verified(report, source, folder, tolerance, kinds, batches, progress)


def _verified(
    report: OnnxReport,
    source: Net | NetParameter | str | Path,
    folder: Path | None,
    tolerance: float,
    kinds: Sequence[str],
    batches: Sequence[int],
    progress: Progress,
) -> Verification:
    """What `verify` returns, with whatever the passes leave in the net."""
    verification, spread = Verification(), dict.fromkeys(report.outputs, 0.0)
    session = start_session(report.path, advice=", perhaps by an older --opset")
    own = _own_data(report, source, folder)
    scaled = _pixels(report, source, folder)
    cases = _cases(report, own, kinds, batches)
    for case in cases:
        case = _drawn(report, case, own if case.is_own else {}, scaled)
        expected = _by_the_net(report, report.net, case)
        actual = dict(zip(report.outputs, run(session, report.path, case.given, list(report.outputs)), strict=True))
        for name, value in expected.items():
            spread[name] = max(spread[name], standard_deviation(value))
            difference = relative_difference(actual[name], value, spread[name])
            if difference > tolerance:
                if difference > ROUNDING * _rounding(report, case, name, value, spread[name]):
                    raise InputError(_complaint(report, case, name, difference, tolerance))
                verification.undecided[case.kind] = max(verification.undecided.get(case.kind, 0.0), difference)
            elif difference >= verification.difference:
                verification.difference, verification.output = difference, name
        verification.runs += 1
        verification.kinds = list(dict.fromkeys([*verification.kinds, case.kind]))
        progress(verification.runs, len(cases))
    return verification


def _cases(report: OnnxReport, own: Mapping[str, Tensor], kinds: Sequence[str], batches: Sequence[int]) -> list[_Case]:
    """Inputs of each kind at the first sizes, random ones at the others, and the net's own data."""
    first, *others = _settings(report, batches)
    cases = [_Case(kind, first) for kind in kinds] + [_Case("larger random", shapes) for shapes in others]
    if own:
        cases.append(_Case(_OWN, first | {name: tuple(x.shape) for name, x in own.items()}))
    return cases


def _settings(report: OnnxReport, batches: Sequence[int]) -> list[dict[str, Shape]]:
    """The inputs' shapes: small ones, and ones that are larger in all that is open."""
    net = report.net
    small, large = ({name: list(net.shapes[index]) for name, index in net.input_values.items()} for _ in range(2))
    for size in report.sizes.opened:
        base = small[size.slots[0][0]][size.slots[0][1]]
        sizes = [base, base + size.steps[0]]
        if size.symbol == "N":
            sizes = [batch for batch in (*batches, *sizes) if _takes(net, size.slots, batch)]
        for name, axis in size.slots:
            small[name][axis], large[name][axis] = sizes[:2]
    settings = [{name: tuple(shape) for name, shape in shapes.items()} for shapes in (small, large)]
    return settings if settings[0] != settings[1] else settings[:1]


def _takes(net: Net, slots: Sequence[tuple[str, int]], size: int) -> bool:
    """Whether these axes of inputs can be of this size."""
    before = {name: net.shapes[net.input_values[name]] for name, _ in slots}
    after = {name: list(shape) for name, shape in before.items()}
    for name, axis in slots:
        after[name][axis] = size
    try:
        net.reshape(**after)
    except InputError:
        return False
    net.reshape(**before)
    return True


def _own_data(report: OnnxReport, source: Net | NetParameter | str | Path, folder: Path | None) -> dict[str, Tensor]:
    """What the net's data layers give to its inputs, of those that can be read and are of the inputs' shapes."""
    net, own = report.net, {}
    open_batch = {name for size in report.sizes.opened for name, axis in size.slots if axis == 0}
    for name, index in net.input_values.items():
        try:
            layer = data_layer(source, name, folder)
            if layer is None:
                continue
            layer.setup([])
            layer.reshape([])
            value = layer.forward([], {})[list(layer.param.top).index(name)].cpu().to(net.context.dtype)
        except InputError:
            continue
        value = value[:_OWN_IMAGES] if name in open_batch else value
        if value.shape[1:] == net.shapes[index][1:] and (name in open_batch or value.shape == net.shapes[index]):
            own[name] = value
    return own


def _pixels(report: OnnxReport, source: Net | NetParameter | str | Path, folder: Path | None) -> dict[str, Images]:
    """How pixels become the inputs that data layers gave, for inputs of their scale where the data is not at hand."""
    found = {}
    for name, index in report.net.input_values.items():
        with suppress(InputError):  # the mean is not at hand
            window = report.net.shapes[index][1:]
            found[name] = images_of(source, name, window, folder, raw=False, options=ImageOptions())
    return {name: images for name, images in found.items() if images is not None}


def _drawn(report: OnnxReport, case: _Case, own: Mapping[str, Tensor], scaled: Mapping[str, Images]) -> _Case:
    """Give the case its inputs: pixels where the model takes images, or as the net sees such; indices; else numbers."""
    net, kind = report.net, case.kind
    generator = torch.Generator().manual_seed(sum(map(sum, case.shapes.values())))
    net.reshape(**case.shapes)
    for name, shape in case.shapes.items():
        images = report.images.get(name)
        taken = None
        if name not in report.inputs:  # cont, which is 1 throughout
            case.fed[name] = torch.ones(shape)
            continue
        if name in own:
            case.fed[name] = own[name]
            taken = own[name] if images is None else images.taken(own[name])
        elif net.holds_indices(net.input_values[name]):
            case.fed[name] = torch.randint(0, _values(net, name), shape, generator=generator).float()
        elif images is None and name in scaled and len(shape) == 4:
            case.fed[name] = scaled[name].seen(draw_pixels(shape, generator, kind))
        elif images is None:
            scale = {"zero": 0, "large": _LARGE}.get(kind, 1)
            case.fed[name] = torch.randn(shape, generator=generator) * scale
        if taken is None and images is not None:
            batch, *size = images.of_any(shape)
            if images.raw:
                size = [size[-1], *size[:-1]]
            taken = draw_pixels((batch, *size), generator, kind)
            taken = taken.permute(0, 2, 3, 1).to(torch.uint8).contiguous() if images.raw else taken
            case.fed[name] = images.seen(taken)
        case.given[name] = (case.fed[name] if taken is None else taken).numpy()
    for before, layer in report.states.values():
        states = case.states.setdefault(layer, [])
        shape = next(step.layer.state for step in net.steps if step.layer.name == layer)[len(states)].shape
        states.append(torch.randn(shape, generator=generator))
        case.given[before] = states[-1].numpy()
    case.given = {name: x if x.dtype == np.uint8 else x.astype(np.float32) for name, x in case.given.items()}
    return case


def draw_pixels(shape: Shape, generator: torch.Generator, kind: str = "random") -> Tensor:
    """Return pixels 0 to 255 of images, B x C x H x W: of one level, or random with contrasts of all sizes alike, as
    photographs have them, so that averages of images differ, too.
    """
    if kind in _PIXELS:
        return torch.full(shape, float(_PIXELS[kind]))
    octaves = [torch.randn(*shape[:2], 2**k, 2**k, generator=generator) for k in range(max(shape[2:]).bit_length())]
    mixed = torch.stack([F.interpolate(octave, shape[2:], mode="bilinear") for octave in octaves]).mean(0)
    return (128 + 128 * mixed).round().clamp(0, 255)


def _values(net: Net, name: str) -> int:
    """How many indices an input may have: two, or one where its readers know no more."""
    readers = [step for step in net.steps if net.input_values[name] in step.bottoms]
    sizes = [step.layer.blobs[0].shape[0] for step in readers if step.layer.type == "Embed"]
    sizes += [net.shapes[step.bottoms[0]][0] for step in readers if isinstance(step.layer, BatchReindex)]
    return min([2, *sizes])


class _Watch(Observer):
    """Tells a function of each value that a pass makes: the step that made it, its number, and itself."""

    def __init__(self, tell: Callable[[Step, int, Tensor], None]) -> None:
        self._tell = tell

    def forward(self, step: Step, tops: Tensors) -> None:
        for index, top in zip(step.tops, tops, strict=True):
            self._tell(step, index, top)


def _by_the_net(report: OnnxReport, net: Net, case: _Case) -> dict[str, NDArray[Any]]:
    """The outputs by the net, and the hidden values that it ends with."""
    made: dict[str, Tensor] = {}
    newest = {index: report.values[index] for index in net.newest.values()}

    def keep(step: Step, index: int, value: Tensor) -> None:
        if newest.get(index) in report.outputs:
            made[newest[index]] = value

    layers = _pass(net, case, keep)
    for output, (before, layer) in report.states.items():
        place = [name for name, of in report.states.values() if of == layer].index(before)
        made[output] = layers[layer].state[place]
    # the net writes into some of them again
    return {name: made[name].detach().cpu().numpy().copy() for name in report.outputs}


def _pass(net: Net, case: _Case, tell: Callable[[Step, int, Tensor], None]) -> dict[str, Layer]:
    """Run the net on a case; return its layers by name."""
    net.reshape(**case.shapes)
    layers = {step.layer.name: step.layer for step in net.steps}
    for name, states in case.states.items():
        for own, state in zip(layers[name].state, states, strict=True):
            own.copy_(state)
    feeds: dict[str, Any] = case.fed
    net.observer = _Watch(tell)
    net.forward(**feeds)
    return layers


def standard_deviation(value: NDArray[Any]) -> float:
    """Return that of what is finite; of one number alone, how large it is."""
    finite = value[np.isfinite(value)]
    if value.size == 1:
        return float(np.abs(finite).sum())
    return float(finite.std(dtype=np.float64)) if finite.size else 0.0


def relative_difference(actual: NDArray[Any], expected: NDArray[Any], spread: float) -> float:
    """Return the largest absolute difference over `spread`, or the largest number where all are one.

    NaNs agree, and numbers so small that processors may take them for 0.
    """
    if actual.shape != expected.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        apart = np.abs(actual.astype(np.float64) - expected)
    alike = (actual == expected) | (np.isnan(actual) & np.isnan(expected)) | (apart < np.finfo(np.float32).tiny)
    apart = np.where(alike, 0, apart)
    largest = float(np.nan_to_num(apart, nan=np.inf).max(initial=0))
    if not largest:
        return 0.0
    return largest / (spread or float(np.abs(expected).max()) or 1.0)


def _rounding(report: OnnxReport, case: _Case, output: str, value: NDArray[Any], spread: float) -> float:
    """How far rounding to float32 before and after each layer moves an output, relative to its standard deviation.

    It is much where a layer makes large what is next to nothing, such as MVN the noise of an image of one color, or
    where numbers overflow. The passes are in float64, one of them with relative noise of a float32's half unit in the
    last place; the net's own `value` is another.
    """
    exact, generator = in_float64(report.net), torch.Generator().manual_seed(0)
    exact.keep_blobs = False
    wide = {name: fed.double() for name, fed in case.fed.items()}
    precise = _by_the_net(report, exact, _Case(case.kind, case.shapes, wide, {}, case.states))[output]
    for name, index in exact.input_values.items():
        if not exact.holds_indices(index):
            wide[name] = _with_noise(wide[name], generator)
    for step in exact.steps:
        if not any(map(exact.holds_indices, step.tops)):
            step.layer.forward = _noisy(step.layer.forward, generator)  # type: ignore[method-assign]
    noisy = _by_the_net(report, exact, _Case(case.kind, case.shapes, wide, {}, case.states))[output]
    del exact, step
    gc.collect()  # a net has references to itself, and this one's weights are as large as two nets'
    return max(relative_difference(rounded, precise, spread) for rounded in (value, noisy))


def _with_noise(value: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.rand(value.shape, generator=generator, dtype=value.dtype).to(value.device)
    return value * (1 + 2**-24 * (2 * noise - 1))


def _noisy(forward: Callable[[Tensors, Saved], Tensors], generator: torch.Generator) -> Callable[..., Tensors]:
    """The same function, each of whose results is a little off."""
    return lambda bottoms, saved: [_with_noise(top, generator) for top in forward(bottoms, saved)]


def in_float64(net: Net) -> Net:
    """Return the same net with values and weights in float64."""
    context = net.context
    exact = Net(
        net.param,
        TEST,
        dtype=torch.float64,
        folder=context.folders[-1],
        backward=False,
        allow_python=context.allow_python,
        filled=False,
    )
    for name, blobs in net.params.items():
        for mine, theirs in zip(exact.params[name], blobs, strict=True):
            mine.data.copy_(theirs.data)
    return exact


def _complaint(report: OnnxReport, case: _Case, output: str, difference: float, tolerance: float) -> str:
    """Say which output differs, on which input, and which blob is the first to."""
    sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in case.shapes.items())
    first = _first_difference(report, _fewest(report, case, output, tolerance), tolerance)
    where = f"; the first blob that differs is {first}" if first else ""
    return (
        f'{report.path}: its output "{output}" differs from the net\'s by {difference:.1e} of its standard deviation, '
        f"more than {tolerance:g}, on {case.kind} input ({sizes}){where}"
    )


def _fewest(report: OnnxReport, case: _Case, output: str, tolerance: float) -> _Case:
    """The case with the fewest of its batch on which the output differs: all blobs of it are looked at at once."""
    slots = next((size.slots for size in report.sizes.opened if size.symbol == "N"), ())
    if not slots or case.states or not all(name in case.given for name, _ in slots):
        return case
    session, axes = start_session(report.path), dict(slots)
    for count in range(1, case.shapes[slots[0][0]][slots[0][1]]):
        fed = {name: x.narrow(axes[name], 0, count) if name in axes else x for name, x in case.fed.items()}
        given = {name: x.take(range(count), axes[name]) if name in axes else x for name, x in case.given.items()}
        few = _Case(case.kind, {name: tuple(x.shape) for name, x in fed.items()}, fed, given)
        with suppress(InputError):  # so few are no batch that it takes
            expected = _by_the_net(report, report.net, few)[output]
            (actual,) = run(session, report.path, given, [output])
            if relative_difference(actual, expected, standard_deviation(expected)) > tolerance:
                return few
    return case


def _first_difference(report: OnnxReport, case: _Case, tolerance: float) -> str:
    """The first blob, in the order of layers, that the model has and that differs; empty if only outputs do."""
    model = onnx.load(report.path, load_external_data=False)
    made = {name for node in model.graph.node for name in node.output}
    wanted = [index for index, name in enumerate(report.values) if name in made]
    names = [report.values[index] for index in wanted]
    with giving_out(report.path, model, names) as path:
        actual = dict(zip(wanted, run(start_session(path), path, case.given, names), strict=True))
    found: list[str] = []

    def compare(step: Step, index: int, value: Tensor) -> None:
        if index in actual and not found:
            expected = value.detach().cpu().numpy()
            if relative_difference(actual.pop(index), expected, standard_deviation(expected)) > tolerance:
                found.append(f'"{report.net.names[index]}" of {step.layer.error("").args[0].removesuffix(": ")}')

    _pass(report.net, case, compare)
    return "".join(found)
