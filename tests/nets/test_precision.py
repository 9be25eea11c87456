"""TF32 on a GPU is a choice, and convolutions of plain fp32 do without it."""

from collections.abc import Iterator

import pytest
import torch

from imae.nets.net import Net
from imae.nets.precision import set_gpu_arithmetic
from imae.prototxt_like.text import parse_net


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:]


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_in_products_and_convolutions(tf32: bool) -> None:
    set_gpu_arithmetic(tf32=not tf32)
    set_gpu_arithmetic(tf32=tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32


def test_a_run_on_a_gpu_can_be_repeated() -> None:
    set_gpu_arithmetic(tf32=False)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    "reader",
    [
        'type: "Slice" bottom: "labels" top: "other" top: "label" slice_param { axis: 0 }',
        'type: "Split" bottom: "labels" top: "label" top: "other"',
        'type: "Reshape" bottom: "labels" top: "label" reshape_param { shape { dim: 2 dim: 1 } }',
        'type: "Flatten" bottom: "labels" top: "label" flatten_param { axis: 0 }',
        'type: "Tile" bottom: "labels" top: "label" tile_param { axis: 0 tiles: 1 }',
        'type: "Concat" bottom: "labels" top: "label" concat_param { axis: 0 }',
        'type: "Crop" bottom: "labels" bottom: "selector" top: "label" crop_param { axis: 0 offset: 0 }',
        'type: "BatchReindex" bottom: "labels" bottom: "selector" top: "label"',
        'type: "Filter" bottom: "x" bottom: "labels" bottom: "selector" top: "other" top: "label"',
    ],
)
def test_labels_stay_exact_on_their_way_through_layers_that_move_them(reader: str) -> None:
    net = Net(
        parse_net(f"""
            layer {{ name: "x" type: "Input" top: "x" top: "labels" top: "selector"
              input_param {{ shape {{ dim: 2 dim: 3 }} shape {{ dim: 2 }} shape {{ dim: 2 }} }} }}
            layer {{ name: "way" {reader} }}
            layer {{ name: "word" type: "Embed" bottom: "label" top: "word"
              embed_param {{ num_output: 1 input_dim: 1000 bias_term: false }} }}
        """),
        dtype=torch.bfloat16,
    )  # fmt: skip
    net.params["word"][0].data[[999, 997]] = torch.tensor([[2.0], [3.0]])
    outputs = net.forward(x=torch.ones(2, 3), labels=torch.tensor([999, 997]), selector=torch.ones(2))
    assert outputs["word"].flatten()[-1] == 3
    if "Filter" in reader:
        assert outputs["other"].dtype == torch.bfloat16
