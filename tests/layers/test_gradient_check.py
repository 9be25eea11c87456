"""The gradient checker sees a wrong gradient where there is one, and none where there is none."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from imae.layers.activation.relu import ReLU
from imae.layers.activation.spread import Spread
from imae.layers.gradient_check import build_layer, check_at, check_layer, check_net
from imae.layers.layer import Diffs, Layer, Saved, Shapes, Tensors
from imae.layers.registry import register, registry
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TRAIN, FillerParameter
from imae.prototxt_like.text import parse_net


@pytest.fixture
def defective(request: pytest.FixtureRequest) -> object:
    """A ReLU whose backward the test replaces."""

    @register
    class Defective(ReLU):
        type = "Defective"

    yield Defective
    del registry["Defective"]


@pytest.mark.parametrize("factor", [1.0001, 0.0, -1.0, math.nan, math.inf])
def test_a_wrong_gradient_fails(defective: type[ReLU], factor: float) -> None:
    right = defective.backward
    defective.backward = lambda self, *args: [right(self, *args)[0] * factor]  # type: ignore[method-assign]
    report = check_layer('type: "Defective"', [(3, 4)])
    assert not report.passed
    assert report.relative > 5e-5
    assert report.worst.startswith("bottom 0 [")


def test_a_single_wrong_element_fails(defective: type[ReLU]) -> None:
    def backward(
        self: Layer, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
    ) -> Diffs:
        dx = top_diffs[0] * (tops[0] > 0)
        dx[1, 2] += 1e-3
        return [dx]

    defective.backward = backward  # type: ignore[method-assign]
    report = check_layer('type: "Defective"', [(3, 4)])
    assert not report.passed
    assert report.worst.startswith("bottom 0 [1, 2]")
    assert report.absolute == pytest.approx(1e-3, rel=1e-4)


def test_a_blob_whose_gradient_is_forgotten_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spread, "sum", lambda self, product, like: torch.zeros_like(like))
    report = check_layer('type: "Scale"', [(2, 3)])
    assert not report.passed
    assert report.worst.startswith("blob 0 [")


def test_a_missing_or_misshapen_gradient_is_named(defective: type[ReLU]) -> None:
    defective.backward = lambda self, *args: [None]  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r'layer "Defective".*bottom 0 a gradient of 3x4, gives none'):
        check_layer('type: "Defective"', [(3, 4)])
    defective.backward = lambda self, *args: [torch.zeros(3)]  # type: ignore[method-assign]
    with pytest.raises(InputError, match="gradient of 3x4, gives 3"):
        check_layer('type: "Defective"', [(3, 4)])


def test_a_forward_that_is_not_a_function_fails(defective: type[ReLU]) -> None:
    """A layer that draws its own random numbers looks like a kink everywhere, and is not let through for that."""
    defective.forward = lambda self, bottoms, saved: [bottoms[0] * torch.rand(3, 4)]  # type: ignore[method-assign]
    defective.backward = lambda self, x, y, dy, saved, needs: [dy[0] / 2]  # type: ignore[method-assign]
    assert not check_layer('type: "Defective"', [(3, 4)]).passed


def test_a_blob_that_forward_moves_stays_where_the_check_is(defective: type[ReLU]) -> None:
    def forward(self: Layer, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
        saved["factor"] = self.blobs[0].data.clone()
        self.blobs[0].data.mul_(1.1)
        return [bottoms[0] * saved["factor"]]

    def setup(self: Layer, bottoms: Shapes) -> None:
        self.add_blob((4,), FillerParameter(value=2)).lr_mult = 0.0

    defective.setup, defective.forward, defective.keeps = setup, forward, Layer.keeps  # type: ignore[method-assign]
    defective.backward = lambda self, x, y, dy, saved, needs: [dy[0] * saved["factor"]]  # type: ignore[method-assign]
    assert check_layer('type: "Defective"', [(3, 4)]).passed


def test_elements_at_a_kink_are_skipped_and_counted() -> None:
    x = torch.tensor([[0.0, 1.0, -1.0, 0.0, 1e-9, -1e-7, 2.0, 3.0]]).double()
    report = check_layer('type: "ReLU"', [x])
    assert report.passed
    assert (report.compared, report.skipped) == (6, 2)  # a smaller step reaches those beside 0, none those on it
    assert not check_layer('type: "ReLU"', [torch.zeros(2, 3)]).passed
    report = check_layer('type: "ReLU"', [torch.eye(5).double() / 5])
    assert report.passed and report.skipped == 20
    x[0] = 0
    x[0, 3] = 1
    assert check_layer('type: "ReLU"', [x]).passed
    assert not check_layer('type: "ReLU"', [torch.cat([x, torch.zeros(1, 8)])]).passed  # 1 of 16: nothing was seen


def test_large_tensors_are_sampled() -> None:
    report = check_layer('type: "InnerProduct" inner_product_param { num_output: 50 }', [(30, 40)], samples=10)
    assert report.passed
    assert report.compared == 30  # 10 of the bottom, the weight and the bias each


def test_gradients_of_very_different_sizes_are_each_compared() -> None:
    """-1 / p_y for p_y down to 1e-9: the steps adapt to each element."""
    p_y = torch.tensor([1e-9, 1e-6, 1e-3, 0.5]).double()
    report = check_layer('type: "MultinomialLogisticLoss"', [torch.stack([p_y, 1 - p_y], 1), torch.zeros(4)])
    assert report.passed, report
    assert report.skipped == 0


def test_blobs_that_are_not_learned_are_left_out() -> None:
    text = 'type: "InnerProduct" param { lr_mult: 1 } param { lr_mult: 0 } inner_product_param { num_output: 2 }'
    assert check_layer(text, [(3, 4)]).compared == 3 * 4 + 2 * 4


def test_checking_a_layer_leaves_it_as_it_was() -> None:
    layer = build_layer('type: "BatchNorm"', [(4, 3)], dtype=torch.float32)
    layer.blobs[0].data.fill_(2.0)
    before = [(blob.data, blob.data.clone(), blob.diff) for blob in layer.blobs]
    x = torch.randn(4, 3)
    kept = x.clone()
    assert check_at(layer, [x]).passed
    assert torch.equal(x, kept)
    for blob, (data, values, diff) in zip(layer.blobs, before, strict=True):
        assert blob.data is data and blob.diff is diff and torch.equal(data, values) and not diff.any()


NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 6 dim: 2 dim: 6 dim: 6 } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 3 kernel_size: 3
  weight_filler { type: "msra" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithIMAELoss" bottom: "fc" bottom: "y" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "y" top: "accuracy" }
"""


