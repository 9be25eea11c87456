"""An option's old name works for one release, with a warning, and the changelog says what it is called now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imae.cli.caffe_flags import RENAMED

Imae = Callable[..., Any]
CHANGELOG = (Path(__file__).resolve().parents[2] / "CHANGELOG.md").read_text()


def test_an_old_name_works_with_a_warning(imae: Imae, digits: Path) -> None:
    outcome = imae("time", "-model", "net.prototxt", "-iterations", "1", "-plain")
    assert outcome.status == 0
    assert "imae: warning: -plain is called --plan plain now; the old name goes with the next release\n" in outcome.err


def test_a_value_of_an_old_name_is_the_new_ones(imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, ("train", "--until"), ["--iterations"])
    for given in (["--until", "2"], ["--until=2"]):
        outcome = imae("train", "--solver", "solver.prototxt", "--cpu", "--prefix", f"{len(given)}/net", *given)
        assert "Done at iteration 2" in outcome.out
        assert "--until is called --iterations now" in outcome.err


@pytest.mark.parametrize(("command", "old"), RENAMED)
def test_the_changelog_says_what_each_is_called_now(command: str, old: str) -> None:
    assert f"| `imae {command}` | `{old}` | `{' '.join(RENAMED[command, old])}` |" in CHANGELOG


@pytest.mark.parametrize(("command", "old"), RENAMED)
def test_what_it_is_called_now_exists_and_the_old_name_is_free(command: str, old: str) -> None:
    from typer.main import get_command

    from imae.cli import app

    program: Any = get_command(app)
    options = {option for param in program.commands[command].params for option in param.opts}
    assert RENAMED[command, old][0] in options
    assert old not in options
