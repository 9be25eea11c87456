"""Each layer's forward and backward against its plain PyTorch counterpart under autograd.

    python -m benchmarks.layers [TYPE ...] [--seconds 0.5]

`benchmarks/layer_cases.py` has the counterparts, each beside its layer and its shapes. Before they are timed, values
and gradients of both are compared. They take turns call by call, in one process: ours, PyTorch, PyTorch, ours, so that
neither profits from what the other has left in the caches. A gradient by a parameter is added to what is there on both
sides. Labels and other indices are int64 for both, as this project's data layers give them and PyTorch's users have
them; a layer checks each of them, an expression where PyTorch does, as in F.cross_entropy.

Reported are medians, and medians of the ratios of a turn of forward and backward together: of seconds on all threads,
and on one thread of the processor's time, which other work disturbs less. A row that is slower than 1.1 is measured up
to three times as long, and if that is as it has to be, it says why.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.layer_cases import CASES, Case
from benchmarks.measuring import Benchmark, Row
from imae.cli.progress import Display
from imae.layers.data.data_layer import DataLayer
from imae.layers.gradient_check import build_layer
from imae.layers.layer import Layer, Saved, describe
from imae.nets.memory import keep_freed_memory
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

FEWEST, MOST = 3, 300
"""Turns of a row, however long they take."""
TRIES = 3
"""How often a row is measured before it is called slow."""
LIMIT = 1.1
"""Ours over PyTorch's time, beyond which a row needs a reason."""


Clock = Callable[[], float]
"""In seconds."""


class Ours:
    """The layer."""

    def __init__(self, case: Case, bottoms: Sequence[Tensor]) -> None:
        self.bottoms = list(bottoms)
        self.layer = build(case, [tuple(x.shape) for x in bottoms])
        self.passes = self.layer.context.passes
        case.prepare(self.layer)
        for blob in self.layer.blobs:  # a statistic is 1
            blob.data.normal_(std=0.1) if blob.lr_mult else blob.data.fill_(1)
        self.needs = [i not in self.layer.no_gradient_to for i in range(len(bottoms))]

    def forward(self) -> list[Tensor]:
        """Return the tops; those of a data layer as they are made, which in a net happens beside other work."""
        if isinstance(self.layer, DataLayer):
            return self.layer.batch(self.passes.number)
        self.saved: Saved = {}
        self.tops = self.layer.forward(self.bottoms, self.saved)
        return self.tops

    def backward(self, diffs: list[Tensor]) -> list[Tensor]:
        """Return the gradients by the bottoms."""
        found = self.layer.backward(self.bottoms, self.tops, diffs, self.saved, self.needs)
        return [diff for diff, need in zip(found, self.needs, strict=True) if need and diff is not None]

    def learned(self) -> list[Tensor]:
        """Return the gradients by the parameters."""
        return [blob.diff for blob in self.layer.blobs if blob.lr_mult]


class Theirs:
    """The expression under autograd."""

    def __init__(self, case: Case, bottoms: Sequence[Tensor], ours: Ours) -> None:
        self.expression, learns = case.expression, bool(ours.learned())
        self.bottoms = [x.detach().requires_grad_(need) for x, need in zip(bottoms, ours.needs, strict=True)]
        blobs = case.weights([blob.data.clone() for blob in ours.layer.blobs])
        self.parameters = [blob.requires_grad_(learns) for blob in blobs]
        for parameter in self.parameters if learns else []:
            parameter.grad = torch.zeros_like(parameter)

    def forward(self) -> list[Tensor]:
        """Return what the expression gives."""
        tops = self.expression(*self.bottoms, *self.parameters)
        self.tops = [tops] if isinstance(tops, Tensor) else list(tops)
        return self.tops

    def backward(self, diffs: list[Tensor]) -> list[Tensor]:
        """Return its gradients by the bottoms; those by the parameters are added."""
        bottoms, parameters = ([x for x in xs if x.requires_grad] for xs in (self.bottoms, self.parameters))
        found = torch.autograd.grad(self.tops, [*bottoms, *parameters], diffs)
        for parameter, diff in zip(parameters, found[len(bottoms) :], strict=True):
            assert parameter.grad is not None
            parameter.grad += diff
        return list(found[: len(bottoms)])

    def learned(self) -> list[Tensor]:
        """Return the gradients by the parameters."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


def build(case: Case, shapes: Sequence[tuple[int, ...]]) -> Layer:
    """Return the layer of a case."""
    param = parse_net(f'layer {{ type: "{case.type}" {case.settings} }}', "layer").layer[0]
    param.top.extend(f"top{i}" for i in range(case.tops))
    return build_layer(param, shapes, phase=case.phase, dtype=torch.float32)


class Pair:
    """Both sides of a case, with the same bottoms, weights and gradients of the tops."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(1)
        bottoms = [draw() for draw in case.bottoms]
        self.case, self.ours = case, Ours(case, bottoms)
        self.theirs = Theirs(case, bottoms, self.ours)
        self.shape = ", ".join(dict.fromkeys(describe(x.shape) for x in bottoms))
        self.agree()

    def agree(self) -> None:
        """Run both sides, and compare what they give; raises AssertionError where they differ."""
        self.ours.passes.advance()
        ours, theirs = self.ours.forward(), self.theirs.forward()
        self.differentiates = any(top.requires_grad for top in theirs)
        if not self.case.differs:
            close(ours, [top.view_as(own) for top, own in zip(theirs, ours, strict=True)], f"{self.case.type} forward")
        self.diffs: list[Tensor] = []
        self.their_diffs: list[Tensor] = []
        if not self.differentiates:
            return
        self.diffs = [torch.randn_like(top) if top.dim() else torch.tensor(1.0) for top in ours]
        self.their_diffs = [
            torch.empty_like(top).copy_(diff.view_as(top)) for top, diff in zip(theirs, self.diffs, strict=True)
        ]
        ours, theirs = self.ours.backward(self.diffs), self.theirs.backward(self.their_diffs)
        if not self.case.differs:
            close(ours, theirs, f"{self.case.type} backward")
            if self.case.weights is list:
                close(self.ours.learned(), self.theirs.learned(), f"{self.case.type} by its blobs")

    def turn(self, clock: Clock) -> list[float]:
        """Return the seconds of two forward and two backward passes of ours, and of theirs."""

        def timed(work: Callable[..., object], *diffs: list[Tensor]) -> float:
            if diffs and not self.differentiates:
                return 0.0
            self.ours.passes.advance()  # which a net does
            start = clock()
            work(*diffs)
            return clock() - start

        ours, theirs = self.ours, self.theirs
        our_forward, their_forward = timed(ours.forward), timed(theirs.forward)
        their_backward, our_backward = timed(theirs.backward, self.their_diffs), timed(ours.backward, self.diffs)
        their_forward, our_forward = their_forward + timed(theirs.forward), our_forward + timed(ours.forward)
        our_backward += timed(ours.backward, self.diffs)
        their_backward += timed(theirs.backward, self.their_diffs)
        return [our_forward, our_backward, their_forward, their_backward]


