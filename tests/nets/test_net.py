"""Net wires layers as Caffe does: rules, splits, sharing, losses, what runs backward, and weights from elsewhere."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imae.layers.data.data_layer import DataLayer
from imae.layers.layer import Shapes
from imae.layers.registry import register, registry
from imae.nets.memory import keep_freed_memory
from imae.nets.net import Net
from imae.nets.storage import copy_array
from imae.prototxt_like.binary import array_to_blob, read_caffemodel, write_caffemodel
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, NetParameter, NetState
from imae.prototxt_like.text import parse_net

generator = torch.Generator().manual_seed(5)
X = torch.randn(4, 3, generator=generator)
Y = torch.tensor([0, 1, 1, 0])
LABELS = 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 4 } } }'
INPUTS = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }' + LABELS
IMAGES = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 5 dim: 5 } } }' + LABELS


def ip(name: str, bottom: str, top: str, more: str = "", num_output: int = 3) -> str:
    """An InnerProduct layer with weights."""
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more}
      inner_product_param {{ num_output: {num_output} weight_filler {{ type: "xavier" }} }} }}"""


def relu(bottom: str, top: str, more: str = "", name: str = "") -> str:
    return f'layer {{ name: "{name or "relu_" + top}" type: "ReLU" bottom: "{bottom}" top: "{top}" {more} }}'


def loss(bottom: str, top: str = "loss", more: str = "", kind: str = "SoftmaxWithLoss") -> str:
    return f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" bottom: "y" top: "{top}" {more} }}'


def build(*layers: str, phase: int = TRAIN, inputs: str = INPUTS, **options: object) -> Net:
    return Net(parse_net(inputs + "\n".join(layers)), phase, **options)  # type: ignore[arg-type]


def run(net: Net, x: Tensor = X, y: Tensor = Y) -> dict[str, list[Tensor]]:
    """Forward and backward; return the gradients of the blobs by layer."""
    net.clear_diffs()
    net.forward(x=x, y=y)
    net.backward()
    return {name: [blob.diff.clone() for blob in blobs] for name, blobs in net.params.items()}


def copy_blobs(source: Net, target: Net, names: dict[str, str] | None = None) -> None:
    """Give `target` the weights of `source`'s layers of the same names, or of those that `names` says."""
    for name, blobs in target.params.items():
        for blob, other in zip(blobs, source.params[(names or {}).get(name, name)], strict=True):
            blob.data.copy_(other.data.view(blob.shape))


# Which layers a net has


@pytest.mark.parametrize(
    ("rules", "state", "included"),
    [
        ("", {}, True),
        ("include { phase: TRAIN }", {"phase": TRAIN}, True),
        ("include { phase: TRAIN }", {"phase": TEST}, False),
        ("exclude { phase: TRAIN }", {"phase": TRAIN}, False),
        ("exclude { phase: TRAIN }", {"phase": TEST}, True),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ('include { stage: "a" }', {}, False),
        ('include { stage: "a" }', {"stages": ["b", "a"]}, True),
        ('include { stage: "a" stage: "b" }', {"stages": ["a"]}, False),
        ('include { not_stage: "a" }', {"stages": ["a"]}, False),
        ('include { not_stage: "a" }', {"stages": ["b"]}, True),
        ('include { stage: "a" } include { stage: "b" }', {"stages": ["b"]}, True),
        ('include { stage: "a" phase: TEST }', {"stages": ["a"], "phase": TRAIN}, False),
        ('exclude { stage: "a" } exclude { stage: "b" }', {"stages": ["b"]}, False),
        ('exclude { stage: "a" stage: "b" }', {"stages": ["b"]}, True),
    ],
)
def test_rules_say_whether_a_layer_is_in_the_net(rules: str, state: dict[str, object], included: bool) -> None:
    names_both = relu("x", "other", 'include { stage: "a" stage: "b" }')
    net = build(relu("x", "out", rules), names_both, **{"phase": TEST, **state})
    assert ("relu_out" in [step.layer.name for step in net.steps]) == included


def test_include_and_exclude_do_not_go_together() -> None:
    with pytest.raises(InputError, match='layer "relu_out": has both include and exclude rules'):
        build(relu("x", "out", "include { phase: TRAIN } exclude { phase: TEST }"))


def test_the_nets_own_state_counts_too_but_a_level_that_is_given_replaces_its_own() -> None:
    rules = 'include { stage: "deploy" min_level: 3 max_level: 3 }'
    param = parse_net('state { stage: "deploy" level: 3 }' + INPUTS + relu("x", "a", rules))
    assert "a" in Net(param).newest
    assert "a" not in Net(param, level=0).newest and "a" not in Net(param, level=4).newest
    assert param.state == NetState(stage=["deploy"], level=3)  # the caller's is left as it was


# Wiring


