"""Trying one format: inputs by number, each bounded in time and memory, in a process that may die of one."""

import logging
import multiprocessing
import os
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fuzzing.formats import Format
from fuzzing.mutations import damage
from imae.prototxt_like.errors import InputError

SECONDS = 2.0
"""Of processor time, that an input may take."""
_HANGS = 60.0
"""Seconds after which a process that says nothing is ended."""


@dataclass(frozen=True)
class Finding:
    """An input that gave anything but a result or an InputError of one line, or took too long or too much memory."""

    number: int
    what: str


def make_input(name: str, format: Format, seed: int, number: int) -> bytes:
    """Return input `number` of a format: the same for the same seed, on every machine."""
    return damage(random.Random(f"{seed} {name} {number}"), format.seeds, format.ways)


def try_input(format: Format, data: bytes, path: Path) -> str | None:
    """Read `data` from `path`, and say what is wrong with how that went, if anything is."""
    path.write_bytes(data)
    peak, since = _peak(), time.process_time()
    wrong = None
    try:
        format.read(path)
    except InputError as error:
        if "\n" in str(error):
            wrong = f"an error of several lines: {error!r:.200}"
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error!r:.200}"
    seconds, memory = time.process_time() - since, _peak() - peak
    if seconds > SECONDS:
        wrong = wrong or f"{seconds:.1f} s"
    if memory > format.memory:
        wrong = wrong or f"{memory >> 20} MiB of memory"
    return wrong


def try_format(name: str, format: Format, seed: int, numbers: range, folder: Path) -> Iterator[Finding | int]:
    """Try inputs of a format in processes of their own; give what is found and, now and then, how many are done."""
    first = numbers.start
    context = multiprocessing.get_context("fork")
    while first < numbers.stop:
        ours, theirs = context.Pipe(duplex=False)
        rest = range(first, numbers.stop)
        process = context.Process(target=_work, args=(name, format, seed, rest, folder, theirs))
        process.start()
        theirs.close()
        while ours.poll(_HANGS):
            try:
                number, wrong = ours.recv()
            except EOFError:
                break
            first = number + 1
            if wrong:
                yield Finding(number, wrong)
            elif first % 1000 == 0:
                yield first
        process.kill()
        process.join()
        if first < numbers.stop:
            how = "a hang" if process.exitcode == -9 else f"the end of the process, status {process.exitcode}"
            yield Finding(first, how)
            first += 1


def _work(name: str, format: Format, seed: int, numbers: range, folder: Path, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()  # what readers, and the libraries they call, log about damage
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in numbers:
        answer.send((number, try_input(format, make_input(name, format, seed, number), folder / format.name)))


def _peak() -> int:
    """The most memory, in bytes, that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
