"""What single layers do beyond their gradient: Caffe's numbers at the corners, randomness, state, and their errors."""

from pathlib import Path

import pytest
import torch
from layer_cases import all_of, first_top
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Context, Layer, Saved, Shapes, describe
from imae.layers.registry import create_layer, register, registry
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, LayerParameter
from imae.prototxt_like.text import parse_net

# Errors: one line that names the layer, what was found and what was expected


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        ('type: "Relu"', [(2, 3)], 'layer "mine": unknown layer type "Relu"; did you mean "ReLU"?'),
        ('type: "Quux"', [(2, 3)], 'layer "mine": unknown layer type "Quux"; known are A'),
        ('type: "ReLU"', [(2, 3), (2, 3)], "takes 1 bottom blob, the prototxt gives 2"),
        ('type: "ReLU" top: "a" top: "b"', [(2, 3)], "takes 1 top blob, the prototxt gives 2"),
        (
            'type: "SoftmaxWithLoss" loss_weight: 1 loss_weight: 2',
            [(3, 4), (3,)],
            "loss_weight must be given for each of its 1 tops",
        ),
        *all_of("MISTAKES"),
    ],
)
def test_a_mistake_in_the_prototxt_is_one_line_that_names_the_layer(text: str, shapes: Shapes, message: str) -> None:
    with pytest.raises(InputError) as error:
        build_layer(f'name: "mine" {text}', shapes).loss_weights()
    assert str(error.value).startswith('layer "mine"')
    assert message in str(error.value) and "\n" not in str(error.value)


def test_shapes_are_described_as_caffe_prints_them() -> None:
    assert describe((128, 3, 32, 32)) == "128x3x32x32"
    assert describe(()) == "scalar"


def test_files_are_found_in_the_first_folder_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mean.binaryproto").touch()
    context = Context(folders=(tmp_path / "a", tmp_path / "b"))
    assert context.find("mean.binaryproto") == tmp_path / "b" / "mean.binaryproto"
    assert context.find("other") == Path("other")


def test_a_users_own_layer_joins_by_decorator() -> None:
    @register
    class Double(Layer):
        type = "Double"

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            return [2 * bottoms[0]]

    try:
        net = Net(parse_net("""
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
            layer { name: "double" type: "Double" bottom: "x" top: "y" }
        """))  # fmt: skip
        assert net.forward(x=torch.tensor([1.0, 2.0]))["y"].tolist() == [2, 4]
    finally:
        del registry["Double"]
    with pytest.raises(InputError, match='unknown layer type "Double"'):
        create_layer(LayerParameter(name="double", type="Double"))


# Which engine computes a layer is nothing to us


@pytest.mark.parametrize(
    "type_and_settings",
    [
        ("Convolution", "num_output: 2 kernel_size: 3"),
        ("LRN", ""),
        ("Pooling", "kernel_size: 2"),
        ("ReLU", "negative_slope: 0.5"),
        ("Sigmoid", ""),
        ("Softmax", ""),
        ("TanH", ""),
    ],
    ids=lambda case: case[0],
)
def test_the_engine_changes_nothing(type_and_settings: tuple[str, str]) -> None:
    kind, settings = type_and_settings
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    results = [
        first_top(f'type: "{kind}" {kind.lower()}_param {{ {settings} {engine} }}', x)
        for engine in ("", "engine: DEFAULT", "engine: CAFFE", "engine: CUDNN")
    ]
    assert all(torch.equal(y, results[0]) for y in results)


# The phase: a layer's own wins over the net's


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize(
    "text",
    [
        'type: "Dropout"',
        'type: "BatchNorm"',
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
    ],
)
def test_the_phase_inside_a_layer_wins_over_the_nets(text: str, phase: str) -> None:
    own, other = (TRAIN, TEST) if phase == "TRAIN" else (TEST, TRAIN)
    x = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = first_top(text, x, phase=own)
    assert torch.equal(first_top(f"{text} phase: {phase}", x, phase=other), expected)
    assert not torch.equal(first_top(text, x, phase=other), expected)


def test_blobs_take_their_multipliers_from_param_in_order() -> None:
    text = 'type: "InnerProduct" param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 3 }'
    weight, bias = build_layer(text, [(2, 4)]).blobs
    assert (weight.shape, weight.lr_mult, weight.decay_mult) == ((3, 4), 2, 0)
    assert (bias.shape, bias.lr_mult, bias.decay_mult) == ((3,), 1, 1)


def test_weights_are_drawn_in_float32_whatever_the_precision_of_the_pass() -> None:
    text = 'type: "InnerProduct" inner_product_param { num_output: 3 weight_filler { type: "xavier" } }'
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2):
        assert build_layer(text, [(2, 4)], dtype=dtype).blobs[0].data.dtype == expected