def test_a_layer_in_place_equals_one_with_its_own_top() -> None:
    """Even where the layer before keeps its top for backward, and a third reads the value between."""

    def net(a: str, b: str, c: str, d: str) -> Net:
        return build(
            f"""
            layer {{ name: "conv" type: "Convolution" bottom: "x" top: "a"
              convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
            layer {{ name: "norm" type: "BatchNorm" bottom: "a" top: "{a}" }}
            layer {{ name: "scale" type: "Scale" bottom: "{a}" top: "{b}" scale_param {{ bias_term: true }} }}
            layer {{ name: "relu" type: "ReLU" bottom: "{b}" top: "{c}" }}
            layer {{ name: "drop" type: "Dropout" bottom: "{c}" top: "{d}" }}
            {ip("fc", d, "fc")} {loss("fc")}
            """,
            inputs=IMAGES,
        )

    in_place, apart = net("a", "a", "a", "a"), net("b", "c", "d", "e")
    x = torch.randn(4, 3, 5, 5, generator=generator)
    expected = run(apart, x)
    actual = run(in_place, x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert torch.equal(in_place.loss, apart.loss)
    assert torch.equal(in_place.blobs["a"], apart.blobs["e"])
    assert torch.equal(in_place.diffs["a"], apart.diffs["a"])  # the last that was written there, as in Caffe


@pytest.mark.parametrize(
    "settings",
    [
        'type: "AbsVal"',
        'type: "BNLL"',
        'type: "Bias"',
        'type: "Clip" clip_param { min: -0.5 max: 0.5 }',
        'type: "ELU" elu_param { alpha: -0.5 }',
        'type: "Exp"',
        'type: "LRN"',
        'type: "Log" log_param { shift: 9 }',
        'type: "MVN"',
        'type: "PReLU"',
        'type: "Power" power_param { power: 3 }',
        'type: "ReLU" relu_param { negative_slope: 0.5 }',
        'type: "ReLU" relu_param { negative_slope: -0.5 }',
        'type: "Scale"',
        'type: "Sigmoid"',
        'type: "Swish"',
        'type: "TanH"',
    ],
)
def test_an_activation_in_place_has_the_gradient_of_one_with_its_own_top(settings: str) -> None:
    x, dy = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)
    image = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }'
    first = 'layer { name: "first" type: "Power" bottom: "x" top: "a" power_param { scale: 2 } }'
    found = []
    for top in ("a", "b"):
        layer = f'layer {{ name: "layer" bottom: "a" top: "{top}" {settings} }}'
        net = build("force_backward: true", first, layer, inputs=image)
        net.forward(x=x)
        net.backward({top: dy})
        found.append((net.blobs[top], net.diffs["x"], *(blob.diff for step in net.steps for blob in step.layer.blobs)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_gradients_of_a_value_with_several_readers_add_up() -> None:
    """What Caffe's Split layers do."""
    both = build(ip("fc", "x", "z"), relu("z", "a"), loss("z", "loss1"), loss("a", "loss2", "loss_weight: 3"))
    first, second = build(ip("fc", "x", "z"), loss("z")), build(ip("fc", "x", "z"), relu("z", "a"), loss("a"))
    for one in (first, second):
        copy_blobs(both, one)
    for sum_of_both, one, other in zip(run(both)["fc"], run(first)["fc"], run(second)["fc"], strict=True):
        torch.testing.assert_close(sum_of_both, one + 3 * other)
    torch.testing.assert_close(both.loss, first.loss + 3 * second.loss)


def test_a_layer_may_read_one_value_twice() -> None:
    doubled = build(
        ip("fc", "x", "z"), 'layer { name: "sum" type: "Eltwise" bottom: "z" bottom: "z" top: "s" }', loss("s")
    )
    scaled = build(
        ip("fc", "x", "z"),
        'layer { name: "sum" type: "Eltwise" bottom: "z" bottom: "x" top: "s" eltwise_param { coeff: 2 coeff: 0 } }',
        loss("s"),
    )
    copy_blobs(doubled, scaled)
    torch.testing.assert_close(run(doubled), run(scaled))


def test_a_whole_net_agrees_with_finite_differences() -> None:
    """A residual block in place, shared weights, dropout, two losses and a weighted top, all at once."""
    net = build(
        ip("first", "x", "a", 'param { name: "w" } param { name: "b" }'),
        'layer { name: "norm" type: "BatchNorm" bottom: "a" top: "a" }',
        relu("a", "a"),
        ip("second", "a", "b", 'param { name: "w" } param { name: "b" }'),
        'layer { name: "drop" type: "Dropout" bottom: "b" top: "b" loss_weight: 0.25 }',
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "c" }',
        'layer { name: "prob" type: "Softmax" bottom: "c" top: "p" }',
        loss("p", "loss1", "loss_weight: 2", "GCELoss"),
        ip("scores", "c", "z"),
        loss("z", "loss2", kind="SoftmaxWithMAELoss"),
        dtype=torch.float64,
    )

    def value() -> float:
        net.reseed(0, 0)  # the same dropout mask
        net.forward(x=X, y=Y)
        return float(net.loss)

    value()
    net.backward()
    compared = 0
    for blob in net.learnable:
        if not blob.lr_mult:
            continue
        for element in range(blob.data.numel()):
            flat, step = blob.data.view(-1), 1e-5
            here = float(flat[element])
            ends = []
            for there in (here - step, here + step):
                flat[element] = there
                ends.append(value())
            flat[element] = here
            assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(
                float(blob.diff.view(-1)[element]), rel=1e-4, abs=1e-8
            )
            compared += 1
    assert compared == 2 * (9 + 3)


def test_outputs_are_what_nothing_reads_by_name() -> None:
    net = build(relu("x", "b"), relu("b", "z"), relu("b", "a"), loss("b", "middle"))
    assert net.outputs == ["a", "middle", "z"]
    assert list(net.forward(x=X, y=Y)) == ["a", "middle", "z"]
    assert net.inputs == ["x", "y"]


@settings(max_examples=15, deadline=None)
@given(
    parents=st.lists(st.integers(0, 100), min_size=1, max_size=8),
    in_place=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_keeping_no_blobs_changes_neither_outputs_nor_gradients(parents: list[int], in_place: list[bool]) -> None:
    """Over random trees of layers, some in place: a value is released after its last reader only."""
    layers, tops = [ip("fc", "x", "v0")], ["v0"]
    for i, parent in enumerate(parents):
        bottom = tops[parent % len(tops)]
        if in_place[i] and bottom == tops[-1]:
            layers.append(relu(bottom, bottom, name=f"relu{i}"))
        else:
            tops.append(f"v{len(tops)}")
            layers.append(ip(f"fc{i}", bottom, tops[-1]))
    layers += [loss(top, f"loss_{top}") for top in tops]
    kept, released = build(*layers), build(*layers)
    released.keep_blobs = False
    outputs = [net.forward(x=X, y=Y) for net in (kept, released)]
    for net in (kept, released):
        net.backward()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
    assert torch.equal(released.loss, kept.loss)
    assert torch.equal(released.storage.diff, kept.storage.diff)
    assert not released.blobs and not released.diffs and kept.blobs.keys() >= set(tops)


def test_a_test_net_without_backward_keeps_nothing_for_one() -> None:
    net = build(ip("fc", "x", "z"), relu("z", "z"), loss("z"), backward=False)
    expected = build(ip("fc", "x", "z"), relu("z", "z"), loss("z")).forward(x=X, y=Y)
    torch.testing.assert_close(net.forward(x=X, y=Y), expected)
    assert not any(step.backward or step.saved for step in net.steps)


# Losses


def test_the_loss_is_the_weighted_sum_over_tops() -> None:
    net = build(
        ip("fc", "x", "z", "loss_weight: 0.5"),  # any top may have a weight: its sum counts
        loss("z", "a", "loss_weight: 2"),
        loss("z", "b", "loss_weight: 0"),
        loss("z", "c", kind="SoftmaxWithMAELoss"),
    )
    net.forward(x=X, y=Y)
    blobs = net.blobs
    torch.testing.assert_close(net.loss, 0.5 * blobs["z"].sum() + 2 * blobs["a"] + blobs["c"])
    net.backward()
    weight = net.params["fc"][0].data.clone().requires_grad_()
    bias = net.params["fc"][1].data.clone().requires_grad_()
    z = torch.nn.functional.linear(X, weight, bias)
    p_y = z.softmax(1)[range(4), Y]
    (0.5 * z.sum() - 2 * p_y.log().mean() + 2 * (1 - p_y).mean()).backward()
    torch.testing.assert_close([blob.diff for blob in net.params["fc"]], [weight.grad, bias.grad])


def test_a_net_without_loss_has_loss_zero() -> None:
    net = build(relu("x", "a"))
    net.forward(x=X, y=Y)
    assert float(net.loss) == 0


def test_backward_may_start_at_given_diffs() -> None:
    net = build(ip("fc", "x", "z"), inputs="force_backward: true " + INPUTS)
    net.forward(x=X, y=Y)
    dz = torch.randn(4, 3, generator=generator)
    net.backward({"z": dz})
    torch.testing.assert_close(net.params["fc"][0].diff, dz.t() @ X)
    torch.testing.assert_close(net.diffs["x"], dz @ net.params["fc"][0].data)


# What runs backward


def backward_layers(net: Net) -> list[str]:
    """The layers whose backward runs, by watching them."""
    ran: list[str] = []
    for step in net.steps:
        real = step.layer.backward

        def watched(*args: object, real: object = real, name: str = step.layer.name) -> object:
            ran.append(name)
            return real(*args)  # type: ignore[operator]

        step.layer.backward = watched  # type: ignore[method-assign, assignment]
    net.forward(x=X, y=Y)
    net.backward()
    return ran[::-1]


FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def test_layers_before_the_first_that_learns_run_no_backward() -> None:
    net = build(
        ip("a", "x", "a", FROZEN),
        relu("a", "a"),
        ip("b", "a", "b"),
        relu("b", "b"),
        ip("c", "b", "c", FROZEN),
        loss("c"),
    )
    assert backward_layers(net) == ["b", "relu_b", "c", "loss"]
    assert not any(blob.diff.any() for name in ("a", "c") for blob in net.params[name])
    assert "x" not in net.diffs and "a" not in net.diffs


def test_layers_beside_the_loss_run_no_backward() -> None:
    accuracy = 'layer { name: "accuracy" type: "Accuracy" bottom: "a" bottom: "y" top: "accuracy" }'
    net = build(ip("a", "x", "a"), ip("b", "a", "b"), accuracy, loss("a"), loss("b", "unweighted", "loss_weight: 0"))
    assert backward_layers(net) == ["a", "loss"]


def test_a_weight_without_learning_rate_gets_no_gradient_but_its_bias_does() -> None:
    diffs = run(build(ip("fc", "x", "z", "param { lr_mult: 0 } param { lr_mult: 1 }"), loss("z")))["fc"]
    assert not diffs[0].any() and diffs[1].any()


def test_propagate_down_cuts_a_bottom_off() -> None:
    """The sum's gradient then reaches the first layer through the second only."""

    def net(more: str) -> Net:
        return build(
            ip("a", "x", "a"),
            ip("b", "a", "b"),
            f'layer {{ name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s" {more} }}',
            loss("s"),
        )

    whole, cut = net(""), net("propagate_down: false propagate_down: true")
    expected, actual = run(whole), run(cut)
    torch.testing.assert_close(actual["b"], expected["b"])
    torch.testing.assert_close(actual["a"][0], (whole.diffs["s"] @ whole.params["b"][0].data).t() @ X)
    torch.testing.assert_close(expected["a"][0], actual["a"][0] + whole.diffs["s"].t() @ X)


def test_propagate_down_false_everywhere_stops_backward() -> None:
    net = build(ip("a", "x", "a"), ip("b", "a", "b", "propagate_down: false"), loss("b"))
    assert backward_layers(net) == ["b", "loss"]


@pytest.mark.parametrize("asked", ["learned", "propagate_down: true propagate_down: true"])
def test_a_gradient_by_labels_is_refused_once_it_is_asked_for(asked: str) -> None:
    """As in Caffe: forward alone is fine, and so is backward where propagate_down takes the labels as given."""
    last = """layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "a" bottom: "t" top: "loss" MORE }"""
    layers = [ip("a", "x", "a"), ip("t", "x", "t") if asked == "learned" else relu("x", "t"), last]
    net = build(*(text.replace("MORE", "" if asked == "learned" else asked) for text in layers))
    net.forward(x=X, y=Y)
    with pytest.raises(InputError, match=r'^layer "loss" .*: has no derivative by its bottom "t", but'):
        net.backward()
    cut = build(*(text.replace("MORE", "propagate_down: true propagate_down: false") for text in layers))
    assert run(cut)["a"][0].any()


def test_propagate_down_true_asks_for_the_gradient_of_an_input() -> None:
    net = build(ip("a", "x", "a", "propagate_down: true"), loss("a"))
    run(net)
    torch.testing.assert_close(net.diffs["x"], net.diffs["a"] @ net.params["a"][0].data)


def test_force_backward_gives_gradients_down_to_the_inputs_but_not_to_labels() -> None:
    net = build(ip("a", "x", "a", FROZEN), loss("a"), inputs="force_backward: true " + INPUTS)
    run(net)
    p = torch.softmax(net.blobs["a"], 1)
    expected = (p - torch.nn.functional.one_hot(Y, 3)) / 4 @ net.params["a"][0].data
    torch.testing.assert_close(net.diffs["x"], expected)
    assert "y" not in net.diffs
    assert all(blob.diff.any() for blob in net.params["a"])  # of learning rate 0


def test_propagate_down_true_runs_no_layer_that_nothing_learned_leads_to() -> None:
    last = """layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "x" bottom: "t" top: "loss"
      propagate_down: true propagate_down: true }"""
    assert backward_layers(build(relu("x", "t"), last)) == []


def test_the_label_of_pairs_is_taken_as_given() -> None:
    last = """layer { name: "loss" type: "ContrastiveLoss" bottom: "a" bottom: "x" bottom: "y" top: "loss"
      propagate_down: true propagate_down: false propagate_down: true }"""
    assert run(build(ip("a", "x", "a"), last))["a"][0].any()


# Shared weights


def shared(settings_a: str = "", settings_b: str = "", bottom: str = "a", more: str = "") -> list[str]:
    """Two InnerProduct layers that share their weight."""
    return [
        ip("first", "x", "a", f'param {{ name: "w" {settings_a} }}'),
        ip("second", bottom, "b", f'param {{ name: "w" {settings_b} }}'),
        more,
        loss("b"),
    ]


def test_layers_that_name_a_param_alike_share_it() -> None:
    net = build(*shared())
    assert net.params["first"][0] is net.params["second"][0]
    assert net.params["first"][1] is not net.params["second"][1]
    assert len(net.learnable) == 3
    apart = build(ip("first", "x", "a"), ip("second", "a", "b"), loss("b"))
    copy_blobs(net, apart)
    actual, expected = run(net), run(apart)
    torch.testing.assert_close(actual["first"][0], expected["first"][0] + expected["second"][0])
    torch.testing.assert_close(actual["second"][1], expected["second"][1])


def test_permissive_sharing_allows_another_shape_of_as_many_values() -> None:
    layers = [
        ip("first", "x", "a", 'param { name: "w" }', num_output=4),
        ip("second", "a", "b", 'param { name: "w" share_mode: PERMISSIVE }', num_output=3),
        loss("b"),
    ]
    net = build(*layers)
    first, second = net.params["first"][0], net.params["second"][0]
    assert (first.shape, second.shape) == ((4, 3), (3, 4))
    assert first.data.data_ptr() == second.data.data_ptr() and len(net.learnable) == 3
    apart = build(ip("first", "x", "a", num_output=4), ip("second", "a", "b"), loss("b"))
    copy_blobs(net, apart)
    actual, expected = run(net), run(apart)
    torch.testing.assert_close(actual["first"][0], expected["first"][0] + expected["second"][0].view(4, 3))
    first.data.fill_(2.0)
    assert (second.data == 2).all()


def test_sharing_needs_one_shape_and_one_count() -> None:
    layers = [ip("first", "x", "a", 'param { name: "w" }', num_output=4)]
    message = r'layer "second" .*cannot share param "w" of layer "first": it is 4x3 there, {} here'
    with pytest.raises(InputError, match=message.format("3x4")):
        build(*layers, ip("second", "a", "b", 'param { name: "w" }', num_output=3))
    with pytest.raises(InputError, match=message.format("2x4")):
        build(*layers, ip("second", "a", "b", 'param { name: "w" share_mode: PERMISSIVE }', num_output=2))


@pytest.mark.parametrize("multiplier", ["lr_mult", "decay_mult"])
def test_layers_that_share_may_not_disagree_on_a_multiplier(multiplier: str) -> None:
    net = build(*shared("", f"{multiplier}: 3"))  # only one says so: it holds for both
    assert getattr(net.params["first"][0], multiplier) == 3
    assert getattr(build(*shared(f"{multiplier}: 3", f"{multiplier}: 3")).params["second"][0], multiplier) == 3
    with pytest.raises(InputError, match=f'layer "second" .*shares param "w" with another {multiplier}'):
        build(*shared(f"{multiplier}: 3", f"{multiplier}: 2"))


# Mistakes


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([relu("conv1", "a")], 'layer "relu_a" (ReLU): no layer before it produces its bottom "conv1"'),
        ([relu("x", "pool1"), relu("pol1", "a")], 'its bottom "pol1"; did you mean "pool1"?'),
        ([relu("x", "a"), relu("y", "a")], 'layer "relu_a" (ReLU): its top "a" is produced by another layer already'),
        (
            ['layer { name: "i" type: "Input" top: "a" top: "a" input_param { shape { dim: 1 } } }'],
            'its top "a" is produced',
        ),
        (  # as in Caffe, whose Split layer for two readers gives the blob other names
            [relu("x", "a"), relu("a", "b"), relu("a", "a", name="again")],
            'layer "again" (ReLU): cannot overwrite "a", which layer "relu_b" reads: its top needs another name',
        ),
        (
            [relu("x", "a", "loss_weight: 1"), relu("a", "a", name="again")],
            'cannot overwrite "a", which the loss counts',
        ),
        (
            [ip("fc", "x", "a", "param {} param {} param {}")],
            'layer "fc" (InnerProduct): has 2 learnable blobs, but 3 param settings',
        ),
        (
            [ip("fc", "x", "a"), ip("fc", "a", "b")],
            'layer "fc" (InnerProduct): another layer with learnable blobs has the same name',
        ),
        (
            [relu("x", "a", "propagate_down: true propagate_down: true")],
            "propagate_down must be given for each of its 1 bottoms, not 2",
        ),
        ([loss("x", "a", "loss_weight: 1 loss_weight: 1")], "loss_weight must be given for each of its 1 tops, not 2"),
        (
            ['layer { name: "l" type: "Rulu" bottom: "x" top: "a" }'],
            'layer "l": unknown layer type "Rulu"; did you mean "ReLU"?',
        ),
    ],
)
def test_a_mistake_in_the_graph_is_one_line_that_names_the_layer(layers: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        build(*layers)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_inputs_must_be_given_in_a_shape_that_fits() -> None:
    net = build(ip("fc", "x", "z"))
    with pytest.raises(InputError, match='its input "y" was not given'):
        net.forward(x=X)
    with pytest.raises(InputError, match=r'layer "fc" .*: its weight has 3 inputs, a bottom of 4x2 has 2'):
        net.forward(x=X[:, :2], y=Y)
    assert net.forward(x=X[:3].numpy(), y=Y[:3].numpy())["z"].shape == (3, 3)  # the batch may have another size


# Weights


def weights(net: Net) -> list[Tensor]:
    return [blob.data.clone() for blob in net.learnable]


def test_a_seed_determines_the_weights() -> None:
    layers = (ip("a", "x", "a"), ip("b", "a", "b"))
    assert torch.equal(build(*layers, seed=3).storage.data, build(*layers, seed=3).storage.data)
    assert not torch.equal(build(*layers, seed=3).storage.data, build(*layers, seed=4).storage.data)


def test_a_pass_is_a_function_of_weights_seed_and_number() -> None:
    net = build(ip("fc", "x", "z"), 'layer { name: "drop" type: "Dropout" bottom: "z" top: "z" }')
    first, second = (net.forward(x=X, y=Y)["z"] for _ in range(2))
    assert not torch.equal(first, second) and net.context.passes.number == 2
    net.reseed(0, 0)
    assert torch.equal(net.forward(x=X, y=Y)["z"], first)
    other = build(ip("fc", "x", "z"), 'layer { name: "drop" type: "Dropout" bottom: "z" top: "z" }', seed=1)
    other.copy_weights(net.to_proto())
    assert not torch.equal(other.forward(x=X, y=Y)["z"], first)


def test_copy_weights_goes_by_layer_name() -> None:
    source = build(ip("a", "x", "a"), ip("b", "a", "b"), seed=1)
    target = build(ip("b", "x", "one"), ip("c", "one", "two"))
    report = target.copy_weights(source.to_proto())
    assert (report.copied, report.kept, report.unused) == (["b"], ["c"], ["a"])
    assert torch.equal(target.params["b"][0].data, source.params["b"][0].data)
    assert torch.equal(
        target.params["c"][0].data, build(ip("b", "x", "one"), ip("c", "one", "two")).params["c"][0].data
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ip("b", "a", "b", num_output=2), r'layer "b": blob 0 is 3x3, the source of the weights has 2x3'),
        (ip("b", "a", "b").replace("num_output", "bias_term: false num_output"), 'layer "b": has 2 blobs, .* has 1'),
    ],
)
def test_weights_that_do_not_fit_are_an_error_and_nothing_is_copied(wrong: str, message: str) -> None:
    target = build(ip("a", "x", "a"), ip("b", "a", "b"), ip("c", "b", "c"))
    before = weights(target)
    source = build(ip("a", "x", "a"), wrong, ip("c", "a", "c"), seed=1).to_proto()
    with pytest.raises(InputError, match=message):
        target.copy_weights(source)
    assert all(torch.equal(now, then) for now, then in zip(weights(target), before, strict=True))


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.caffemodel"
    write_caffemodel(build(ip("a", "x", "a", num_output=2)).to_proto(), path)
    with pytest.raises(InputError, match=r'layer "a": blob 0 is 3x3, .*wrong.caffemodel has 2x3'):
        build(ip("a", "x", "a")).copy_weights(path)


