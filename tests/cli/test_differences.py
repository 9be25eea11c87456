"""Where we knowingly differ from Caffe: docs/differences.md lists it, with a test of each."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imae.layers.registry import create_layer
from imae.prototxt_like.binary import read_solverstate
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

Imae = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")
ROWS = [
    line
    for line in (ROOT / "docs" / "differences.md").read_text().splitlines()
    if line.startswith("|") and "::" in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_each_difference_has_a_test(row: str) -> None:
    file, name = re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \|$", row)[0]
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_readme_names_the_page() -> None:
    assert len(ROWS) >= 20
    assert "](docs/differences.md)" in (ROOT / "README.md").read_text()


def test_a_moved_stepvalue_counts_by_the_iteration_alone(imae: Imae, digits: Path) -> None:
    policy = ("--set", "lr_policy=multistep", "--set", "display=1")
    assert imae(*TRAIN, *policy, "--set", "stepvalue=2", "--iterations", "4").status == 0
    state = "out/digits_iter_4.solverstate"
    assert read_solverstate(state).current_step == 1
    moved = imae(*TRAIN, *policy, "--set", "stepvalue=5", "--iterations", "6", "--snapshot", state)
    rates = re.findall(r"Iteration (\d+), lr = (\S+)", moved.err)
    assert rates == [("4", "0.05"), ("5", "0.025")]  # Caffe's would be 0.025 and 0.025


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_a_pooling_window_outside_is_an_error(method: str) -> None:
    settings = f"pooling_param {{ pool: {method} kernel_size: 1 stride: 2 }}"
    text = f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" {settings} }}'
    layer = create_layer(parse_net(text).layer[0])
    with pytest.raises(InputError, match='layer "p"'):
        layer.setup([(1, 1, 6, 6)])
        layer.reshape([(1, 1, 6, 6)])
    layer = create_layer(parse_net(text).layer[0])
    layer.setup([(1, 1, 5, 5)])
    assert layer.reshape([(1, 1, 5, 5)]) == [(1, 1, 3, 3)]


def test_a_seed_that_was_drawn_is_kept_in_the_state(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--set", "random_seed=-1", "--iterations", "1").status == 0
    drawn = read_solverstate("out/digits_iter_1.solverstate").imae_state.random_seed
    more = ("--set", "random_seed=-1", "--iterations", "2", "--snapshot", "out/digits_iter_1.solverstate")
    assert imae(*TRAIN, *more).status == 0
    assert read_solverstate("out/digits_iter_2.solverstate").imae_state.random_seed == drawn
