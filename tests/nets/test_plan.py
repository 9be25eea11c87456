"""The fused plan computes what the plain one does: outputs, gradients, running statistics."""

import pytest
import torch

from imae.layers.batch_norm import BatchNorm
from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.nets.plan import FoldedConvolution, Normalise, SumReLU
from imae.prototxt_like.text import parse_net

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
