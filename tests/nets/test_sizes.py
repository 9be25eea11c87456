"""A net takes another batch and another image size at any pass, and tells every blob's shape, plain and fused."""

import pytest
import torch

from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

CONVOLUTIONAL = """
name: "convolutional"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 12 dim: 12 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "short" type: "Shortcut" bottom: "pool1" top: "short" shortcut_param { num_output: 6 stride: 2 } }
layer { name: "both" type: "Concat" bottom: "short" bottom: "short" top: "both" }
layer { name: "mean" type: "Pooling" bottom: "both" top: "mean" pooling_param { pool: AVE global_pooling: true } }
"""
CLASSIFIER = (
    CONVOLUTIONAL
    + """
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "mean" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithIMAELoss" bottom: "ip" bottom: "label" top: "loss" }
"""
)
PLANS = pytest.mark.parametrize("plan", ["plain", "fused"])


def built_for(n: int, height: int, width: int, phase: int, plan: str) -> Net:
    text = CLASSIFIER.replace("dim: 12 dim: 12", f"dim: {height} dim: {width}").replace("dim: 4 ", f"dim: {n} ")
    return Net(parse_net(text), phase, plan=plan, seed=1)


@PLANS
@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("size", [(1, 12, 12), (6, 12, 12), (4, 20, 9), (2, 7, 31)])
def test_a_net_fed_another_size_computes_what_one_built_for_it_does(
    size: tuple[int, int, int], phase: int, plan: str
) -> None:
    generator = torch.Generator().manual_seed(2)
    data, label = torch.randn(size[0], 3, *size[1:], generator=generator), torch.arange(size[0]) % 5
    net, other = built_for(4, 12, 12, phase, plan), built_for(*size, phase, plan)
    net.forward(data=torch.randn(4, 3, 12, 12, generator=generator), label=torch.arange(4))
    other.copy_weights(net.to_proto())
    net.clear_diffs()
    for one in (net, other):
        one.forward(data=data, label=label)
        one.backward()
    assert torch.equal(net.loss, other.loss)
    torch.testing.assert_close(net.storage.diff, other.storage.diff, rtol=0, atol=0)
    assert {name: net.shape(name) for name in net.newest} == {name: other.shape(name) for name in other.newest}


@PLANS
def test_reshape_tells_every_shape_before_a_pass(plan: str) -> None:
    net = Net(parse_net(CONVOLUTIONAL), TEST, plan=plan)
    net.reshape(data=(1, 3, 480, 640))
    assert net.shape("conv1") == (1, 4, 480, 640) and net.shape("pool1") == (1, 4, 240, 320)
    assert net.shape("mean") == (1, 12, 1, 1)
    assert net.forward(data=torch.zeros(1, 3, 480, 640))["mean"].shape == (1, 12, 1, 1)


def test_a_fully_connected_layer_that_no_longer_fits_says_so_and_the_net_stays() -> None:
    text = CLASSIFIER.replace("pool: AVE global_pooling: true", "pool: AVE kernel_size: 2")
    net = Net(parse_net(text), TEST)
    with pytest.raises(
        InputError, match=r'layer "ip" \(InnerProduct\): its weight has 48 inputs, a bottom of 4x12x2x4'
    ):
        net.reshape(data=(4, 3, 12, 20))
    assert net.shape("data") == (4, 3, 12, 12) and net.shape("mean") == (4, 12, 2, 2)
    with pytest.raises(InputError, match="a fully connected layer takes one size only"):
        net.forward(data=torch.zeros(4, 3, 12, 20), label=torch.zeros(4))
    assert net.forward(data=torch.zeros(2, 3, 12, 12), label=torch.zeros(2))["loss"].isfinite()


def test_unknown_names_and_inputs_of_nets_with_data_layers_are_errors() -> None:
    net = Net(parse_net(CONVOLUTIONAL), TEST)
    with pytest.raises(InputError, match='"dta" is no input of it; inputs are data'):
        net.forward(dta=torch.zeros(4, 3, 12, 12))
    with pytest.raises(InputError, match='"conv1" is no input of it'):
        net.reshape(conv1=(1, 4, 12, 12))
    with pytest.raises(InputError, match='has no blob "shortt"; did you mean "short"'):
        net.shape("shortt")
    digits = parse_net(
        'layer { name: "d" type: "DigitsData" top: "data" top: "y" digits_data_param { batch_size: 2 } }'
    )
    with pytest.raises(InputError, match="its data comes from its data layers"):
        Net(digits, TEST).forward(data=torch.zeros(2, 1, 8, 8))


@PLANS
def test_labels_that_no_longer_fit_their_predictions_are_named(plan: str) -> None:
    net = Net(parse_net(CLASSIFIER), TRAIN, plan=plan)
    with pytest.raises(InputError, match=r'layer "loss" .* the same batch size, found 2x5 and 4'):
        net.forward(data=torch.zeros(2, 3, 12, 12), label=torch.zeros(4))


@PLANS
@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((-1, 3, 12, 12), 'layer "data" .*the shape -1x3x12x12, with a size below 0'),
        ((2, 3, -12, 12), 'layer "data" .*with a size below 0'),
        ((2**31 - 1, 3, 12, 12), 'layer "data" .*2147483647x3x12x12, more than the 2147483647 numbers of a blob'),
        ((120_000, 3, 70, 70), 'layer "conv1" .*120000x4x70x70, more than the 2147483647 numbers of a blob'),
        ((2, 3, 0, 12), 'layer "conv1" .*sizes of at least 1, found a bottom of 2x3x0x12'),
        ((2, 3), 'layer "conv1"'),
        ((), 'layer "conv1"'),
    ],
)
def test_a_shape_that_no_net_can_have_is_refused_and_the_net_stays(
    shape: tuple[int, ...], message: str, phase: int, plan: str
) -> None:
    net = Net(parse_net(CONVOLUTIONAL), phase, plan=plan)
    with pytest.raises(InputError, match=message):
        net.reshape(data=shape)
    assert net.shape("data") == (4, 3, 12, 12) and net.shape("mean") == (4, 12, 1, 1)
    net.forward(data=torch.ones(4, 3, 12, 12))


@PLANS
def test_a_batch_of_nothing_gives_nothing_or_is_refused_where_it_has_no_statistics(plan: str) -> None:
    nothing = {"data": torch.ones(0, 3, 12, 12), "label": torch.ones(0)}
    net = built_for(4, 12, 12, TEST, plan)
    assert float(net.forward(**nothing)["loss"]) == 0
    assert net.shape("ip") == (0, 5)
    with pytest.raises(InputError, match=r'layer "bn1" .*no statistics of a bottom of 0x4x12x12'):
        built_for(4, 12, 12, TRAIN, plan).forward(**nothing)