def test_every_layer_of_a_net_is_checked_where_the_net_runs() -> None:
    reports = check_net(Net(parse_net(NET), TRAIN))
    assert [report.name for report in reports] == ["conv", "norm", "scale", "relu", "pool", "drop", "fc", "loss"]
    assert all(report.passed for report in reports), [report for report in reports if not report.passed]


def test_a_wrong_gradient_in_a_net_is_pinned_to_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(parse_net(NET), TRAIN)
    scale = net.steps[4].layer
    right = scale.backward
    monkeypatch.setattr(scale, "backward", lambda *passed: [right(*passed)[0] * 1.01])
    assert [report.name for report in check_net(net) if not report.passed] == ["scale"]


def test_checking_a_net_leaves_it_as_it_was() -> None:
    net = Net(parse_net(NET), TRAIN, dtype=torch.float32)
    x, y = torch.randn(6, 2, 6, 6), torch.arange(6) % 4
    data = net.storage.data.clone()
    check_net(net, {"x": x, "y": y.numpy()})
    assert net.context.passes.number == 0
    assert torch.equal(net.storage.data, data) and not net.storage.diff.any()
    assert all(blob.data.dtype == torch.float32 for blob in net.learnable)
    first = net.forward(x=x, y=y)
    assert torch.equal(first["loss"], Net(parse_net(NET), TRAIN).forward(x=x, y=y)["loss"])


def test_a_net_is_checked_on_the_values_of_its_data_layer() -> None:
    text = """
    layer { name: "digits" type: "DigitsData" top: "x" top: "y" digits_data_param { batch_size: 8 } }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 10
      weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithGCELoss" bottom: "fc" bottom: "y" top: "loss" }
    """
    reports = check_net(Net(parse_net(text), TRAIN))
    assert [(report.type, report.passed) for report in reports] == [
        ("InnerProduct", True),
        ("SoftmaxWithGCELoss", True),
    ]


def test_labels_are_floats_to_the_layers_of_a_net_that_is_checked() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" top: "y" input_param { shape { dim: 4 dim: 3 } shape { dim: 4 } } }
    layer { name: "half" type: "Scale" bottom: "y" top: "half" scale_param { axis: 0 num_axes: 0
      filler { type: "constant" value: 0.5 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "loss" }
    """
    inputs = {"x": np.arange(12).reshape(4, 3)[::-1], "y": np.array([0, 1, 2, 0])}
    for given_inputs in (inputs, {}):
        reports = check_net(Net(parse_net(text), TRAIN), given_inputs)
        assert [(report.name, report.passed) for report in reports] == [("half", True), ("loss", True)]


def test_a_users_layer_declares_what_its_gradient_holds_fixed() -> None:
    """`surrogate`: here a straight-through rounding, whose backward is the identity's."""

    class Rounding(Layer):
        type = "Rounding"

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            saved["error"] = bottoms[0].round() - bottoms[0]
            return [bottoms[0].round()]

        def surrogate(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            return [bottoms[0] + saved["error"]]

        def backward(
            self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
        ) -> Diffs:
            return [top_diffs[0]]

    register(Rounding)
    try:
        assert check_layer('type: "Rounding"', [(3, 4)]).passed
        del Rounding.surrogate
        assert not check_layer('type: "Rounding"', [(3, 4)]).passed
    finally:
        del registry["Rounding"]


def test_what_a_filter_leaves_is_checked_and_what_is_silenced_has_nothing_to_check() -> None:
    text = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
        layer { name: "keep" type: "Input" top: "keep" input_param { shape { dim: 4 } } }
        layer { name: "filter" type: "Filter" bottom: "x" bottom: "keep" top: "kept" }
        layer { name: "ip" type: "InnerProduct" bottom: "kept" top: "ip" inner_product_param { num_output: 2 } }
        layer { name: "silence" type: "Silence" bottom: "ip" }
    """
    net = Net(parse_net(text), TRAIN)
    reports = check_net(net, {"keep": np.array([0, 1, 1, 0])})
    assert [(report.name, report.passed) for report in reports] == [("filter", True), ("ip", True)]
    assert net.forward(x=torch.ones(4, 3), keep=torch.ones(4)) == {} and net.shape("ip") == (4, 2)


def test_a_layer_with_a_state_is_checked_from_it_and_keeps_it() -> None:
    """Each of the checker's passes begins where the first did."""
    text = 'type: "LSTM" recurrent_param { num_output: 3 weight_filler { type: "xavier" } }'
    layer = build_layer(text, [(3, 2, 2), (3, 2)])
    x, cont = torch.linspace(-1, 1, 12).double().view(3, 2, 2), torch.ones(3, 2).double()
    layer.forward([x, cont], {})
    before = [value.clone() for value in layer.state]
    assert before[0].any()
    report = check_at(layer, [x, cont])
    assert report.passed, report
    assert all(torch.equal(value, old) for value, old in zip(layer.state, before, strict=True))
