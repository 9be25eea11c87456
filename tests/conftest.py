"""What tests of several packages share."""

import fcntl
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_UNPACK = _ROOT / "../shared/data/unpack_cifar10.py"


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


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the real CIFAR-10 in `cifar-10-batches-py/`, unpacked once for all processes of a run (10 s)."""
    if not _UNPACK.exists():
        pytest.skip("CIFAR-10 is not at ../shared/data")
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with (folder / "cifar10.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.fstat(lock.fileno()).st_size:
            subprocess.run([sys.executable, _UNPACK, folder / "cifar10"], check=True, stdout=subprocess.DEVNULL)
            lock.write("unpacked")
    return folder / "cifar10"


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """While it lasts only the last reference to an object frees it."""
    gc.disable()
    yield
    gc.enable()
