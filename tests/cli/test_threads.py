"""`--threads` on every long command, and in the log what was chosen."""

import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

Imae = Callable[..., Any]
TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_log_says_how_many_threads_there_are_and_how_they_wait(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "1", "--threads", "3").status == 0
    assert ", on CPU, 3 threads waiting " in Path("out/digits.log").read_text()
    again = imae(*TRAIN, "--iterations", "1", "--prefix", "one/net", "--threads", "1")
    assert "on CPU, 1 thread\n" in again.err


def test_the_command_that_goes_on_has_as_many_threads(
    imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: object, what: str, done: int, total: int) -> None:
        if (what, done) == ("train", 2):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("imae.cli.progress.Display.advance", stop)
    assert " --threads 2 --snapshot " in imae(*TRAIN, "--threads", "2").out


@pytest.mark.parametrize(
    "command",
    [
        "test --model net.prototxt --weights out/digits_iter_1.caffemodel --iterations 1",
        "time --model net.prototxt --iterations 1",
        "features --model net.prototxt --weights out/digits_iter_1.caffemodel --blob ip1 --output f.npy",
        "check-gradients net.prototxt --samples 1",
    ],
)
def test_other_long_commands_take_them_too(imae: Imae, digits: Path, command: str) -> None:
    assert imae(*TRAIN, "--iterations", "1").status == 0
    assert imae(*shlex.split(command), "--threads", "2").status == 0
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", ["0", "-1", "1025", "many"])
def test_a_number_of_threads_that_makes_no_sense_is_wrong_usage(imae: Imae, digits: Path, threads: str) -> None:
    assert imae(*TRAIN, "--threads", threads).status == 2


def test_the_demo_takes_them(imae: Imae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.experiments.demo.run", lambda *_: None)
    assert imae("demo", "--output", tmp_path, "--threads", "2").status == 0
    assert torch.get_num_threads() == 2
