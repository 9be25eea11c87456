"""Well-known nets: parameters and shapes as published, both phases in both plans, and torchvision's numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from docs import zoo as page
from imae.layers.normalization.batch_norm import BatchNorm
from imae.nets import zoo
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, NetParameter
from imae.prototxt_like.text import format_text, parse_net

IN_TRAINING = {"googlenet": 13_378_280, "inception_v3": 27_161_264}
"""With the auxiliary classifiers."""
SHAPES = {
    # of the papers' tables and figures, or of the published deploy.prototxt
    "alexnet": {"conv1": (96, 55, 55), "pool2": (256, 13, 13), "pool5": (256, 6, 6), "fc7": (4096,)},
    "caffenet": {"norm1": (96, 27, 27), "norm2": (256, 13, 13), "pool5": (256, 6, 6)},
    "vgg16": {"pool1": (64, 112, 112), "pool3": (256, 28, 28), "pool5": (512, 7, 7)},
    "googlenet": {
        "inception_3a/output": (256, 28, 28),
        "inception_4e/output": (832, 14, 14),
        "pool5/7x7_s1": (1024, 1, 1),
    },
    "inception_v3": {
        "inception_a3_output": (288, 35, 35),
        "inception_b4_concat": (768, 17, 17),
        "inception_c2_concat": (2048, 8, 8),
    },
    "inception_v4": {
        "inception_stem3": (384, 35, 35),
        "reduction_a_concat": (1024, 17, 17),
        "reduction_b_concat": (1536, 8, 8),
    },
    "inception_resnet_v2": {
        "stem_concat": (320, 35, 35),
        "reduction_a_concat": (1088, 17, 17),
        "reduction_b_concat": (2080, 8, 8),
        "conv6_1x1": (1536, 8, 8),
    },
    "resnet50": {"conv1": (64, 112, 112), "pool1": (64, 56, 56), "res3d": (512, 28, 28), "res5c": (2048, 7, 7)},
    "resnet101": {"res3b3": (512, 28, 28), "res4b22": (1024, 14, 14), "res5c": (2048, 7, 7)},
    "densenet121": {"pool2": (128, 28, 28), "pool3": (256, 14, 14), "pool4": (512, 7, 7), "concat_5_16": (1024, 7, 7)},
    "squeezenet": {"pool1": (64, 56, 56), "fire5/concat": (256, 28, 28), "fire9/concat": (512, 14, 14)},
    "mobilenet": {"conv1": (32, 112, 112), "conv4_1/sep": (256, 28, 28), "conv6/sep": (1024, 7, 7)},
    "fcn8s": {"pool5": (512, 22, 22), "fc7": (4096, 16, 16), "fuse_pool4": (21, 34, 34), "upscore8": (21, 568, 568)},
    "deeplab": {"pool3": (256, 41, 41), "fc6": (1024, 41, 41), "fc8_voc12": (21, 41, 41), "fc8_interp": (21, 321, 321)},
    "ssd300": {"pool3": (256, 38, 38), "fc7": (1024, 19, 19), "conv9_2": (256, 1, 1), "mbox_loc": (4 * 8732,)},
    "lrcn": {"fc8": (1000,)},
    "siamese": {"conv2": (50, 8, 8), "ip2": (10,)},
    "autoencoder": {"encode4": (30,), "decode1": (784,)},
}
SMALL = ("siamese", "autoencoder")
LARGE = [name for name in zoo.NETS if name not in SMALL]
CLASSES = {"siamese": 2, "fcn8s": 21, "deeplab": 21, "ssd300": 21, "lrcn": 8801}


def shapes_alone(param: NetParameter, phase: int = TEST) -> Net:
    return Net(param, phase, device="meta")


@pytest.mark.parametrize("name", zoo.NETS)
def test_parameters_and_shapes_are_those_that_were_published(name: str) -> None:
    net = page.predicting(name)
    assert page.parameters(net) == zoo.NETS[name].parameters
    assert {blob: net.shape(blob) for blob in SHAPES[name]} == {
        blob: (1, *shape) for blob, shape in SHAPES[name].items()
    }


@pytest.mark.parametrize("name", IN_TRAINING)
def test_auxiliary_classifiers_are_in_training_alone(name: str) -> None:
    assert page.parameters(shapes_alone(zoo.build(name), TRAIN)) == IN_TRAINING[name]


def test_the_page_has_todays_table() -> None:
    text = page.PAGE.read_text()
    assert page.written(text) == text


def test_shapes_alone_take_no_memory() -> None:
    text = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 40000 } }'
    net = shapes_alone(parse_net(f'input: "x" input_shape {{ dim: 8 dim: 40000 }} {text}'))
    assert net.shape("y") == (8, 40_000)
    assert (net.storage.data.numel(), net.storage.data.is_meta) == (40_000 * 40_001, True)


def test_classes_and_batch_are_as_given_and_the_deployed_net_predicts_them() -> None:
    net = shapes_alone(zoo.build("resnet50", classes=7, batch=3))
    assert net.shape("fc1000") == (3, 7)
    predicting = shapes_alone(deploy(zoo.build("resnet50", classes=7, batch=1)))
    assert (predicting.inputs, predicting.outputs) == (["data"], ["prob"])


@pytest.mark.parametrize(
    ("name", "type", "tops"),
    [("vgg16", "Data", ["data", "label"]), ("autoencoder", "Data", ["data"]), ("fcn8s", "HDF5Data", ["data", "label"])],
)
def test_with_a_source_each_phase_reads_its_own(name: str, type: str, tops: list[str]) -> None:
    train, test = zoo.build(name, source="photos").layer[:2]
    assert (train.type, test.type, [*train.top], [*test.top]) == (type, type, tops, tops)
    assert [train.include[0].phase, test.include[0].phase] == [TRAIN, TEST]
    read = [layer.data_param.source or layer.hdf5_data_param.source for layer in (train, test)]
    assert [path.startswith(f"photos/{split}") for path, split in zip(read, ("train", "val"), strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize("name", ["googlenet", "lrcn", "siamese", "autoencoder"])
def test_a_net_survives_being_written_and_read(name: str) -> None:
    net = zoo.build(name, source="photos")
    assert parse_net(format_text(net)) == net


def test_an_unknown_net_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r'no net "resnet51"; known are alexnet, .*autoencoder'):
        zoo.build("resnet51")
    with pytest.raises(ImportError):
        from imae.nets.zoo import resnet51  # type: ignore[attr-defined]  # noqa: F401


def fed(net: Net, classes: int) -> dict[str, Tensor]:
    """Random images, and labels among `classes`."""
    draws = torch.Generator().manual_seed(1)
    given = {}
    for name in net.inputs:
        shape = net.shape(name)
        if name in ("label", "sim", "input_sentence", "target_sentence"):
            given[name] = torch.randint(classes, shape, generator=draws).float()
        else:
            given[name] = torch.ones(shape) if name == "cont_sentence" else torch.rand(shape, generator=draws)
    return given


def check_both_phases_in_both_plans(param: NetParameter, classes: int) -> None:
    """Whether loss and gradients of the two plans agree, and no weight is left without a finite gradient."""
    weights: NetParameter | None = None
    for phase in (TRAIN, TEST):
        passes = []
        for plan in ("plain", "fused"):
            net = Net(param, phase, plan=plan, seed=3)
            if weights:  # whose running statistics are those of a pass
                net.copy_weights(weights)
            net.keep_blobs = False
            net.forward(**fed(net, classes))
            net.backward()
            passes.append((net.loss, net.storage.diff))
            if phase == TRAIN and plan == "fused" and any(layer.type == "BatchNorm" for layer in param.layer):
                weights = net.to_proto()
        (loss, diff), (fused_loss, fused_diff) = passes
        assert torch.isfinite(diff).all()
        assert diff.norm() > 0
        torch.testing.assert_close(fused_loss, loss, rtol=1e-5, atol=0)
        assert (fused_diff - diff).norm() < 1e-4 * diff.norm()


@pytest.mark.parametrize("name", SMALL)
def test_a_small_net_runs_in_both_phases_alike_in_both_plans(name: str) -> None:
    check_both_phases_in_both_plans(zoo.build(name, batch=2), CLASSES.get(name, 1000))


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_net_runs_in_both_phases_alike_in_both_plans(name: str) -> None:
    size = {"size": 100} if name == "fcn8s" else {}  # at 500 a minute a pass
    check_both_phases_in_both_plans(zoo.build(name, batch=1 if size else 2, **size), CLASSES.get(name, 1000))


def with_values_of(net: Net, theirs: torch.nn.Module) -> None:
    """Copy the weights of a torchvision model, whose modules are in the order of the net's layers."""
    normalised = iter([m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    weighted = iter([m for m in theirs.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)])
    for step in net.steps:
        layer = step.layer
        if isinstance(layer, BatchNorm):
            last = next(normalised)
            values = [last.running_mean, last.running_var, torch.ones(1)]
        elif layer.type == "Scale":
            values = [last.weight, last.bias]
        elif layer.blobs:
            module: Any = next(weighted)
            values = [module.weight, module.bias][: len(layer.blobs)]
        for blob, value in zip(layer.blobs, values if layer.blobs else (), strict=True):
            blob.data.copy_(value.detach().reshape(blob.shape))
    assert next(weighted, None) is next(normalised, None) is None


def caffes_pooling() -> torch.nn.Module:
    """Windows of 3 x 3 at stride 2 that begin inside, the last one cut."""
    return torch.nn.MaxPool2d(3, 2, ceil_mode=True)


def as_he_published(model: Any) -> None:
    model.maxpool = caffes_pooling()
    for stage in (model.layer2, model.layer3, model.layer4):  # the stride is in the first convolution
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)


