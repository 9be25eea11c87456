"""What tests of several packages share."""

import fcntl
import gc
import logging
import lzma
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_CIFAR10 = _ROOT / "../shared/data/cifar10"


class RootIsAFolder:
    """Has pytest take the repository's root for the folder that it is, not for a package of tests.

    Its __init__.py is that of `imae`; pytest would import it once more, under the name of the folder.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Answer for the root alone."""
        return pytest.Dir.from_parent(parent, path=path) if path == _ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    """Take the root for a folder."""
    config.pluginmanager.register(RootIsAFolder())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without a search for garbage, and leave what was collected out of every later one."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        forget_loggers()


def forget_loggers() -> None:
    """Leave pytest none of the hundreds of loggers of torch and others, which it goes through six times a test."""
    loggers = logging.root.manager.loggerDict
    for name in [name for name in loggers if name.partition(".")[0] != "imae"]:
        del loggers[name]


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the real CIFAR-10 in `cifar-10-batches-py/`, unpacked once by all processes of a run together."""
    return _unpacked(tmp_path_factory, "*.xz")


@pytest.fixture(scope="session")
def cifar10_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of its first training file and its test file alone, which takes a third of the time."""
    return _unpacked(tmp_path_factory, "data_batch_1.xz", "test_batch.xz")


def _unpacked(tmp_path_factory: pytest.TempPathFactory, *names: str) -> Path:
    if not _CIFAR10.exists():
        pytest.skip("CIFAR-10 is not at ../shared/data")
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cifar10"
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for wait in (fcntl.LOCK_NB, 0):  # first what no other process is at, two seconds a file, then wait for the others
        for packed in sorted(path for name in names for path in _CIFAR10.glob(name)):
            with (folder / packed.stem).open("a+b") as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | wait)
                if not os.fstat(file.fileno()).st_size:
                    file.write(lzma.decompress(packed.read_bytes()))
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but not drawn as SVG and PNG: most of a page's time. Other tests draw each of them."""
    monkeypatch.setattr("imae.reports.pictures._bytes", lambda figure, format, metadata: b"<svg></svg>\n")


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """While it lasts only the last reference to an object frees it."""
    gc.disable()
    yield
    gc.enable()
