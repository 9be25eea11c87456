"""An unknown command or option gets a suggestion only where it is one but for a slip."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