def in_the_order_of_the_file(model: Any) -> None:
    """Of a bottleneck the shortcut comes first."""
    as_he_published(model)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        block = stage[0]
        block._modules = {"downsample": block._modules.pop("downsample"), **block._modules}


def as_it_is(model: Any) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs", "changed"),
    [
        ("resnet50", "resnet50", in_the_order_of_the_file),
        ("resnet101", "resnet101", in_the_order_of_the_file),
        ("vgg16", "vgg16", as_it_is),
        ("densenet121", "densenet121", as_it_is),
        ("squeezenet", "squeezenet1_1", as_it_is),
        ("inception_v3", "inception_v3", as_it_is),
    ],
)
def test_scores_and_gradients_are_torchvisions(name: str, theirs: str, changed: Callable[[Any], None]) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.get_model(theirs, weights=None, **({"init_weights": False} if "v3" in theirs else {}))
    changed(model)
    model.eval()
    if hasattr(model, "AuxLogits"):
        model.AuxLogits, model.aux_logits = None, False
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.1)
    net = Net(zoo.build(name, batch=1), TEST, dtype=torch.float64)  # where no rounding flips a ReLU
    with_values_of(net, model.double())
    given = fed(net, 1000)
    net.forward(**given)
    net.backward()
    scores = model(given["data"].double())
    torch.nn.functional.cross_entropy(scores, given["label"].long()).backward()
    loss = next(layer for layer in net.param.layer if layer.type == "SoftmaxWithLoss")
    torch.testing.assert_close(net.blobs[loss.bottom[0]].flatten(1), scores.detach())
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    torch.testing.assert_close(next(iter(net.params.values()))[0].diff, first.weight.grad)
