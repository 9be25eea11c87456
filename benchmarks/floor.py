"""The floor under a training iteration: the operations and bytes that it cannot do without, at the machine's rates.

    python -m benchmarks.floor [--depth 20] [--batch 128] [--rounds 7]

Counted from the shapes of the net, for each layer forward and backward:

- operations: a multiplication and an addition for each product of a Convolution or InnerProduct, once forward, once for
  the weights' and once for the bottom's gradient;
- bytes: each bottom, weight and top read or written once a pass; a BatchNorm reads its bottom twice, as the statistics
  come first (backward both bottom and gradient); a layer in place costs nothing, as it can be computed on the way.

A pass takes at least the longer of its operations at the peak rate and its bytes at the rate of a copy (of a tensor as
large as the net's largest). The peak is that of the fastest of `KERNELS`, in the precision that the net computes in.
Both rates are the best of this run. It is a floor for this way to compute: Winograd's convolutions need fewer
operations, and what stays in a cache closer than the copy's moves faster.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import imae_resnet
from benchmarks.measuring import Benchmark, Row, Side, Turns, positive, ratio, take_turns
from imae.layers.data.data_layer import DataLayer
from imae.layers.data.input import Input
from imae.layers.normalization.batch_norm import BatchNorm
from imae.nets.net import Net
from imae.nets.step import Step
from imae.solvers.solver import Solver

MATRIX = 1536
"""Rows and columns of the matrices."""
IMAGES, CHANNELS, SIZE, KERNEL = 32, 128, 16, 3
"""Of the convolution: CHANNELS to as many, SIZE x SIZE pixels, KERNEL x KERNEL."""
COPIES = 8
"""Copies a turn."""
SETTINGS = {"Convolution": "convolution_param", "InnerProduct": "inner_product_param"}
"""The layers made of products, and where their num_output is."""
SGD_PASSES = 5
"""Weight, gradient and history are read, weight and history written."""


@dataclass
class Work:
    """What a pass of a layer, or several, does at least, and how long that takes at least."""

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0

    def add(self, flops: float, nbytes: float, rates: "Rates") -> None:
        """Count one more pass."""
        self.flops += flops
        self.bytes += nbytes
        self.seconds += max(flops / rates.flops, nbytes / rates.bytes)


@dataclass(frozen=True)
class Rates:
    """What the machine can do: floating-point operations a second, and bytes read or written a second."""

    flops: float
    bytes: float
    kernel: str = ""
    """Which of `KERNELS` reached `flops`, and in which precision."""


def matrix_product(dtype: torch.dtype) -> Callable[[], object]:
    """Return a product of two square matrices."""
    a, b, c = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(3))
    return lambda: torch.mm(a, b, out=c)


def convolution(dtype: torch.dtype) -> Callable[[], object]:
    """Return a convolution by oneDNN, channels last, without a bias."""
    x = torch.randn(IMAGES, CHANNELS, SIZE, SIZE).to(dtype, memory_format=torch.channels_last)
    w = torch.randn(CHANNELS, CHANNELS, KERNEL, KERNEL).to(dtype, memory_format=torch.channels_last)
    return lambda: F.conv2d(x, w, padding=KERNEL // 2)


KERNELS: dict[str, tuple[Callable[[torch.dtype], Callable[[], object]], int]] = {
    "matrix product": (matrix_product, 2 * MATRIX**3),
    "convolution": (convolution, 2 * IMAGES * (CHANNELS * KERNEL * SIZE) ** 2),
}
"""What may reach the peak, which one does differs from machine to machine; and its floating-point operations."""


def copy(nbytes: int) -> Callable[[], None]:
    """Return `COPIES` copies of a tensor of `nbytes` to another."""
    source, target = torch.randn(nbytes // 4), torch.empty(nbytes // 4)

    def copies() -> None:
        for _ in range(COPIES):
            target.copy_(source)

    return copies


def yardsticks(nbytes: int, dtype: torch.dtype = torch.float32) -> dict[str, Side]:
    """Return the sides that measure the rates in a precision, for `take_turns`; `nbytes` is the size of a copy."""
    sides = {_precise(name, dtype): Side(build, (dtype,)) for name, (build, _) in KERNELS.items()}
    return sides | copy_yardstick(nbytes)


def copy_yardstick(nbytes: int) -> dict[str, Side]:
    """Return the side that measures the rate of a copy of `nbytes`, for `take_turns`."""
    return {"copy": Side(copy, (nbytes,))}


def rates(turns: Mapping[str, Turns], nbytes: int, dtype: torch.dtype = torch.float32) -> Rates:
    """Return the best rates among the turns of the `yardsticks` in a precision, the peak of all kernels."""
    peaks = {
        _precise(name, dtype): flops / turns[_precise(name, dtype)].fastest for name, (_, flops) in KERNELS.items()
    }
    kernel = max(peaks, key=peaks.__getitem__)
    return Rates(peaks[kernel], copy_rate(turns, nbytes), kernel)


def copy_rate(turns: Mapping[str, Turns], nbytes: int) -> float:
    """Return the best rate among the turns of the `copy_yardstick`, in bytes a second, read and written."""
    return COPIES * 2 * nbytes / turns["copy"].fastest


def describe_rates(measured: Rates) -> str:
    """Return the rates as a sentence."""
    peak, moved = measured.flops / 1e9, measured.bytes / 1e9
    return f"Peak rates of this run: {peak:.1f} GFLOP/s ({measured.kernel}), {moved:.1f} GB/s (copy)."


def _precise(kernel: str, dtype: torch.dtype) -> str:
    return f"{kernel} in {str(dtype).removeprefix('torch.')}"


def largest_value(net: Net) -> int:
    """Return the bytes of the net's largest value."""
    return max(math.prod(shape) for shape in net.shapes) * net.context.dtype.itemsize


