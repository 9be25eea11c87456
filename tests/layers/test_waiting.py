"""How the CPU's threads wait is chosen before torch loads, and by the user where the user says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imae.layers.waiting import describe_waiting, quota_of_cores, spin_briefly

SHOW = "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
ENDS_WITH_TORCH = f"""
import os, sys
class Torch:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            {SHOW}
            sys.exit()
sys.meta_path.insert(0, Torch)
"""
"""A process that says what is set and ends when it would load torch, which takes seconds."""


def spins(code: str) -> str:
    """Run code in a new process where nothing is set; return what it prints."""
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import imae.layers.activation.relu",
        "from imae.nets.net import Net",
        "from imae.cli.options import load_torch; load_torch()",
    ],
)
def test_threads_spin_briefly_however_torch_is_loaded(code: str) -> None:
    assert spins(ENDS_WITH_TORCH + code) == "False 50000"


@pytest.mark.slow
def test_nothing_is_chosen_when_torch_is_loaded_already() -> None:
    assert spins(f"import os, sys, torch, imae.layers; {SHOW}") == "True None"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_sets_stays(name: str) -> None:
    environment = {name: "5"}
    spin_briefly(environment, loaded=False)
    assert {key: value for key, value in environment.items() if key != "OMP_NUM_THREADS"} == {name: "5"}
    assert describe_waiting(environment) == f"waiting as {name}=5 says"


def test_what_was_chosen_is_said_in_words() -> None:
    environment: dict[str, str] = {}
    assert describe_waiting(environment) == "waiting as OpenMP does"
    spin_briefly(environment, loaded=False)
    assert describe_waiting(environment) == "waiting after brief spins"


@pytest.mark.parametrize(
    ("file", "text", "cores"),
    [
        ("cpu.max", "max 100000\n", None),
        ("cpu.max", "200000 100000\n", 2),
        ("cpu.max", "150000 100000\n", 2),
        ("cpu.max", "5000 100000\n", 1),
        ("nothing", "", None),
    ],
)
def test_a_containers_quota_is_known(tmp_path: Path, file: str, text: str, cores: int | None) -> None:
    (tmp_path / file).write_text(text)
    assert quota_of_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", None), ("300000", 3)])
def test_a_quota_of_the_first_version_of_control_groups_is_known(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert quota_of_cores(tmp_path) == cores


def test_no_more_threads_are_started_than_the_quota_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.layers.waiting.quota_of_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    environment: dict[str, str] = {}
    spin_briefly(environment, loaded=False)
    assert environment["OMP_NUM_THREADS"] == "2"
    environment = {"OMP_NUM_THREADS": "7"}
    spin_briefly(environment, loaded=False)
    assert environment["OMP_NUM_THREADS"] == "7"
