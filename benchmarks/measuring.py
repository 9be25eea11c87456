"""What the benchmarks share: sides that take turns, medians, memory, and results as a table and as JSON."""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from imae import __version__
from imae.cli.progress import Display
from imae.cli.table import print_table
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WARM_UP = 3
PATIENCE = 5.0
"""Seconds that a process has to end by itself before it is terminated."""
Row = dict[str, Any]
"""Figures and words by the keys of `Benchmark.columns`, and more that only the JSON has."""


class Unavailable(Exception):
    """A side cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: `build(*arguments)` returns the work of a turn, or raises `Unavailable`."""

    build: Callable[..., Callable[[], object]]
    arguments: tuple[Any, ...] = ()
    process: bool = False
    """Whether it runs in a process of its own."""
    small: tuple[Any, ...] | None = None
    """The arguments of a small instance. With them the process measures its peak memory, beyond what it holds after a
    turn of the small instance, when all code is loaded."""


@dataclass
class Turns:
    """What a side's turns took, without those that warmed it up."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    missing: str = ""
    """Why there are none."""

    @property
    def ms(self) -> float | None:
        """The median, in milliseconds."""
        return 1e3 * statistics.median(self.seconds) if self.seconds else None

    @property
    def fastest(self) -> float:
        """The shortest turn, in seconds."""
        return min(self.seconds)

    @property
    def mib(self) -> float | None:
        """The peak memory, in MiB."""
        return None if self.peak_bytes is None else self.peak_bytes / 2**20


def median_ratio(ours: Turns, theirs: Turns) -> float | None:
    """Return the median over the turns of ours / theirs."""
    ratios = [a / b for a, b in zip(ours.seconds, theirs.seconds, strict=False)]
    return statistics.median(ratios) if ratios else None


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return ours / theirs, None where one is missing."""
    return ours / theirs if ours is not None and theirs else None


def take_turns(sides: Mapping[str, Side], rounds: int, *, label: str, warm_up: int = WARM_UP) -> dict[str, Turns]:
    """Run each side once a round, one after the other, so that a disturbance of the machine meets all alike.

    The first `warm_up` rounds do not count. `label` names the work in the progress display.
    """
    turns = {name: Turns() for name in sides}
    players = {name: _Process(side) if side.process else _Here(side) for name, side in sides.items()}
    try:
        for name, player in players.items():
            turns[name].missing = player.ready()
        with Display() as display:
            for number in range(warm_up + rounds):
                for name, player in players.items():
                    if turns[name].missing:
                        continue
                    seconds, turns[name].peak_bytes = player.turn()
                    if number >= warm_up:
                        turns[name].seconds.append(seconds)
                display.advance(label, number + 1, warm_up + rounds)
    finally:
        for player in players.values():
            player.end()
    return turns


class _Here:
    """A side in this process, whose memory is not measured."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def ready(self) -> str:
        """Build it; return why it cannot run, or nothing."""
        try:
            self.work = self.side.build(*self.side.arguments)
        except Unavailable as error:
            return str(error)
        return ""

    def turn(self) -> tuple[float, int | None]:
        """Return a turn's seconds, and no memory."""
        start = time.perf_counter()
        self.work()
        return time.perf_counter() - start, None

    def end(self) -> None:
        """Nothing is left to end."""


class _Process:
    """A side in a process of its own, which is built while others are."""

    def __init__(self, side: Side) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(side, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def ready(self) -> str:
        """Wait until it is built; return why it cannot run, or nothing."""
        return str(self.pipe.recv())

    def turn(self) -> tuple[float, int | None]:
        """Return a turn's seconds and the peak memory so far, in bytes."""
        self.pipe.send(True)
        seconds, peak = self.pipe.recv()
        return seconds, peak

    def end(self) -> None:
        """Close the pipe, which ends the process after its turn."""
        self.pipe.close()
        self.process.join(PATIENCE)
        self.process.terminate()


def _serve(side: Side, pipe: Connection) -> None:
    """Say whether the side can run, then run a turn for each message until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks for turns decides when it is over
    with contextlib.suppress(EOFError, ConnectionError):
        before = None
        try:
            if side.small is not None:
                side.build(*side.small)()
                before = _reset_peak()
            work = side.build(*side.arguments)
        except Unavailable as error:
            pipe.send(str(error))
            return
        pipe.send("")
        while pipe.recv():
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
            pipe.send((seconds, None if before is None else 1024 * _status("VmHWM") - before))


def _reset_peak() -> int | None:
    """Give freed memory back, forget the peak so far, and return what the process holds, in bytes; Linux only."""
    if sys.platform != "linux":
        return None
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak, VmHWM
    return 1024 * _status("VmRSS")


def _status(key: str) -> int:
    """Return a figure of this process from the kernel, in KiB."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, f"no {key} in /proc/self/status"
    return int(found[1])


def positive(text: str) -> int:
    """Return an option's whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, not "{text}"')
    return int(text)


@dataclass(frozen=True)
class Benchmark:
    """A measurement with a command of its own, `python -m benchmarks.NAME`."""

    name: str
    title: str
    columns: dict[str, str]
    """Headings by the keys of a row, in order."""
    add_options: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace], tuple[list[Row], list[str]]]
    """Returns the rows of the table, and what has to be said below it."""

    def main(self, description: str | None, arguments: Sequence[str] | None = None) -> None:
        """Measure as the command line asks; print the table, write it as JSON."""
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        parser.add_argument("--output", type=Path, default=RESULTS / f"{self.name}.json", help="Where the JSON goes.")
        given = sys.argv[1:] if arguments is None else list(arguments)
        options = parser.parse_args(given)
        load = os.getloadavg()[0]
        try:
            rows, notes = self.measure(options)
        except InputError as error:
            raise SystemExit(f"benchmarks.{self.name}: error: {error}") from error
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        record = {
            "benchmark": self.name,
            "title": self.title,
            "command": shlex.join(["python", "-m", f"benchmarks.{self.name}", *given]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine() | {"load_before": load},
            "versions": versions(),
            "columns": self.columns,
            "rows": rows,
            "notes": notes,
        }
        header, cells = table(record)
        print_table(header, cells, right=range(1, len(header)))
        print(*notes, sep="\n", end="\n" if notes else "")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.output, (json.dumps(record, indent=1) + "\n").encode())


def table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and cells of a benchmark's JSON record."""
    columns: dict[str, str] = record["columns"]
    return list(columns.values()), [[describe(row.get(key)) for key in columns] for row in record["rows"]]


def describe(value: str | float | None) -> str:
    """Return a cell: numbers to three digits, a dash for what is missing."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:#.3g}"


def machine() -> dict[str, Any]:
    """Return what this machine is, as far as it decides how fast a computation runs."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes, and the commit that is checked out, where there is one."""
    found = {"python": platform.python_version(), "imae": __version__}
    for package in ("torch", "numpy", "protobuf"):
        found[package] = metadata.version(package)
    try:
        command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return found
    return found | {"commit": commit}
