"""How long a large net takes to build: Inception-ResNet-v2, from its prototxt to a net that is ready to train.

    python -m benchmarks.plan_building [--batch 32] [--blocks 5 10 5] [--rounds 5]

The parts of a build are the shares that a profile of one gives them. The floor of filling is to draw all weights from a
normal distribution at once, as the fillers do blob by blob; that of storing, to write weights and gradients once at the
rate of a copy.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from time import perf_counter
from types import FrameType

import torch

from benchmarks import floor
from benchmarks.inception_resnet_v2 import inception_resnet_v2
from benchmarks.measuring import Benchmark, Row, Side, positive, take_turns
from imae.nets.net import Net
from imae.prototxt_like.schema import TEST, TRAIN, NetParameter
from imae.prototxt_like.text import format_text, parse_net

Function = tuple[str, str]
"""Its file and its name."""
PARTS: dict[str, list[Function]] = {
    "filling": [("fillers.py", "fill")],
    "storing": [("storage.py", "__init__")],
    "planning": [
        ("rules.py", "fused_plan"),
        ("net.py", "_plan_backward"),
        ("step.py", "plan_liveness"),
    ],
    "choosing layers": [("state.py", "filter_layers"), ("net.py", "_copy")],
}
"""The functions in which each part of a build is spent."""


def draw(count: int) -> Callable[[], torch.Tensor]:
    """Return the drawing of `count` normal numbers."""
    generator = torch.Generator().manual_seed(1)
    return lambda: torch.empty(count).normal_(generator=generator)


def build(param: NetParameter, phase: int) -> Callable[[], Net]:
    """Return the building of a net, as `imae train` builds it."""
    return lambda: Net(param, phase, plan="fused", backward=phase == TRAIN)


def shares(param: NetParameter) -> dict[str, float]:
    """Return the fraction of a build's time that goes into each part."""
    whole, setting_up = ("net.py", "__init__"), ("net.py", "_add_step")
    spent = spent_in([whole, setting_up, *chain(*PARTS.values())], build(param, TRAIN))
    found = {part: sum(spent[function] for function in functions) / spent[whole] for part, functions in PARTS.items()}
    found["setting layers up"] = spent[setting_up] / spent[whole] - found["filling"]
    return found | {"the rest": 1 - sum(found.values())}


def spent_in(functions: Iterable[Function], run: Callable[[], object]) -> dict[Function, float]:
    """Return the seconds that a run spends in each of some functions, which do not call themselves.

    Of this thread alone: from Python 3.12 on, cProfile takes returns in other threads for this one's.
    """
    spent = dict.fromkeys(functions, 0.0)
    names = {name for _, name in spent}

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_name
        if name in names and event in ("call", "return"):
            function = Path(frame.f_code.co_filename).name, name
            if function in spent:
                spent[function] += perf_counter() if event == "return" else -perf_counter()

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return spent


def add_options(parser: argparse.ArgumentParser) -> None:
    """How large a net."""
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--blocks", type=int, nargs=3, default=[5, 10, 5], help="Of Inception-ResNet-A, -B and -C.")
    parser.add_argument("--rounds", type=positive, default=5)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each step from the prototxt to the net, and for each part of building it."""
    param = inception_resnet_v2(options.batch, blocks=options.blocks)
    text = format_text(param)
    net = Net(param, TRAIN, plan="fused")
    weights = sum(blob.data.numel() for blob in net.learnable)
    sides = {
        "parse": Side(lambda: lambda: parse_net(text)),
        "train": Side(build, (param, TRAIN)),
        "test": Side(build, (param, TEST)),
        "draw": Side(draw, (weights,)),
        **floor.copy_yardstick(4 * weights),
    }
    turns = take_turns(sides, options.rounds, label="Inception-ResNet-v2", warm_up=1)
    train_ms = turns["train"].ms or 0.0
    floors = {
        "filling": 1e3 * turns["draw"].fastest,
        "storing": 1e3 * 2 * 4 * weights / floor.copy_rate(turns, 4 * weights),
    }
    rows: list[Row] = [
        {"part": "prototxt to message", "ms": turns["parse"].ms},
        {"part": "net of the phase TRAIN", "ms": train_ms, "floor_ms": sum(floors.values())},
        *(
            {"part": f"- {part}", "ms": share * train_ms, "floor_ms": floors.get(part)}
            for part, share in shares(param).items()
        ),
        {"part": "net of the phase TEST", "ms": turns["test"].ms, "floor_ms": sum(floors.values())},
    ]
    size = f"{len(param.layer)} layers, {len(text) / 1e3:.0f} kB of prototxt, {weights / 1e6:.1f} million weights."
    return rows, [size]


BENCHMARK = Benchmark(
    "plan_building",
    "Building Inception-ResNet-v2",
    {"part": "part", "floor_ms": "floor ms", "ms": "ours ms"},
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
