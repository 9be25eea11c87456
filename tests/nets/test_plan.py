"""The fused plan computes what the plain one does: outputs, gradients, running statistics."""

import time
from pathlib import Path

import pytest
import torch

from imae import examples
from imae.layers.layer import TEST, TRAIN
from imae.layers.normalization.batch_norm import BatchNorm
from imae.nets.fused_layers import BiaslessConvolution, FoldedConvolution, Normalise, SumReLU
from imae.nets.net import Net
from imae.nets.state import filter_layers
from imae.prototxt_like.schema import NetParameter, NetState
from imae.prototxt_like.text import parse_net, read_net

EXAMPLES = Path(examples.__path__[0])

BLOCK = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 6 dim: 3 dim: 9 dim: 9 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 6 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 bias_term: %(bias)s weight_filler { type: "msra" }
                      bias_filler { type: "gaussian" std: 1 } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1"
  scale_param { bias_term: %(scale_bias)s filler { type: "uniform" min: 0.5 max: 2 }
                bias_filler { type: "gaussian" std: 0.5 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "bn2" }
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "bn2" top: "sum" eltwise_param { coeff: 1 coeff: 0.5 } }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "relu2" }
layer { name: "ip" type: "InnerProduct" bottom: "relu2" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
PAIRS = ["MultinomialLogisticLoss", "MAELoss", "IMAELoss", "GCELoss"]
END = """
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
layer { name: "loss" type: "%s" bottom: "prob" bottom: "label" top: "loss" loss_weight: 2 }
"""


def run(text: str, phase: int, plan: str, *, backward: bool = True) -> tuple[Net, dict[str, torch.Tensor]]:
    net = Net(parse_net(text), phase, plan=plan, backward=backward, seed=4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _, blobs in sorted(net.params.items()):
        if len(blobs) == 3:  # a BatchNorm that has seen something
            for blob in blobs:
                blob.data.uniform_(1, 2, generator=generator)
    for _ in range(2):
        net.clear_diffs()
        data = torch.randn(6, 3, 9, 9, generator=generator, dtype=torch.float64)
        outputs = net.forward(data=data, label=torch.randint(5, (6,), generator=generator))
        if backward:
            net.backward()
    return net, outputs


@pytest.mark.parametrize("loss", PAIRS)
@pytest.mark.parametrize("settings", [("true", "true"), ("false", "false")])
def test_training_is_the_same_fused_and_plain(loss: str, settings: tuple[str, str]) -> None:
    text = BLOCK % dict(zip(("bias", "scale_bias"), settings, strict=True)) + END % loss
    plain, expected = run(text, TRAIN, "plain")
    fused, actual = run(text, TRAIN, "fused")
    kinds = [type(step.layer).__name__ for step in fused.plan]
    assert kinds.count("Normalise") == 2 and kinds.count("SumReLU") == 1 and "Softmax" not in kinds
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(fused.loss, plain.loss)
    for name, blobs in plain.params.items():
        for i, blob in enumerate(blobs):
            torch.testing.assert_close(fused.params[name][i].data, blob.data, msg=f"{name} {i}")
            torch.testing.assert_close(fused.params[name][i].diff, blob.diff, msg=f"gradient of {name} {i}")


def test_the_test_phase_folds_normalisation_into_the_convolutions() -> None:
    text = BLOCK % {"bias": "true", "scale_bias": "true"} + END % "MAELoss"
    _, expected = run(text, TEST, "plain", backward=False)
    fused, actual = run(text, TEST, "fused", backward=False)
    kinds = [type(step.layer) for step in fused.plan]
    assert kinds.count(FoldedConvolution) == 2 and kinds.count(SumReLU) == 1
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    "layer, blob", [("conv1", 0), ("conv1", 1), ("bn1", 0), ("bn1", 1), ("bn1", 2), ("scale1", 0), ("scale1", 1)]
)
def test_folded_weights_follow_every_blob(layer: str, blob: int) -> None:
    text = BLOCK % {"bias": "true", "scale_bias": "true"}
    net, _ = run(text, TEST, "fused", backward=False)
    batch = {"data": torch.ones(6, 3, 9, 9), "label": torch.zeros(6)}
    before = net.forward(**batch)["ip"]
    net.params[layer][blob].data.mul_(1.5)
    after = net.forward(**batch)["ip"]
    assert not torch.allclose(after, before)
    other = Net(parse_net(text), TEST, plan="plain", dtype=torch.float64)
    other.copy_weights(net.to_proto())
    torch.testing.assert_close(after, other.forward(**batch)["ip"])


def test_a_value_with_two_readers_is_not_fused_away() -> None:
    text = BLOCK % {"bias": "true", "scale_bias": "true"}
    text = text.replace('bottom: "bn2" top: "sum"', 'bottom: "conv2" bottom: "bn2" top: "sum"').replace(
        "coeff: 0.5", ""
    )
    fused, _ = run(text.replace("coeff: 1", "") + END % "MAELoss", TRAIN, "fused")
    assert "conv2" in fused.blobs
    kinds = [type(step.layer) for step in fused.plan]
    assert kinds.count(Normalise) == 1 and kinds.count(BatchNorm) == 1


def test_global_statistics_in_training_stay_unfused() -> None:
    text = (BLOCK % {"bias": "true", "scale_bias": "true"}).replace(
        'type: "BatchNorm"', 'type: "BatchNorm" batch_norm_param { use_global_stats: true }'
    )
    plain, expected = run(text + END % "MAELoss", TRAIN, "plain")
    fused, actual = run(text + END % "MAELoss", TRAIN, "fused")
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(fused.storage.diff, plain.storage.diff)


@pytest.mark.parametrize(("own", "net", "backward"), [("TEST", TRAIN, True), ("TRAIN", TEST, False)])
def test_a_normalisations_own_phase_holds_in_both_plans(own: str, net: int, backward: bool) -> None:
    text = (BLOCK % {"bias": "true", "scale_bias": "true"}) + END % "MAELoss"
    text = text.replace('type: "BatchNorm"', f'type: "BatchNorm" phase: {own}')
    plain, expected = run(text, net, "plain", backward=backward)
    fused, actual = run(text, net, "fused", backward=backward)
    torch.testing.assert_close(actual, expected)
    assert (plain.params["bn1"][2].data > 2).item() == (own == "TRAIN"), "two passes add 2 in TRAIN alone"
    for name, blobs in plain.params.items():
        for i, blob in enumerate(blobs):
            torch.testing.assert_close(fused.params[name][i].data, blob.data)
            torch.testing.assert_close(fused.params[name][i].diff, blob.diff)


def example(path: Path, size: int) -> NetParameter:
    """An example's training net with IMAE, fed by hand: 3 images (or as many channels as it reads) of `size`."""
    param = read_net(path)
    param.state.CopyFrom(NetState(phase=TRAIN, stage=["imae"]))
    param = filter_layers(param)
    (data,) = (layer for layer in param.layer if layer.type.endswith("Data"))
    param.layer.remove(data)
    for layer in param.layer:
        del layer.include[:]
    channels = 1 if data.type == "DigitsData" else 3
    shapes = "".join(
        f'layer {{ name: "{top}" type: "Input" top: "{top}" input_param {{ shape {{ {dims} }} }} }}'
        for top, dims in zip(data.top, (f"dim: 3 dim: {channels} dim: {size} dim: {size}", "dim: 3"), strict=True)
    )
    fed = parse_net(shapes)
    fed.layer.extend(param.layer)
    return fed


@pytest.mark.parametrize(
    "name, size",
    [("digits/digits", 8), ("cifar10/resnet20", 16), ("cifar10/resnet32", 16), ("cifar10/resnet56", 16)],
)
def test_every_example_net_trains_the_same_fused_and_plain(name: str, size: int) -> None:
    param = example(EXAMPLES / f"{name}.prototxt", size)
    generator = torch.Generator().manual_seed(0)
    data, label = (torch.randn(*dims, generator=generator) for dims in ((3, 3, size, size), (3,)))
    nets = [Net(param, TRAIN, plan=plan, dtype=torch.float64, seed=1) for plan in ("plain", "fused")]
    for net in nets:
        net.keep_blobs = False
        net.clear_diffs()
        net.forward(data=data[:, : net.shapes[0][1]], label=(10 * label.abs() % 10).long())
        net.backward()
    plain, fused = nets
    assert any(isinstance(step.layer, Normalise) for step in fused.plan) and plain.storage.diff.any()
    torch.testing.assert_close(fused.loss, plain.loss)
    torch.testing.assert_close(fused.storage.data, plain.storage.data)
    torch.testing.assert_close(fused.storage.diff, plain.storage.diff)


def test_what_a_normalisation_made_is_recomputed_for_backward() -> None:
    net = Net(example(EXAMPLES / "cifar10" / "resnet20.prototxt", 16), TRAIN, plan="fused")
    net.keep_blobs = False
    net.forward(data=torch.randn(3, 3, 16, 16), label=torch.zeros(3))
    made = {number for step in net.plan if isinstance(step.layer, Normalise) for number in step.tops}
    kept = {number for number, value in enumerate(net._values) if value is not None}
    read = {number for step in net.plan if isinstance(step.layer, BiaslessConvolution) for number in step.bottoms}
    assert len(made) == 19 and len(read & made) == 10
    assert not kept & made and read - made <= kept
    net.backward()
    assert all(value is None for value in net._values)
    assert all(not step.saved for step in net.plan if step.backward)


@pytest.mark.slow
def test_a_chain_eight_times_as_long_is_planned_in_time_that_is_proportional() -> None:
    """Quadratic planning would take 64 times as long."""

    def seconds(layers: int) -> float:
        kinds = ("Scale", "ReLU")
        param = parse_net(
            'layer { name: "x" type: "Input" top: "0" input_param { shape { dim: 2 dim: 4 } } }'
            + "".join(
                f'layer {{ name: "{i}" type: "{kinds[i % 2]}" bottom: "{i}" top: "{i + 1}" }}' for i in range(layers)
            )
        )
        since = time.process_time()
        Net(param, TRAIN, plan="fused")
        return time.process_time() - since

    seconds(100)
    assert min(seconds(4000) for _ in range(2)) < 20 * min(seconds(500) for _ in range(3))
