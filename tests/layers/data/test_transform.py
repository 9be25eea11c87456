"""What a data layer does to its images is the same by each of the ways in which it is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imae.layers.data.transform import Transform
from imae.layers.layer import Context, Layer
from imae.layers.pass_counter import PassCounter
from imae.prototxt_like.schema import BlobProto
from imae.prototxt_like.text import parse_net


def transform(text: str, *, replayed: bool, pad: int = 0) -> Callable[..., Any]:
    param = parse_net(f'layer {{ name: "d" type: "Data" transform_param {{ {text} }} }}', "net").layer[0]
    passes = PassCounter(seed=3, on_device=torch.zeros((), dtype=torch.int64) if replayed else None)
    layer = Layer(param, Context(passes=passes))
    made = Transform(layer, random_crop=True, mirror=param.transform_param.mirror, pad=pad)
    return lambda *arguments: (layer, made(*arguments))[1]


@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("text", ["crop_size: 5", "mirror: true", "crop_size: 5 mirror: true mean_value: 3 scale: 0.1"])
def test_a_window_cut_image_by_image_is_the_one_that_is_gathered(text: str, pad: int) -> None:
    """The first is a CPU's way, the second that of a pass that is replayed."""
    images = torch.randint(0, 256, (20, 3, 7, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    position = torch.arange(40, 60)
    by_image, gathered = (transform(text, replayed=replayed, pad=pad)(images, position) for replayed in (False, True))
    assert torch.equal(by_image, gathered)
    assert not torch.equal(by_image, transform(text, replayed=False, pad=pad)(images, position + 20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mean", ["", "mean_value: 3", "mean_value: 1 mean_value: 2 mean_value: 3", "a mean image"])
@pytest.mark.parametrize("random", [True, False])
def test_a_batch_put_together_window_by_window_is_that_of_the_whole_images(
    tmp_path: Path, mean: str, random: bool, dtype: torch.dtype
) -> None:
    """The images of one batch, as they are decoded: planes from the last to the first of a file's pixels."""
    if mean == "a mean image":
        blob = BlobProto(num=1, channels=3, height=7, width=9, data=torch.rand(189).tolist())
        (tmp_path / "mean").write_bytes(blob.SerializeToString())
        mean = f'mean_file: "{tmp_path / "mean"}"'
    text = f"crop_size: 5 mirror: true scale: 0.3 {mean}"
    param = parse_net(f'layer {{ name: "d" type: "Data" transform_param {{ {text} }} }}', "net").layer[0]
    layer = Layer(param, Context(passes=PassCounter(seed=3), dtype=dtype))
    made = Transform(layer, random_crop=random, mirror=True)
    stored, position = np.random.default_rng(0).integers(0, 256, (20, 7, 9, 3), np.uint8), torch.arange(40, 60)
    images = [pixels[:, :, ::-1].transpose(2, 0, 1) for pixels in stored]
    together = made.together(images, position, "line", ["1"] * 20, tmp_path, "")
    assert together.dtype == dtype and together.is_contiguous()
    assert torch.equal(together, made(torch.from_numpy(np.stack(images)), position))
