"""What tests of sweeps share: a data set that trains in a moment."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images in the form of CIFAR-10's binary version: 5 x 4 for training, 15 for testing."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, count in {**{f"data_batch_{i}": 4 for i in range(1, 6)}, "test_batch": 15}.items():
        records = rng.integers(0, 256, (count, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return root