def test_blobs_of_four_axes_from_before_n_d_blobs_fit() -> None:
    """Old files store a weight of 3x2 as 1x1x3x2, and a bias of 3 as 1x1x1x3, in num, channels, height, width."""
    net = build(ip("fc", "x", "z"))
    source = NetParameter()
    layer = source.layer.add(name="fc", type="InnerProduct")
    weight, bias = np.arange(9, dtype=np.float32), np.arange(3, dtype=np.float32)
    layer.blobs.add(num=1, channels=1, height=3, width=3, data=weight)
    layer.blobs.add(num=1, channels=1, height=1, width=3, data=bias)
    net.copy_weights(source)
    np.testing.assert_array_equal(net.params["fc"][0].data, weight.reshape(3, 3))
    np.testing.assert_array_equal(net.params["fc"][1].data, bias)
    layer.blobs[1].height, layer.blobs[1].width = 3, 1
    with pytest.raises(InputError, match=r"blob 1 is 3, .* has 1x1x3x1"):
        net.copy_weights(source)


def test_a_net_goes_through_a_caffemodel(tmp_path: Path) -> None:
    layers = (
        """layer { name: "conv" type: "Convolution" bottom: "x" top: "a"
          convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
        layer { name: "norm" type: "BatchNorm" bottom: "a" top: "a" }""",
        ip("fc", "a", "z"),
    )
    net = build(*layers, inputs=IMAGES, seed=1)
    x = torch.randn(4, 3, 5, 5, generator=generator)
    net.forward(x=x, y=Y)  # moves the statistics
    path = tmp_path / "net.caffemodel"
    write_caffemodel(net.to_proto(), path)
    other = build(*layers, inputs=IMAGES, phase=TEST, seed=2)
    assert other.copy_weights(path).copied == ["conv", "norm", "fc"]
    for name, blobs in net.params.items():
        for blob, theirs in zip(other.params[name], blobs, strict=True):
            assert torch.equal(blob.data, theirs.data)
    proto = read_caffemodel(path)
    assert [layer.name for layer in proto.layer] == ["x", "y", "conv", "norm", "fc"]
    assert list(proto.layer[2].blobs[0].shape.dim) == [4, 3, 3, 3]
    # The values are in Caffe's order, although the net keeps convolution weights channels last.
    np.testing.assert_array_equal(proto.layer[2].blobs[0].data, net.params["conv"][0].data.contiguous().view(-1))


