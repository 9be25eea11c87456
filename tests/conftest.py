"""What tests of several packages share."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_UNPACK = Path(__file__).resolve().parents[1] / "../shared/data/unpack_cifar10.py"


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the real CIFAR-10 in `cifar-10-batches-py/`, unpacked once a session (10 s)."""
    if not _UNPACK.exists():
        pytest.skip("CIFAR-10 is not at ../shared/data")
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, _UNPACK, root], check=True, stdout=subprocess.DEVNULL)
    return root


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """While it lasts only the last reference to an object frees it."""
    gc.disable()
    yield
    gc.enable()
