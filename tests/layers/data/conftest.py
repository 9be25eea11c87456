"""Data layers from their prototxt, and a miniature of CIFAR-10."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from imae.layers.layer import TRAIN, Context, Layer, Shapes
from imae.layers.pass_counter import PassCounter
from imae.layers.registry import create_layer
from imae.prototxt_like.schema import LayerParameter

Make = Callable[..., tuple[Any, Shapes]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that sets up the layer of a prototxt, with `tmp_path` as the folder of its relative paths."""

    def make(prototxt: str, phase: int = TRAIN, seed: int = 0, **context: Any) -> tuple[Layer, Shapes]:
        param = text_format.Parse(f'name: "data" {prototxt}', LayerParameter())
        layer = create_layer(param, Context(phase=phase, folders=(tmp_path,), passes=PassCounter(seed), **context))
        layer.setup([])
        return layer, layer.reshape([])

    return make


@pytest.fixture
def mini_cifar10(tmp_path: Path) -> Path:
    """CIFAR-10's binary version with 5 x 4 training and 6 test images: image i has class i mod 10 and first pixel i."""
    folder = tmp_path / "root" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (26, 3072), np.uint8)
    pixels[:, 0] = np.arange(26)
    records = np.concatenate([(np.arange(26, dtype=np.uint8) % 10)[:, None], pixels], axis=1)
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records[4 * i : 4 * i + 4].tobytes())
    (folder / "test_batch.bin").write_bytes(records[20:].tobytes())
    return folder.parent