def count(net: Net, measured: Rates, *, backward: bool) -> dict[str, Work]:
    """Return the work of a pass, forward and by option backward, by the layers' types."""
    work: dict[str, Work] = defaultdict(Work)
    for step in net.steps:
        kind = step.layer.param.type
        for flops, nbytes in _passes(net, step, backward and step.backward):
            work[kind].add(flops, nbytes, measured)
    return dict(work)


def update(solver: Solver, measured: Rates) -> Work:
    """Return the work of SGD with momentum."""
    work = Work()
    data = solver.net.storage.data
    work.add(0.0, SGD_PASSES * data.numel() * data.element_size(), measured)
    return work


def iteration_seconds(solver: Solver, measured: Rates) -> float:
    """Return the floor of a training iteration."""
    passes = count(solver.net, measured, backward=True).values()
    return sum(work.seconds for work in passes) + update(solver, measured).seconds


def _passes(net: Net, step: Step, backward: bool) -> list[tuple[float, float]]:
    """The operations and bytes of each kernel that a layer needs."""
    layer, size = step.layer, net.context.dtype.itemsize
    bottom = size * sum(math.prod(net.shapes[value]) for value in step.bottoms)
    top = size * sum(math.prod(net.shapes[value]) for value in step.tops)
    if isinstance(layer, Input | DataLayer):
        return []
    if settings := SETTINGS.get(layer.param.type):
        weights = layer.blobs[0].data
        flops = 2 * top / size * weights.numel() / getattr(layer.param, settings).num_output
        return [(flops, bottom + weights.nbytes + top)] * (1 + backward * (1 + step.needs[0]))
    if isinstance(layer, BatchNorm) and not layer.use_global:
        return [(0.0, 2.0 * bottom + top), (0.0, 3.0 * bottom + 2.0 * top)][: 1 + backward]
    if list(layer.param.bottom[:1]) == list(layer.param.top[:1]):
        return []
    return [(0.0, bottom + top)] * (1 + backward)


# The floor beside the time taken


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which net, and how often."""
    parser.add_argument("--depth", type=positive, default=20)
    parser.add_argument("--batch", type=positive, default=128)
    parser.add_argument("--rounds", type=positive, default=7)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each type of layer, one for the update and one for the whole iteration."""
    solver = imae_resnet.solver(options.depth, options.batch)
    iterate = imae_resnet.iteration(solver)
    spent: dict[str, float] = defaultdict(float)
    turns = take_turns(
        {"iteration": Side(lambda: iterate), **yardsticks(size := largest_value(solver.net))},
        options.rounds,
        label=f"ResNet-{options.depth}, batch {options.batch}",
    )
    measured = rates(turns, size)
    _watch(solver, spent)
    for _ in range(options.rounds):
        iterate()
    work = count(solver.net, measured, backward=True) | {"update": update(solver, measured)}
    rows = [_row(kind, done, 1e3 * spent[kind] / options.rounds) for kind, done in work.items() if done.seconds]
    whole = Work(*(sum(values) for values in zip(*map(astuple, work.values()), strict=True)))
    return [*rows, _row("iteration", whole, turns["iteration"].ms)], [describe_rates(measured)]


def _row(part: str, work: Work, ours_ms: float | None) -> Row:
    floor_ms = 1e3 * work.seconds
    return {
        "part": part,
        "gflop": work.flops / 1e9,
        "mb": work.bytes / 1e6,
        "floor_ms": floor_ms,
        "ours_ms": ours_ms,
        "floor_share": ratio(floor_ms, ours_ms),
    }


def _watch(solver: Solver, spent: dict[str, float]) -> None:
    """Have the seconds that the steps of the plan and the update take added to `spent`, by type of layer.

    A step of a fused layer counts under the type of the first layer of its chain.
    """
    maker = {value: step for step in solver.net.steps for value in step.tops}
    for step in solver.net.plan:
        first = maker[step.tops[0]]
        while first.bottoms and first.bottoms[0] not in step.bottoms:
            first = maker[first.bottoms[0]]
        for way in ("forward", "backward", "recompute"):
            setattr(step.layer, way, _timed(getattr(step.layer, way), spent, first.layer.param.type))
    solver.update.apply = _timed(solver.update.apply, spent, "update")  # type: ignore[method-assign]


def _timed(method: Callable[..., Any], spent: dict[str, float], kind: str) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = method(*arguments)
        spent[kind] += time.perf_counter() - start
        return result

    return timed


BENCHMARK = Benchmark(
    "floor",
    "A training iteration and its floor",
    {
        "part": "part",
        "gflop": "GFLOP",
        "mb": "MB moved",
        "floor_ms": "floor ms",
        "ours_ms": "ours ms",
        "floor_share": "floor / ours",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
