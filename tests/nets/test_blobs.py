"""A net owns its blobs: they persist by name, can be written, and a pass starts and ends at named layers."""

import pytest
import torch

from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

NET = """
name: "chain"
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "b" top: "prob" }
layer { name: "loss" type: "MultinomialLogisticLoss" bottom: "prob" bottom: "label" top: "loss" }
"""
DATA, LABEL = torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.2, -0.3]]), torch.tensor([1, 4])


def chain(plan: str = "plain") -> Net:
    return Net(parse_net(NET), TRAIN, plan=plan, seed=3)


def test_a_buffer_stays_in_its_place_and_follows_the_passes() -> None:
    net = chain()
    a, diff = net.blobs["a"], net.diffs["a"]
    assert not a.any() and a.shape == (2, 4) and a.dtype == torch.float32
    net.forward(data=DATA, label=LABEL)
    net.backward()
    first, first_diff = a.clone(), diff.clone()
    assert first.any() and first_diff.any() and net.blobs["a"] is a and net.diffs["a"] is diff
    net.forward(data=2 * DATA, label=LABEL)
    assert not torch.equal(a, first) and net.blobs["a"] is a


def test_written_input_buffers_feed_a_pass_without_arguments() -> None:
    net, other = chain(), chain()
    with pytest.raises(InputError, match='its input "data" was not given'):
        net.forward()
    net.blobs["data"].copy_(DATA)
    net.blobs["label"][:] = LABEL
    net.forward()
    assert torch.equal(net.loss, other.forward(data=DATA, label=LABEL) and other.loss)


def test_an_in_place_layer_overwrites_its_names_buffer() -> None:
    net = chain()
    net.forward(data=DATA, label=LABEL, end="a")
    before = net.blobs["a"].clone()
    assert (before < 0).any()
    net.forward(start="relu", end="relu")
    assert torch.equal(net.blobs["a"], before.relu())


def test_a_pass_that_starts_in_the_middle_reads_what_was_written() -> None:
    net, other = chain(), chain()
    net.forward(data=DATA, label=LABEL)
    net.blobs["a"].copy_(torch.arange(8).view(2, 4))
    outputs = net.forward(start="b", end="prob")
    weight, bias = (blob.data for blob in net.params["b"])
    expected = torch.softmax(torch.arange(8.0).view(2, 4) @ weight.t() + bias, 1)
    torch.testing.assert_close(outputs, {"prob": expected})
    torch.testing.assert_close(net.blobs["prob"], expected)
    assert not torch.equal(net.blobs["loss"], other.blobs["loss"]), "what lies behind the end stays"


def test_a_backward_from_layer_to_layer_adds_up_to_a_whole_one() -> None:
    net, other = chain(), chain()
    for one in (net, other):
        one.forward(data=DATA, label=LABEL)
    other.backward()
    net.backward(start="loss", end="b")
    assert net.params["b"][0].diff.any() and not net.params["a"][0].diff.any()
    net.backward(start="relu", end="a")
    torch.testing.assert_close(net.storage.diff, other.storage.diff)
    for name in ("data", "a", "b", "prob"):
        torch.testing.assert_close(net.diffs[name], other.diffs[name])


def test_a_written_diff_is_where_a_backward_starts() -> None:
    net = chain()
    net.forward(data=DATA, label=LABEL)
    net.diffs["b"].fill_(1.0)
    net.backward(start="b", end="b")
    torch.testing.assert_close(net.params["b"][1].diff, torch.full((5,), 2.0))


def test_a_pass_in_parts_and_a_whole_backward_are_as_one_pass() -> None:
    """What is random included."""
    text = NET.replace('type: "ReLU"', 'type: "Dropout"')
    net, other = (Net(parse_net(text), TRAIN, seed=3) for _ in range(2))
    net.forward(data=DATA, label=LABEL, end="a")
    net.forward(start="relu", end="relu")
    net.forward(start="b")
    assert net.context.passes.number == 1
    other.forward(data=DATA, label=LABEL)
    for one in (net, other):
        one.backward()
    assert torch.equal(net.loss, other.loss)
    torch.testing.assert_close(net.storage.diff, other.storage.diff)


def test_backward_can_be_repeated_and_needs_a_forward() -> None:
    net = chain()
    with pytest.raises(InputError, match="backward follows a forward pass"):
        net.backward()
    net.forward(data=DATA, label=LABEL)
    net.backward()
    once = net.storage.diff.clone()
    net.backward()
    torch.testing.assert_close(net.storage.diff, 2 * once)


def test_a_blob_that_changes_its_shape_gets_another_buffer() -> None:
    net = chain()
    net.forward(data=DATA, label=LABEL)
    small = net.blobs["a"]
    net.forward(data=torch.cat([DATA, DATA]), label=torch.cat([LABEL, LABEL]))
    assert small.shape == (2, 4) and net.blobs["a"].shape == (4, 4)
    torch.testing.assert_close(net.blobs["a"][:2], net.blobs["a"][2:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_below_float32_a_buffer_mirrors_the_value(dtype: torch.dtype) -> None:
    net = Net(parse_net(NET), TEST, dtype=dtype, backward=False)
    net.blobs["data"].copy_(DATA)
    net.blobs["label"].copy_(LABEL)
    net.forward()
    assert net.blobs["prob"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(
        net.blobs["prob"].sum(1), torch.ones(2, dtype=net.blobs["prob"].dtype), rtol=0.02, atol=0
    )


def test_images_lie_in_the_order_of_their_axes() -> None:
    """Whatever order the convolutions prefer."""
    net = Net(parse_net("""
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 5 } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
          convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
    """))  # fmt: skip
    top = net.forward(data=torch.randn(2, 3, 5, 5))["conv"]
    assert not top.is_contiguous() and net.blobs["conv"].is_contiguous()
    assert torch.equal(net.blobs["conv"], top)


def test_the_fused_plan_refuses_what_only_the_plain_one_has() -> None:
    net = chain("fused")
    net.forward(data=DATA, label=LABEL)
    with pytest.raises(InputError, match='blob "prob" lies inside fused layers; the plan "plain" has it'):
        net.blobs["prob"]
    with pytest.raises(InputError, match='the fused plan runs whole, the plan "plain" from layer to layer'):
        net.forward(start="b")
    with pytest.raises(InputError, match='the plan "plain" from layer to layer'):
        net.backward(end="b")
    assert "prob" not in net.blobs and "b" in net.blobs
    plain = chain()
    with pytest.raises(InputError, match='has no layer "lost"; did you mean "loss"'):
        plain.forward(start="lost")
    with pytest.raises(InputError, match='layer "prob" comes after layer "a"'):
        plain.forward(start="prob", end="a")
    plain.keep_blobs = False
    plain.forward(data=DATA, label=LABEL)
    with pytest.raises(InputError, match="without keep_blobs a pass leaves its outputs alone"):
        plain.blobs["a"]
