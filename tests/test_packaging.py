"""What is installed: every package folder, under the one namespace, with its data."""

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

import imae

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    path.parent.relative_to(ROOT)
    for path in ROOT.glob("**/__init__.py")
    if not path.relative_to(ROOT).parts[0].startswith((".", "build", "tests", "benchmarks", "fuzzing"))
}
INSTALLATIONS = ("wheel", "editable", "link")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, to be built in, with what may lie about in one; in a folder of another name."""
    folder = tmp_path_factory.mktemp("source") / "a-clone"
    copytree(ROOT, folder, ignore=ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"), symlinks=True)
    for left in (".venv/py.typed", "build/py.typed", "build/typing/left.py", "digits-demo/left.py", "tests/py.typed"):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).touch()
    (folder / "build/typing/imae").symlink_to("../..")
    return folder


def _build(source: Path, kind: str, folder: Path) -> Path:
    """Have setuptools build what pip would ask it for, and return the wheel."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return _build(source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(params=INSTALLATIONS)
def installed(request: pytest.FixtureRequest, source: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The folder of site-packages of an installation, and where the package is to be found in it."""
    if request.param == "link":
        return source / "build/typing", source / "build/typing/imae"
    built = request.getfixturevalue("wheel") if request.param == "wheel" else _build(source, "editable", tmp_path)
    site_packages = tmp_path / "site-packages"
    zipfile.ZipFile(built).extractall(site_packages)  # what installing does with a wheel of Python files
    return site_packages, site_packages / "imae" if request.param == "wheel" else source


def _run(site_packages: Path, code: str, folder: Path, *arguments: str) -> str:
    """Run code in a Python that sees the packages it needs, but of `imae` this installation only."""
    prepare = f"import site, sys; site.addsitedir({str(site_packages)!r}); "
    prepare += f"sys.path.append({sysconfig.get_path('purelib')!r})\n"  # not as a site: its .pth files stay unread
    command = [sys.executable, "-S", "-E", "-c", prepare + code, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_every_package_folder_is_listed_and_typed() -> None:
    packages = {".".join(("imae", *folder.parts)): str(folder) for folder in FOLDERS}
    assert len(packages) >= 10
    assert SETTINGS["tool"]["setuptools"]["package-dir"] == packages
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == set(packages)
    assert all((ROOT / folder / "py.typed").exists() for folder in FOLDERS)


def test_the_version_is_that_to_cite() -> None:
    assert f"version: {imae.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()


def test_the_wheel_holds_every_package_and_what_the_commands_read_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {f"imae/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).glob("*.py")}
    typed = {f"imae/{folder / 'py.typed'}" for folder in FOLDERS}
    prototxts = {f"imae/{path.relative_to(ROOT)}" for path in (ROOT / "examples").rglob("*.prototxt")}
    read = {f"imae/{name}" for name in ("prototxt_like/caffe.proto", "prototxt_like/caffe.descriptor")}
    pages = [path for folder in ("audit", "reports") for path in (ROOT / folder).iterdir()]
    read |= {f"imae/{path.relative_to(ROOT)}" for path in pages if path.suffix in (".css", ".js")}
    assert len(prototxts) >= 56
    assert names == sources | typed | prototxts | read


def test_import_imae_finds_the_public_face_at_once_and_loads_nothing(
    installed: tuple[Path, Path], tmp_path: Path
) -> None:
    site_packages, package = installed
    code = """
from time import process_time
loaded, start = set(sys.modules), process_time()
import imae
seconds = process_time() - start
ours = [name for name in sys.modules if name.startswith("imae.")]
heavy = [name for name in ("torch", "numpy", "google.protobuf") if name in sys.modules]
print([imae.__file__, seconds < 0.1, ours, heavy, imae.__version__, imae.InputError.__module__, imae.TEST])
"""
    printed = _run(site_packages, code, tmp_path)
    file = str(package / "__init__.py")
    assert printed == f"{[file, True, [], [], imae.__version__, 'imae.prototxt_like.errors', 1]}\n"


def test_python_m_imae_is_the_command(installed: tuple[Path, Path], tmp_path: Path) -> None:
    code = "import runpy; runpy.run_module('imae', run_name='__main__', alter_sys=True)"
    assert _run(installed[0], code, tmp_path, "--version") == f"imae {imae.__version__}\n"
