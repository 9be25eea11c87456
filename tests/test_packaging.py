"""What is installed: every package folder, under the one namespace, with its data."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    path.parent.relative_to(ROOT)
    for path in ROOT.glob("*/**/__init__.py")
    if path.relative_to(ROOT).parts[0] not in (".venv", "build", "tests", "benchmarks")
}


def test_every_package_folder_is_listed_and_typed() -> None:
    packages = {f"imae.{'.'.join(folder.parts)}": str(folder) for folder in FOLDERS}
    assert len(packages) >= 9
    assert SETTINGS["tool"]["setuptools"]["package-dir"] == packages
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == set(packages)
    assert all((ROOT / folder / "py.typed").exists() for folder in FOLDERS)


def test_nothing_claims_the_namespace_itself() -> None:
    """`imae` has no __init__.py, so that the folders can be mapped into it one by one."""
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.slow
def test_the_wheel_holds_every_package_and_what_the_commands_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {f"imae/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).glob("*.py")}
    sources |= {"imae/reports/page.css", "imae/reports/page.js"}
    prototxts = {f"imae/{path.relative_to(ROOT)}" for path in (ROOT / "examples").rglob("*.prototxt")}
    schema = {"imae/prototxt_like/caffe.proto", "imae/prototxt_like/caffe.descriptor"}
    assert len(prototxts) >= 56
    assert sources | prototxts | schema <= names
    assert all(name.startswith(("imae/", "imae-")) for name in names)
