"""What a data layer does to its images is the same by each of the ways in which it is computed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from imae.layers.data.transform import Transform
from imae.layers.layer import Context, Layer
from imae.layers.pass_counter import PassCounter
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
