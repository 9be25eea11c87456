"""A training iteration on a machine with other work: how threads wait, idle and beside busy processes.

    python -m benchmarks.busy_machine [--depth 20] [--rounds 15] [--busy 2]

Each row is two processes, one that works while the machine is idle and one beside `--busy` processes that count without
end; all take turns, an iteration each, so that what else happens meets all alike. Reported are medians.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks.measuring import Benchmark, Row, Side, positive, ratio, take_turns

WAYS = {"ours": "spinning briefly, in short slices", "spinning": "spinning, as OpenMP does", "one": "one thread"}
SPINS = "300000"
"""GNU OpenMP's own count of spins where nothing is said (libgomp's env.c)."""
SETTLING = 0.3
"""Seconds until a process that was started is busy."""


def training(way: str, depth: int, batch: int) -> Callable[[], None]:
    """Return a training iteration of a process that has not loaded torch yet, whose threads wait in `way`."""
    if way == "spinning":
        os.environ["GOMP_SPINCOUNT"] = SPINS
        from benchmarks.imae_resnet import training
    else:
        from imae.cli.options import load_torch

        load_torch(1 if way == "one" else None)
        from benchmarks.imae_resnet import training
    return training(depth, batch)


class Busy:
    """Processes that compute without end, between `start` and `stop`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them, and wait until they are busy."""
        count = [sys.executable, "-c", "while True: pass"]
        self._processes = [subprocess.Popen(count) for _ in range(self._count)]
        time.sleep(SETTLING)

    def stop(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which net, how often, and how many busy processes."""
    parser.add_argument("--depth", type=positive, default=20)
    parser.add_argument("--batch", type=positive, default=128)
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--busy", type=positive, default=2)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each way to wait."""
    busy = Busy(options.busy)

    def sides(when: str) -> dict[str, Side]:
        return {
            f"{when} {way}": Side(training, (way, options.depth, options.batch), process=True) for way in options.ways
        }

    def here(work: Callable[[], None]) -> Side:
        return Side(partial(_returned, work))

    turning = sides("idle") | {"start": here(busy.start)} | sides("busy") | {"stop": here(busy.stop)}
    try:
        turns = take_turns(turning, options.rounds, label=f"ResNet-{options.depth}, batch {options.batch}", warm_up=1)
    finally:
        busy.stop()
    best = turns[f"idle {options.ways[0]}"].ms
    return [
        {
            "waiting": WAYS[way],
            "idle_ms": turns[f"idle {way}"].ms,
            "busy_ms": turns[f"busy {way}"].ms,
            "times": ratio(turns[f"busy {way}"].ms, turns[f"idle {way}"].ms),
            "of_first": ratio(turns[f"idle {way}"].ms, best),
        }
        for way in options.ways
    ], [f"ResNet-{options.depth}, batch {options.batch}, beside {options.busy} busy processes."]


def _returned(work: Callable[[], None]) -> Callable[[], None]:
    return work


BENCHMARK = Benchmark(
    "busy_machine",
    "Training on a busy machine",
    {
        "waiting": "threads wait",
        "idle_ms": "idle ms",
        "busy_ms": "busy ms",
        "times": "busy / idle",
        "of_first": "idle / idle of the first",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