def test_diffs_are_stored_where_asked_for() -> None:
    net = build(ip("fc", "x", "z"), loss("z"))
    diffs = run(net)["fc"]
    stored = net.to_proto(diffs=True).layer[2].blobs
    np.testing.assert_array_equal(np.array(stored[0].diff).reshape(3, 3), diffs[0])
    assert not net.to_proto().layer[2].blobs[0].diff


def test_a_source_given_as_message_may_hold_any_layers() -> None:
    source = NetParameter()
    source.layer.add(name="elsewhere", type="InnerProduct").blobs.add().CopyFrom(
        array_to_blob(np.zeros((2, 2), np.float32))
    )
    source.layer.add(name="relu", type="ReLU")
    report = build(ip("fc", "x", "z")).copy_weights(source)
    assert (report.copied, report.kept, report.unused) == ([], ["fc"], ["elsewhere"])


def test_nets_may_share_their_memory() -> None:
    """As a solver's test net shares its training net's weights."""
    train = build(ip("fc", "x", "z"), loss("z"))
    test = build(ip("fc", "x", "z"), ip("other", "z", "o"), phase=TEST, seed=1)
    own = test.params["other"][0].data.clone()
    test.share_weights(train)
    train.params["fc"][0].data.fill_(0.5)
    assert (test.params["fc"][0].data == 0.5).all()
    assert torch.equal(test.params["other"][0].data, own)
    torch.testing.assert_close(test.forward(x=X, y=Y)["o"], (X @ torch.full((3, 3), 0.5)) @ own.t())
    with pytest.raises(InputError, match='layer "fc": blob 0 is 2x3 in one net and 3x3 in the other'):
        build(ip("fc", "x", "z", num_output=2)).share_weights(train)
    with pytest.raises(InputError, match='layer "fc": has 1 blob in one net and 2 in the other'):
        build(ip("fc", "x", "z").replace("num_output", "bias_term: false num_output")).share_weights(train)


