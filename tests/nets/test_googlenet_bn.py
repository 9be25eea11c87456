"""GoogLeNet with batch normalisation is the net of Ioffe and Szegedy 2015, Figure 5, for MARS."""

import hashlib
from pathlib import Path

import pytest
import torch

from imae.experiments.mars_info import write_miniature
from imae.layers.layer import TRAIN, describe
from imae.nets.deploy import deploy
from imae.nets.googlenet_bn import FEATURES, googlenet_bn
from imae.nets.net import Net
from imae.nets.onnx_export import compare_with_onnxruntime, export_onnx
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, NetParameter

PUBLISHED = "3f60992a"
"""Digest of a line `name shape ...` for each layer with blobs, but the classifier, in the `deploy.prototxt` of
https://github.com/lim0606/caffe-googlenet-bn at commit d19caf5."""


def with_statistics(net: Net) -> Net:
    """The net with global statistics in its BatchNorm layers that keep values at their size."""
    for step in net.steps:
        if step.layer.type == "BatchNorm":
            _, var, weight = (blob.data for blob in step.layer.blobs)
            var.fill_(0.3)
            weight.fill_(1.0)
    return net


@pytest.fixture(scope="module")
def net() -> Net:
    param = deploy(googlenet_bn("imae", T=8), shape=(3, 224, 224), outputs=[FEATURES])
    return with_statistics(Net(param, backward=False))


def test_modules_have_the_sizes_of_figure_5(net: Net) -> None:
    expected = {
        "conv1/7x7_s2": "1x64x112x112",
        "pool1/3x3_s2": "1x64x56x56",
        "conv2/3x3": "1x192x56x56",
        "pool2/3x3_s2": "1x192x28x28",
        "inception_3a/output": "1x256x28x28",
        "inception_3b/output": "1x320x28x28",
        "inception_3c/output": "1x576x14x14",
        "inception_4a/output": "1x576x14x14",
        "inception_4b/output": "1x576x14x14",
        "inception_4c/output": "1x576x14x14",
        "inception_4d/output": "1x576x14x14",
        "inception_4e/output": "1x1024x7x7",
        "inception_5a/output": "1x1024x7x7",
        "inception_5b/output": "1x1024x7x7",
        FEATURES: "1x1024x1x1",
    }
    assert {name: describe(net.shapes[net.newest[name]]) for name in expected} == expected


def test_layers_are_those_that_published_imagenet_weights_are_for(net: Net) -> None:
    lines = [" ".join([name, *(describe(blob.shape) for blob in blobs)]) for name, blobs in net.params.items()]
    assert hashlib.blake2b("\n".join(lines).encode(), digest_size=4).hexdigest() == PUBLISHED


def test_number_of_learnable_parameters(net: Net) -> None:
    assert sum(blob.data.numel() for blob in net.learnable if blob.lr_mult) == 10_169_984
    score = next(layer for layer in googlenet_bn("cce").layer if layer.name == "score")
    assert score.inner_product_param.num_output == 625


def test_onnx_runtime_computes_the_same_features(net: Net, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    largest = float(net.forward(data=x)[FEATURES].abs().max())
    assert largest > 1
    export_onnx(net, None, tmp_path / "net.onnx")
    assert compare_with_onnxruntime(tmp_path / "net.onnx", net, x) <= 1e-5 * largest


def small(param: NetParameter) -> NetParameter:
    """The net on 4 frames of 32 x 32 pixels."""
    for layer in param.layer[:2]:
        layer.mars_data_param.batch_size = 4
        layer.mars_data_param.new_height = layer.mars_data_param.new_width = 36
        layer.transform_param.crop_size = 32
    return param


def test_weights_by_layer_names_start_a_net_for_other_persons(tmp_path: Path) -> None:
    """As an ImageNet caffemodel, whose classifier has another name and size, would."""
    write_miniature(tmp_path / "MARS", persons=2, tracks_per_person=2, frames_per_track=1, size=(16, 8))
    net = Net(small(googlenet_bn("mae", persons=2)), TRAIN, folder=tmp_path, seed=1)
    source = Net(small(googlenet_bn("cce", persons=2)), TEST, folder=tmp_path, seed=2, backward=False).to_proto()
    source.layer[-1].name = "loss3/classifier"
    report = net.copy_weights(source)
    assert (report.kept, report.unused) == (["score"], ["loss3/classifier"])
    assert len(report.copied) == 3 * 69
    assert torch.equal(net.params["inception_5b/1x1"][0].data.flatten(), blob(source, "inception_5b/1x1"))
    assert sorted(net.forward()) == ["accuracy", "loss"]


def blob(param: NetParameter, name: str) -> torch.Tensor:
    return torch.tensor(next(layer for layer in param.layer if layer.name == name).blobs[0].data)


@pytest.mark.slow
def test_both_plans_give_the_same_gradients(tmp_path: Path) -> None:
    """Concat's gradients are parts of one tensor, which the fused layers take as they lie."""
    write_miniature(tmp_path / "MARS", persons=2, tracks_per_person=2, frames_per_track=1, size=(16, 8))
    nets = [
        Net(small(googlenet_bn("cce", persons=2)), TRAIN, folder=tmp_path, plan=plan, dtype=torch.float64)
        for plan in ("plain", "fused")
    ]
    for net in nets:
        net.forward()
        net.backward()
    plain, fused = (net.storage.diff for net in nets)
    assert float(plain.abs().max()) > 0
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-9 * float(plain.abs().max()))


def test_the_settings_are_those_of_section_5_2() -> None:
    net = googlenet_bn("imae", T=8, source="there")
    train, test = net.layer[:2]
    for layer, mirror in ((train, True), (test, False)):
        own, transform = layer.mars_data_param, layer.transform_param
        assert (own.source, own.batch_size, own.new_height, own.new_width) == ("there", 180, 256, 256)
        assert (transform.crop_size, transform.mirror) == (224, mirror)
    assert list(test.top) == ["data"]
    loss = next(layer for layer in net.layer if layer.name == "loss")
    assert (loss.type, loss.imae_param.T) == ("SoftmaxWithIMAELoss", 8)


def test_a_loss_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match=r'no loss "imea"; .*did you mean "imae"'):
        googlenet_bn("imea")
