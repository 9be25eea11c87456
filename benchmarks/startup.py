"""How long the command takes to answer: `imae --help` and that of a command, as processes.

    python -m benchmarks.startup [--rounds 10]

The floor is an interpreter that does nothing; beside it stands one that imports what draws the help.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

from benchmarks.measuring import ROOT, Benchmark, Row, Side, positive, ratio, take_turns

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import typer, rich.console"': ["-c", "import typer, rich.console"],
    "imae --help": ["-m", "imae", "--help"],
    "imae train --help": ["-m", "imae", "train", "--help"],
}


def process(arguments: list[str]) -> Callable[[], object]:
    """Return a run of this interpreter with `arguments`."""
    return lambda: subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How often."""
    parser.add_argument("--rounds", type=positive, default=10)


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each command."""
    sides = {command: Side(process, (arguments,)) for command, arguments in COMMANDS.items()}
    turns = take_turns(sides, options.rounds, label="processes", warm_up=1)
    floor = turns["python -c pass"].ms
    return [
        {"command": command, "floor_ms": floor, "ms": taken.ms, "times": ratio(taken.ms, floor)}
        for command, taken in turns.items()
    ], []


BENCHMARK = Benchmark(
    "startup",
    "Until a command answers",
    {"command": "command", "floor_ms": "floor ms", "ms": "ms", "times": "over floor"},
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