STAGED = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" include { phase: TEST stage: "imae" } }
layer { name: "exp" type: "ReLU" bottom: "data" top: "exp" exclude { stage: "deploy" } }"""


@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        ("imea", '; did you mean "imae"?'),
        ("Deploy", '; did you mean "deploy"?'),
        ("x", "; the rules name imae, deploy"),
    ],
)
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_a_stage_that_no_rule_names_is_refused(stage: str, hint: str, phase: int) -> None:
    """It would choose nothing, and train another loss in silence; the rules of both phases count."""
    Net(parse_net(STAGED), phase, stages=["imae"])
    message = re.escape(f'net "": no rule names the stage "{stage}"{hint}')
    with pytest.raises(InputError, match=f"{message}$"):
        Net(parse_net(STAGED), phase, stages=["imae", stage])
    with pytest.raises(InputError, match=f"{message}$"):
        Net(parse_net(f'state {{ stage: "{stage}" }} {STAGED}'), phase)


def test_a_filtered_net_stays_as_it_is() -> None:
    """Also where the layers whose rules named its stages are gone."""
    filtered = Net(parse_net(STAGED), TRAIN, stages=["imae", "deploy"]).param
    assert Net(filtered, TRAIN).param == filtered


# Losses without a top, the style of old files


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "SoftmaxWithIMAELoss", "MAELoss"])
@pytest.mark.parametrize("weight", ["", "loss_weight: 2"])
@pytest.mark.parametrize("plan", ["plain", "fused"])
@pytest.mark.parametrize("keep_blobs", [True, False])
def test_a_loss_without_a_top_trains_as_one_with_it_and_has_no_output(
    kind: str, weight: str, plan: str, keep_blobs: bool
) -> None:
    """Caffe's AutoTopBlobs: the top is anonymous, two of them as well."""
    bottom = 'layer { name: "p" type: "Softmax" bottom: "z" top: "p" }' if kind == "MAELoss" else ""
    named = [ip("ip", "x", "z"), bottom, *(loss("p" if bottom else "z", top, weight, kind) for top in ("one", "two"))]
    without = [layer.replace('top: "one"', "").replace('top: "two"', "") for layer in named]
    expected, net = build(*named, plan=plan), build(*without, plan=plan)
    net.keep_blobs = keep_blobs
    for wanted, actual in zip(run(expected)["ip"], run(net)["ip"], strict=True):
        assert torch.equal(actual, wanted)
    assert torch.equal(net.loss, expected.loss) and net.loss > 0
    assert net.outputs == []
    assert set(net.blobs) <= set(expected.blobs) - {"one", "two"}
    assert set(net.diffs) == set(expected.diffs) - {"one", "two"} or not keep_blobs
    assert [list(layer.top) for layer in net.to_proto().layer[-2:]] == [[], []]


