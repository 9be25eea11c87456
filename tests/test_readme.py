"""What the README tells people to run, runs, from what comes along."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_snippet_runs_from_what_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet.replace("step(100)", "step(40)"), names)
    outputs = names["outputs"]
    assert isinstance(outputs, dict)
    assert set(outputs) == {"accuracy", "loss"}
    assert 0.1 < float(outputs["accuracy"]) <= 1


def test_the_training_loop_in_pytorch_runs_and_lowers_its_loss() -> None:
    import torch

    _, snippet = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert set(re.findall(r"`(?:imae\.)?([A-Z]+Loss)\(", README)) == {"CCELoss", "MAELoss", "IMAELoss", "GCELoss"}
    names: dict[str, object] = {}
    exec("import torch\ntorch.manual_seed(1)\n" + snippet, names)
    model, criterion, loss = names["model"], names["criterion"], names["loss"]
    assert isinstance(model, torch.nn.Module)
    assert isinstance(criterion, torch.nn.Module)
    assert isinstance(loss, torch.Tensor)
    assert criterion(model(names["images"]), names["labels"]) < loss


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_pythons_that_are_named_are_those_of_the_package(version: str) -> None:
    assert version in README.partition("```")[0] + README.partition("## Two commands")[2].partition("```")[0]
    assert f"Programming Language :: Python :: {version}" in SETTINGS["classifiers"]


@pytest.mark.parametrize(
    ("system", "machine", "runtime"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("win32", "ARM64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
    ],
)
def test_each_platform_gets_the_onnx_runtime_that_exists_for_it(system: str, machine: str, runtime: str) -> None:
    requirements = [Requirement(text) for text in SETTINGS["dependencies"]]
    where = {"sys_platform": system, "platform_machine": machine}
    given = [r.name for r in requirements if r.name.startswith("onnxruntime") and r.marker and r.marker.evaluate(where)]
    assert given == [runtime]


def test_each_file_that_the_readme_links_to_is_there() -> None:
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link}
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_each_command_that_the_readme_names_exists() -> None:
    from typer.main import get_command

    from imae.cli import app

    program = get_command(app)
    named = set(re.findall(r"`imae ([a-z][a-z0-9-]+)", README))
    assert {"train", "demo", "reproduce"} <= named
    assert named <= set(program.commands)  # type: ignore[attr-defined]