def close(ours: list[Tensor], theirs: list[Tensor], what: str) -> None:
    """Raise AssertionError, naming `what`, unless both hold the same numbers."""
    torch.testing.assert_close(
        ours, theirs, rtol=1e-3, atol=1e-3, check_dtype=False, check_stride=False, msg=lambda text: f"{what}: {text}"
    )


def times(pair: Pair, seconds: float, clock: Clock) -> Row:
    """Return the medians of `seconds` of turns, in milliseconds a pass, and of the turns' ratios."""
    turns: list[list[float]] = []
    for _ in range(TRIES):
        end, most = time.perf_counter() + seconds, len(turns) + MOST
        while len(turns) < most and (time.perf_counter() < end or len(turns) < FEWEST):
            turns.append(pair.turn(clock))
        ratio = statistics.median((of + ob) / (tf + tb) for of, ob, tf, tb in turns)
        if ratio <= LIMIT:
            break
    of, ob, tf, tb = (500 * statistics.median(part) for part in zip(*turns, strict=True))
    row: Row = {"ours_forward": of, "their_forward": tf, "ratio": ratio}
    row["forward_ratio"] = statistics.median(turn[0] / turn[2] for turn in turns)
    if pair.differentiates:
        row |= {"ours_backward": ob, "their_backward": tb}
        row["backward_ratio"] = statistics.median(turn[1] / turn[3] for turn in turns)
    return row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which layers, and how long."""
    parser.add_argument("types", nargs="*", metavar="TYPE", help="Layers; all by default.")
    parser.add_argument("--seconds", type=float, default=0.5, help="Of turns, for each row and number of threads.")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each case, on all threads and on one."""
    if unknown := set(options.types) - {case.type for case in CASES}:
        raise InputError(f"no rows of {', '.join(sorted(unknown))}")
    keep_freed_memory()
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    cases = [case for case in CASES if not options.types or case.type in options.types]
    rows: list[Row] = []
    with Display() as display:
        for i, case in enumerate(cases):
            pair = Pair(case)
            torch.set_num_threads(1)
            one = times(pair, options.seconds, time.thread_time)
            torch.set_num_threads(threads)
            row = times(pair, options.seconds, time.perf_counter) if threads > 1 else one
            settings = case.what or case.settings.partition("{")[2].rpartition("}")[0].strip()
            words: Row = {"type": case.type, "settings": settings or "as it comes", "shape": pair.shape or "none"}
            rows.append(words | row | {f"{key}_1": value for key, value in one.items()} | {"why": case.why})
            display.advance("layers", i + 1, len(cases))
    notes = []
    for where, key in [("all threads", "ratio")] * (threads > 1) + [("one thread", "ratio_1")]:
        slow = [row for row in rows if row[key] > LIMIT]
        notes.append(f"On {where} {len(rows) - len(slow)} of {len(rows)} rows take at most {LIMIT} of PyTorch's time.")
        if named := [f"{row['type']} ({row['settings']})" for row in slow if not row["why"]]:
            notes.append(f"Slower without a reason: {', '.join(named)}.")
    if load > 1:
        notes.append("The machine had other work, which what is on one thread is disturbed least by.")
    return rows, notes


BENCHMARK = Benchmark(
    "layers",
    "Layers against PyTorch",
    {
        "type": "layer",
        "settings": "setting",
        "shape": "bottoms",
        "ours_forward": "ours forward ms",
        "ours_backward": "ours backward ms",
        "their_forward": "PyTorch forward ms",
        "their_backward": "PyTorch backward ms",
        "ratio": "ours / PyTorch",
        "ratio_1": "on one thread",
        "why": "why it may take longer",
    },
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
