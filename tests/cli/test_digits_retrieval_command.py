"""`imae reproduce digits-retrieval`, from the shell."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imae.experiments import digits_retrieval

Imae = Callable[..., Any]
COMMAND = ("reproduce", "digits-retrieval", "--iterations", "4", "--seeds", "1", "--noise", "50", "--loss", "cce")


def test_it_ends_with_a_table_and_a_page_that_names_the_command(imae: Imae, tmp_path: Path) -> None:
    output = tmp_path / "my runs"
    first = imae(*COMMAND, "--loss", "imae", "--output", output)
    assert first.status == 0, first.err
    lines = first.out.splitlines()
    words = [line.split()[0] for line in lines]
    assert words[1:3] == ["50", "50"] and words[4:9] == ["raw", "untrained", "chance", "50", "50"]
    assert lines[-2:] == [str(output / f"digits_retrieval.{suffix}") for suffix in ("html", "md")]
    assert [line[:14] for line in first.err.splitlines()] == ["50 % noise, CC", "50 % noise, IM"]
    command = "imae reproduce digits-retrieval --noise 50 --loss CCE --loss IMAE --seeds 1 --iterations 4 --output"
    assert f"{command} '{output}'" in (output / "digits_retrieval.md").read_text()
    second = imae(*COMMAND, "--loss", "imae", "--output", output)
    assert (second.status, second.out, second.err) == (0, first.out, "")


@pytest.mark.parametrize(
    ("which", "status", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_what_ends_it_early_says_how_to_go_on(
    imae: Imae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: signal.Signals, status: int, said: str
) -> None:
    monkeypatch.setattr(digits_retrieval, "_measure", lambda *_: signal.raise_signal(which))
    before = signal.getsignal(which)
    outcome = imae(*COMMAND, "--output", tmp_path)
    assert outcome.status == status
    assert outcome.err.endswith(f"imae: {said}\n")
    assert signal.getsignal(which) is before
    assert outcome.out.startswith("Stopped with 0 of 1 runs done. Go on with: imae reproduce digits-retrieval --noise")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "hinge"), "--loss HINGE"),
        (("--noise", "-1"), "--noise -1: expected a percentage, 0 to 100"),
        (("--output", "/dev/null/runs"), "/dev/null/runs: cannot be created"),
    ],
)
def test_a_mistake_is_one_line(imae: Imae, arguments: tuple[str, ...], message: str) -> None:
    outcome = imae(*COMMAND, *arguments)
    assert outcome.status == 1
    assert message in outcome.err and outcome.err.count("\n") == 1
