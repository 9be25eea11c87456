"""An unknown command or option gets a suggestion only where it is one but for a slip."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from imae.cli import app

Imae = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("trian",), "train"),
        (("check-gradient",), "check-gradients"),
        (("train", "--sovler", "s"), "--solver"),
        (("train", "--wieghts", "w"), "--weights"),
        (("convert", "cifar01"), None),
        (("rain",), "train"),
        (("convert", "cifar10", "a", "b", "--forec"), "--force"),
        (("finetune",), None),
        (("train", "--shape", "3"), None),
        (("train", "--snapshots-dir", "3"), None),
        (("test", "--solvers", "3"), None),
        (("export", "--input", "x"), None),
    ],
)
def test_a_suggestion_is_made_for_slips_alone(
    imae: Imae, digits: Path, arguments: tuple[str, ...], meant: str | None
) -> None:
    outcome = imae(*arguments)
    said = " ".join(outcome.err.replace("│", " ").split())
    assert outcome.status == 2
    assert (f'did you mean "{meant}"?' in said) if meant else ("mean" not in said and "ossible" not in said)


def test_options_called_as_their_metavar_say_their_name() -> None:
    """Without, typer 0.27 makes --LOSS of `loss` with the metavar LOSS; other versions do not."""

    def commands(group: Any) -> Iterator[Any]:
        for command in group.commands.values():
            yield from commands(command) if hasattr(command, "commands") else [command]

    checked = 0
    for command in commands(typer.main.get_command(app)):
        parameters = inspect.signature(command.callback).parameters
        for option in command.params:
            if option.param_type_name == "option" and (option.metavar or "").lower() == option.name.lower():
                info = get_args(parameters[option.name].annotation)[1]
                declared = [info.default, *info.param_decls]  # typer keeps the first in `default`
                assert f"--{option.name}" in declared, f"{command.name} {option.name}"
                checked += 1
    assert checked >= 4