@pytest.mark.parametrize(("kind", "bottoms"), [("Accuracy", "xy"), ("Softmax", "x"), ("Eltwise", "xx")])
def test_only_a_loss_goes_without_a_top(kind: str, bottoms: str) -> None:
    given_bottoms = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    with pytest.raises(InputError, match=r"top blobs?, the prototxt gives 0"):
        build(f'layer {{ name: "l" type: "{kind}" {given_bottoms} }}')


# Every value is a float, whatever is fed

HALF = """input: "x" input_shape { dim: 4 }
layer { name: "half" type: "Scale" bottom: "x" top: "half"
  scale_param { axis: 0 num_axes: 0 filler { type: "constant" value: 0.5 } } }"""


@pytest.mark.parametrize(
    "dtype",
    ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool", "float16", ">f4", ">i8", "g"],
)
@pytest.mark.parametrize("plan", ["plain", "fused"])
def test_arrays_of_any_dtype_and_strides_compute_as_floats(dtype: str, plan: str) -> None:
    net = Net(parse_net(HALF), plan=plan)
    values = np.array([0, 1, 1, 0] if dtype == "bool" else [0, 1, 2, 0]).astype(dtype)
    expected = values.astype(float) / 2
    for given_x, wanted in (
        (values, expected),
        (values[::-1], expected[::-1]),
        (np.stack([values, values], 1)[::-1, 1], expected[::-1]),
        (np.broadcast_to(values[1], 4), np.full(4, 0.5)),
        (values.tolist(), expected),
    ):
        half = net.forward(x=given_x)["half"]
        assert half.dtype == torch.float32
        assert half.tolist() == wanted.tolist()
    assert net.forward(x=torch.tensor([0, 1, 2, 0]))["half"].tolist() == [0, 0.5, 1, 0]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.zeros(4, complex), "holds values of type complex128, expected real numbers"),
        (torch.zeros(4, dtype=torch.complex64), "holds values of type torch.complex64, expected real numbers"),
        (["a"] * 4, "holds values of type <U1, expected real numbers"),
        ([[1], [2, 3]], "is no array: "),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(value: object, found: str) -> None:
    with pytest.raises(InputError, match=f'^net "": input "x" {re.escape(found)}'):
        Net(parse_net(HALF)).forward(x=value)  # type: ignore[arg-type]


