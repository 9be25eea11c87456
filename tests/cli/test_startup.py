"""The command answers at once: it loads what a command needs only when that command runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

import imae.cli

HEAVY = ("torch", "numpy", "onnx", "google.protobuf", "matplotlib", "sklearn")


def test_importing_the_command_loads_no_heavy_library() -> None:
    code = f"import sys, imae.cli; print([name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_help_takes_little_more_than_a_command_without_options() -> None:
    """Processor time over the least that the library asks for; `python -m benchmarks.startup` gives the seconds."""

    def seconds(code: str, printed: str) -> float:
        before = os.times()
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = os.times()
        assert printed in run.stdout
        return after.children_user + after.children_system - before.children_user - before.children_system

    ours = "import imae.cli; imae.cli.main(['--help'])"
    bare = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    assert median(seconds(ours, "train") / seconds(bare, "--help") for _ in range(5)) < 1.65  # 1.35; with numpy, 1.9


@pytest.mark.slow
def test_torch_is_loaded_without_a_search_for_garbage_then_or_at_exit() -> None:
    code = (
        "import gc; from imae.cli.options import load_torch; load_torch(); print(gc.isenabled(), gc.get_freeze_count())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == "True"
    assert int(printed[1]) > 100_000


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize(
    "command",
    ["train", "test", "export", "time", "check-gradients", "devices", "demo", "features", "retrieval", "tune-t"],
)
def test_each_command_has_help_with_an_example(imae: Callable[..., Any], command: str, flag: str) -> None:
    outcome = imae(command, flag)
    assert outcome.status == 0
    assert f"imae {command}" in outcome.out.partition("Usage")[2].partition("\n")[2]


def test_version_is_the_packages(imae: Callable[..., Any]) -> None:
    assert imae("--version").out == "imae 0.1.0\n"


def test_shell_completes_commands_and_leaves_file_names_to_the_shell() -> None:
    def complete(words: str) -> str:
        position = str(len(words.split(" ")) - 1)
        asked = {"_IMAE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
        code = "from imae.cli import main; main()"
        run = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
        return run.stdout.strip()

    assert complete("imae tr") == "train"
    assert complete("imae net squ") == "squeezenet"
    assert complete("imae train --solver so") == ""  # bash's own completion of file names takes over


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["train", "-solver", "S"], ["train", "--solver", "S"]),
        (["train", "-solver=S", "--weights=W"], ["train", "--solver=S", "--weights=W"]),
        (["train", "--sigint_effect", "stop"], ["train", "--sigint-effect", "stop"]),
        (["check_gradients", "net_a.prototxt"], ["check-gradients", "net_a.prototxt"]),
        (["device-query", "-gpu=0"], ["device_query", "--gpu=0"]),
        (["test", "-h"], ["test", "-h"]),
        (["convert", "cifar10", "-pad", "4"], ["convert", "cifar10", "--pad", "4"]),
        (["train", "--set", "base_lr=1"], ["train", "--set", "base_lr=1"]),
        (["nothing", "-solver"], ["nothing", "-solver"]),
        ([], []),
    ],
)
def test_caffes_spelling_of_flags_is_understood(given: list[str], understood: list[str]) -> None:
    assert imae.cli.normalise(imae.cli.get_command(imae.cli.app), given) == understood
