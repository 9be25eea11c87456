"""Time and memory of a training iteration on the CPU: imae's plans against PyTorch, side by side.

    python -m benchmarks.train_step [--depth 20 32 56] [--rounds 5] [--against eager as_it_comes plain bf16 ...]

Each side is a process of its own, and they take turns, one iteration each. All have the same net, batch and SGD, and
all but PyTorch as it comes have the C library keep freed memory (`imae.nets.memory`). Reported are medians, the median
of the ratios of a turn, and peak memory: what a process holds at most beyond what it held after an iteration at batch
2, so weights, momenta, activations and workspaces, but no code. `convolutions` are those of the iteration alone: both
sides call the same kernels for them, so neither can be faster.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import floor, imae_resnet
from benchmarks.measuring import Benchmark, Row, Side, median_ratio, positive, ratio, take_turns
from benchmarks.pytorch_resnet import as_it_comes, compiled, convolutions, eager

SMALL_BATCH = 2
SIDES: dict[str, tuple[Callable[..., Callable[[], None]], tuple[Any, ...]]] = {
    "ours": (imae_resnet.training, ()),
    "plain": (imae_resnet.training, ("plain",)),
    "bf16": (imae_resnet.training, ("fused", torch.bfloat16)),
    "eager": (eager, ()),
    "as_it_comes": (as_it_comes, ()),
    "compiled": (compiled, ()),
    "convolutions": (convolutions, ()),
}
"""What builds an iteration of (depth, batch, ...), and with what besides."""


def compare(depth: int, batch: int, rounds: int, against: Sequence[str] = ("eager",)) -> tuple[Row, list[str]]:
    """Return the row of one net and batch size, and what has to be said about it."""
    name = f"ResNet-{depth}, batch {batch}"
    sides = {}
    for side in ("ours", *against):
        build, more = SIDES[side]
        unmeasured = side in ("compiled", "convolutions")  # the compiler would count, and a part says nothing
        small = None if unmeasured else (depth, SMALL_BATCH, *more)
        sides[side] = Side(build, (depth, batch, *more), process=True, small=small)
    precisions = {"": torch.float32} | ({"bf16_": torch.bfloat16} if "bf16" in sides else {})
    solvers = {which: imae_resnet.solver(depth, batch, dtype=dtype) for which, dtype in precisions.items()}
    size = floor.largest_value(solvers[""].net)
    yardsticks = {key: side for dtype in precisions.values() for key, side in floor.yardsticks(size, dtype).items()}
    turns = take_turns(sides | yardsticks, rounds, label=name)
    row: Row = {"net": f"ResNet-{depth}", "depth": depth, "batch": batch}
    said = []
    for which, dtype in precisions.items():
        rates = floor.rates(turns, size, dtype)
        row[f"{which}floor_ms"] = 1e3 * floor.iteration_seconds(solvers[which], rates)
        said.append(f"{name}: {floor.describe_rates(rates)}")
    for side in sides:
        row |= {f"{side}_ms": turns[side].ms, f"{side}_mib": turns[side].mib}
    for side in {"eager", "as_it_comes", "compiled"} & set(sides):
        row[f"{side}_ratio"] = median_ratio(turns["ours"], turns[side])
    if {"eager", "convolutions"} <= set(sides):
        row["convolutions_ratio"] = median_ratio(turns["convolutions"], turns["eager"])
    if "bf16" in sides:
        row["bf16_ratio"] = median_ratio(turns["bf16"], turns["ours"])
    row["memory_ratio"] = ratio(row["ours_mib"], row.get("eager_mib"))
    missing = [f"{name}: {turns[side].missing}." for side in sides if turns[side].missing]
    return row, [*said, *missing]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which nets, how often, and against what."""
    others = [side for side in SIDES if side != "ours"]
    parser.add_argument("--depth", type=positive, nargs="+", default=[20, 32, 56])
    parser.add_argument("--batch", type=positive, default=128)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--against", nargs="+", choices=others, default=others, help="compiled takes minutes.")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each net."""
    rows, notes = [], []
    for depth in options.depth:
        row, said = compare(depth, options.batch, options.rounds, options.against)
        rows.append(row)
        notes += said
    return rows, notes


BENCHMARK = Benchmark(
    "train_step",
    "A training iteration against PyTorch",
    {
        "net": "net",
        "batch": "batch",
        "floor_ms": "floor ms",
        "bf16_floor_ms": "bf16 floor ms",
        "ours_ms": "ours ms",
        "plain_ms": "plain plan ms",
        "bf16_ms": "bf16 ms",
        "eager_ms": "eager ms",
        "as_it_comes_ms": "eager as it comes ms",
        "compiled_ms": "compiled ms",
        "convolutions_ms": "convolutions alone ms",
        "eager_ratio": "ours / eager",
        "as_it_comes_ratio": "ours / eager as it comes",
        "compiled_ratio": "ours / compiled",
        "convolutions_ratio": "convolutions alone / eager",
        "bf16_ratio": "bf16 / ours",
        "ours_mib": "ours MiB",
        "eager_mib": "eager MiB",
        "as_it_comes_mib": "eager as it comes MiB",
        "memory_ratio": "ours / eager, memory",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