def test_weights_are_the_same_for_pixels_as_integers_and_as_floats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3), np.uint8)
    layers = ip("ip", "x", "z"), loss("z")
    expected = run(build(*layers), torch.from_numpy(pixels.astype(np.float32)))
    for same in (pixels, pixels.astype(np.int64), pixels[::-1].copy()[::-1]):
        net = build(*layers)
        net.forward(x=same, y=Y.numpy())
        net.backward()
        for blob, wanted in zip(net.params["ip"], expected["ip"], strict=True):
            assert torch.equal(blob.diff, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_labels_of_a_data_layer_are_floats_that_keep_their_digits(dtype: torch.dtype) -> None:
    """A class such as 257 would be 256 in bfloat16."""

    @register
    class ManyClasses(DataLayer):
        type = "ManyClasses"

        def reshape(self, bottoms: Shapes) -> Shapes:
            return [(2, 1000), (2,)]

        def batch(self, number: int) -> list[Tensor]:
            return [torch.arange(2000, dtype=torch.uint8).view(2, 1000), torch.tensor([257, 999])]

    try:
        param = """layer { name: "data" type: "ManyClasses" top: "x" top: "y" }
          layer { name: "half" type: "Scale" bottom: "y" top: "half"
            scale_param { axis: 0 num_axes: 0 filler { type: "constant" value: 0.5 } } }
          layer { name: "accuracy" type: "Accuracy" bottom: "x" bottom: "y" top: "accuracy" }"""
        net = Net(parse_net(param), dtype=dtype)
        assert net.forward()["half"].tolist() == [128.5, 499.5]
        assert net.blobs["y"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    finally:
        del registry["ManyClasses"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fed_labels_and_the_places_of_maxima_keep_their_digits(dtype: torch.dtype) -> None:
    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 64 dim: 64 } } }
      layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 1 } } }
      layer { name: "pool" type: "Pooling" bottom: "x" top: "pool" top: "where" pooling_param { global_pooling: true } }
      layer { name: "flat" type: "InnerProduct" bottom: "x" top: "z" inner_product_param { num_output: 1000 } }
      layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "y" top: "loss" }"""
    net = Net(parse_net(text), TRAIN, dtype=dtype)
    x = torch.zeros(1, 1, 64, 64)
    x[0, 0, 63, 62] = 1
    net.forward(x=x, y=np.array([999]))
    assert net.blobs["where"].item() == 63 * 64 + 62
    assert net.blobs["y"].item() == 999
    net.backward()
    assert net.params["flat"][1].diff.argmin() == 999


def test_backward_takes_arrays_of_any_dtype_and_strides() -> None:
    net = build(ip("ip", "x", "z"))
    diff = np.arange(12, dtype=np.float64).reshape(4, 3)
    net.forward(x=X, y=Y)
    net.backward({"z": torch.from_numpy(diff).float()})
    expected = net.params["ip"][0].diff.clone()
    for given_diff in (diff, diff.astype(np.int64), diff[:, ::-1].copy()[:, ::-1], diff.astype(">f4")):
        net.clear_diffs()
        net.forward(x=X, y=Y)
        net.backward({"z": given_diff})
        assert torch.equal(net.params["ip"][0].diff, expected)


def test_a_gradient_by_what_is_not_there_or_of_another_shape_is_refused() -> None:
    net = build(ip("ip", "x", "score"), loss("score"))
    net.forward(x=X, y=Y)
    with pytest.raises(InputError, match=r'the gradient by "scores": .* makes no such blob; did you mean "score"\?'):
        net.backward({"scores": X})
    with pytest.raises(InputError, match=r'^net "": the gradient by "score" is 4x2, not 4x3$'):
        net.backward({"score": X[:, :2]})


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused_and_nothing_is_copied(tmp_path: Path, value: float) -> None:
    source, net = build(ip("a", "x", "a"), ip("b", "a", "b")), build(ip("a", "x", "a"), ip("b", "a", "b"))
    source.params["a"][0].data.fill_(2)
    source.params["b"][0].data[1, 1] = value
    source.write_weights(tmp_path / "nan.caffemodel")
    before = net.params["a"][0].data.clone()
    for weights in (tmp_path / "nan.caffemodel", source.to_proto()):
        with pytest.raises(InputError, match=rf': layer "b": blob 0: value \d+ is {value}, expected a finite number'):
            net.copy_weights(weights)
    assert torch.equal(net.params["a"][0].data, before)


def test_weights_written_without_a_message_are_those_with_one(tmp_path: Path) -> None:
    net = build(ip("a", "x", "a"), ip("b", "a", "b"))
    for blobs in net.params.values():
        for blob in blobs:
            blob.diff.fill_(0.5)
    net.write_weights(tmp_path / "net.caffemodel", diffs=True)
    assert read_caffemodel(tmp_path / "net.caffemodel") == net.to_proto(diffs=True)


def test_a_large_array_is_copied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.nets.storage._PART", 5)
    unaligned = np.frombuffer(b"x" + np.arange(42, dtype=np.float32).tobytes(), np.uint8)[1:].view(np.float32)
    for shape in ((42,), (1, 42), (2, 3, 7), (3, 1, 14)):
        tensor = torch.zeros(shape)
        copy_array(tensor, unaligned.reshape(shape))
        assert torch.equal(tensor, torch.arange(42.0).view(shape))


def test_a_layer_that_is_left_out_is_named_where_its_top_is_missing() -> None:
    """A data layer for TRAIN alone, say, in a net that is to be tested."""
    data = 'layer {{ name: "d" type: "DigitsData" top: "data" {} digits_data_param {{ batch_size: 1 }} }} '
    for kind, rules in (("include", "include { phase: TRAIN }"), ("exclude", "exclude { phase: TEST }")):
        net = parse_net(data.format(rules) + relu("data", "relu"))
        Net(net, TRAIN)
        maker = 'layer "d" (DigitsData) has it as a top'
        message = f'produces its bottom "data"; {maker}, but its {kind} rules leave it out in phase TEST'
        with pytest.raises(InputError, match=re.escape(message)):
            Net(net, TEST)


@pytest.mark.parametrize("plan", ["plain", "fused"])
def test_autograd_through_a_net_is_refused_and_its_own_backward_is_as_ever(plan: str) -> None:
    layers = ip("ip", "x", "z"), relu("z", "z"), loss("z", kind="SoftmaxWithIMAELoss")
    expected, net = build(*layers, plan=plan), build(*layers, plan=plan)
    wanted = run(expected)
    for x, blob in ((X.clone().requires_grad_(), None), (X, net.params["ip"][0])):
        net.clear_diffs()
        if blob:
            blob.data.requires_grad_()
        outputs = net.forward(x=x, y=Y)
        for value in (outputs["loss"], net.loss):
            with pytest.raises(InputError, match="autograd does not give its gradient"):
                value.backward(retain_graph=True)
        net.backward()
        for diff, same in zip((b.diff for b in net.params["ip"]), wanted["ip"], strict=True):
            assert torch.equal(diff, same) and not diff.requires_grad


@pytest.mark.parametrize("plan", ["plain", "fused"])
@pytest.mark.parametrize("kind", ["Split", "Flatten", "Concat", "Slice", "Reshape"])
def test_a_layer_in_place_changes_no_other_blob_and_no_other_layers_gradient(kind: str, plan: str) -> None:
    """Where Caffe has one memory for two blobs, or reads it after it was overwritten."""

    def run(sigmoid: str, bias: str) -> tuple[Tensor, Tensor]:
        net = Net(
            parse_net(f"""
                force_backward: true
                layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 4 dim: 6 }} }} }}
                layer {{ name: "shared" bottom: "x" top: "s" type: "{kind}"
                  reshape_param {{ shape {{ dim: 0 dim: 6 }} }} }}
                layer {{ name: "sigmoid" type: "Sigmoid" bottom: "s" top: "{sigmoid}" }}
                layer {{ name: "bias" type: "Bias" bottom: "{sigmoid}" top: "{bias}"
                  bias_param {{ filler {{ type: "constant" value: 2 }} }} }}
                layer {{ name: "all" type: "Eltwise" bottom: "x" bottom: "{bias}" top: "y"
                  eltwise_param {{ operation: PROD }} loss_weight: 1 }}
            """),
            TRAIN,
            plan=plan,
        )
        y = net.forward(x=torch.arange(24.0).view(4, 6) / 12 - 1)["y"]
        net.backward()
        return y, net.diffs["x"]

    torch.testing.assert_close(run("s", "s"), run("a", "b"))


def test_weights_that_are_to_be_copied_or_shared_take_no_memory_before() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    layer = 'layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 20000 } }'
    keep_freed_memory()  # as the commands do
    np.zeros(2**29, np.uint8)  # which the C library keeps then, and does not know for zeros
    before = resident()
    net = Net(parse_net(f'input: "x" input_shape {{ dim: 1 dim: 5000 }} {layer}'), filled=False)
    assert resident() - before < 50e6, "of 400 MB, and as much of gradients"
    weight = net.params["y"][0]
    assert not weight.data[::1000].any() and not weight.diff[::1000].any()
    assert (weight.data.data_ptr() % 64, weight.diff.data_ptr() % 64) == (0, 0), "aligned as PyTorch aligns"
