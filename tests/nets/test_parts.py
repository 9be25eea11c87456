"""A batch in parts comes to what it does as a whole: outputs, gradients, running statistics."""

import weakref

import pytest
import torch
from test_plan import BLOCK, END, EXAMPLES, example

from imae.layers.layer import TEST, TRAIN
from imae.nets import parts
from imae.nets.net import Net
from imae.nets.parts import InParts
from imae.prototxt_like.text import parse_net

IMAGES = 5
BRANCHES = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 5 dim: 4 dim: 8 dim: 8 } } }
layer { name: "norm0" type: "BatchNorm" bottom: "data" top: "norm0" }
layer { name: "relu0" type: "ReLU" bottom: "norm0" top: "norm0" }
layer { name: "a" type: "Convolution" bottom: "norm0" top: "a"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "norm_a" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "scale_a" type: "Scale" bottom: "a" top: "a"
  scale_param { filler { type: "uniform" min: 0.5 max: 2 } } }
layer { name: "b" type: "Convolution" bottom: "norm0" top: "b"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "msra" } bias_filler { type: "gaussian" } } }
layer { name: "relu_b" type: "ReLU" bottom: "b" top: "b" }
layer { name: "both" type: "Concat" bottom: "a" bottom: "b" top: "both" }
layer { name: "norm" type: "BatchNorm" bottom: "both" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "shortcut" type: "Shortcut" bottom: "both" top: "shortcut" shortcut_param { num_output: 9 stride: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "pool" bottom: "shortcut" top: "sum" }
layer { name: "a_out" type: "InnerProduct" bottom: "a" top: "a_out"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } loss_weight: 1 }
layer { name: "out" type: "InnerProduct" bottom: "sum" top: "out"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } loss_weight: 0.5 }
"""
"""A run that begins with a normalisation, forks, joins, and makes two values that others read."""


@pytest.fixture(params=[1, 2])
def images_a_part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """However large the images are: 5 of them make 5 or 3 parts."""
    size = int(request.param)
    monkeypatch.setattr(InParts, "images_a_part", lambda self, images: min(size, images))
    return size


def compare(whole: Net, cut: Net, *passes: dict[str, torch.Tensor], backward: bool = True) -> None:
    """Run both, the second without keeping blobs, and compare what is left."""
    cut.keep_blobs = False
    assert any(isinstance(step.layer, InParts) for step in cut.plan)
    for given in passes:
        outputs = []
        for net in (whole, cut):
            net.clear_diffs()
            outputs.append(net.forward(**given))
            if backward:
                net.backward()
        torch.testing.assert_close(outputs[1], outputs[0])
        torch.testing.assert_close(cut.loss, whole.loss)
        torch.testing.assert_close(cut.storage.data, whole.storage.data)
        torch.testing.assert_close(cut.storage.diff, whole.storage.diff)
    assert not any(step.saved for step in cut.plan if step.backward)


def block(phase: int, *, backward: bool = True, bias: str = "true", dtype: torch.dtype = torch.float64) -> list[Net]:
    text = BLOCK % {"bias": bias, "scale_bias": bias} + END % "IMAELoss"
    nets = [Net(parse_net(text), phase, plan=p, backward=backward, seed=4, dtype=dtype) for p in ("plain", "fused")]
    nets[1].copy_weights(nets[0].to_proto())
    return nets


def batch(images: int, channels: int = 3, size: int = 9) -> dict[str, torch.Tensor]:
    return {"data": torch.randn(images, channels, size, size), "label": torch.randint(5, (images,))}


@pytest.mark.parametrize("bias", ["true", "false"])
def test_a_block_trains_the_same(bias: str, images_a_part: int) -> None:
    compare(*block(TRAIN, bias=bias), batch(IMAGES), batch(IMAGES))


def test_single_precision_loses_no_more_than_the_whole_batch_does(images_a_part: int) -> None:
    """Where the mean is a hundred deviations: the mean of squares would leave no digits of the variance."""
    torch.manual_seed(0)
    given = batch(IMAGES)
    given["data"] = given["data"] / 100 + 1
    exact, cut = block(TRAIN)[0], block(TRAIN, dtype=torch.float32)[1]
    whole = block(TRAIN, dtype=torch.float32)[1]
    cut.keep_blobs = False
    exact.params["conv1"][0].data.abs_()
    for net in (whole, cut):
        net.copy_weights(exact.to_proto())
    for net in (exact, whole, cut):
        net.forward(**given)
        net.backward()
    for values in ("data", "diff"):
        truth, *others = (getattr(net.storage, values).double() for net in (exact, whole, cut))
        of_whole, of_cut = ((other - truth).norm() for other in others)
        assert of_cut < 2 * of_whole < 1e-2 * truth.norm()


def test_the_test_phase_is_the_same_on_any_number_of_images(images_a_part: int) -> None:
    compare(*block(TEST, backward=False), batch(IMAGES), batch(2), batch(1), backward=False)


def test_branches_and_what_others_read_are_the_same(images_a_part: int) -> None:
    nets = [Net(parse_net(BRANCHES), TRAIN, plan=plan, seed=1, dtype=torch.float64) for plan in ("plain", "fused")]
    compare(*nets, {"data": torch.randn(IMAGES, 4, 8, 8)})


def test_the_gradient_by_the_input_is_the_same(images_a_part: int) -> None:
    text = "force_backward: true\n" + BRANCHES
    whole, cut = (Net(parse_net(text), TRAIN, plan=plan, seed=1, dtype=torch.float64) for plan in ("plain", "fused"))
    cut.keep_blobs = False
    cut._keep_blobs = True  # of the values that there are
    for net in (whole, cut):
        net.forward(data=torch.randn(IMAGES, 4, 8, 8, generator=torch.Generator().manual_seed(1)))
        net.backward()
    (step,) = (step for step in cut.plan if isinstance(step.layer, InParts))
    assert step.needs == [True]
    torch.testing.assert_close(cut.diffs["data"], whole.diffs["data"])


@pytest.mark.parametrize("name, size", [("digits/digits", 8), ("cifar10/resnet20", 16)])
def test_example_nets_train_the_same(name: str, size: int, images_a_part: int) -> None:
    param = example(EXAMPLES / f"{name}.prototxt", size)
    nets = [Net(param, TRAIN, plan=plan, dtype=torch.float64, seed=1) for plan in ("plain", "fused")]
    compare(*nets, batch(3, nets[0].shapes[0][1], size))


def test_small_values_blobs_to_keep_and_the_plain_plan_are_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(net: Net) -> bool:
        return any(isinstance(step.layer, InParts) for step in net.plan)

    plain, fused = block(TRAIN)
    plain.keep_blobs = fused.keep_blobs = False
    assert not cut(plain) and not cut(fused)
    monkeypatch.setattr(parts, "PART_BYTES", 8 * 8 * 9 * 9)  # of one image, in double precision
    plain, fused = block(TRAIN)
    assert not cut(fused)
    plain.keep_blobs = fused.keep_blobs = False
    assert cut(fused) and not cut(plain)
    fused.keep_blobs = True
    assert not cut(fused)


def test_a_net_is_freed_with_the_last_reference_to_it(images_a_part: int, no_garbage_collection: None) -> None:
    """As sweeps make many, not at some time later."""
    _, net = block(TRAIN)
    net.keep_blobs = False
    net.forward(**batch(IMAGES))
    net.backward()
    left = weakref.ref(net)
    del net
    assert left() is None


def test_parts_are_alike_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 64 * 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    layer = InParts(block(TRAIN)[1].plan[2:4], [0], [1], largest=1)
    assert [layer.images_a_part(images) for images in (1, 64, 100, 128, 129)] == [1, 64, 50, 64, 43]
    layer = InParts(block(TRAIN)[1].plan[2:4], [0], [1], largest=1000)
    assert layer.images_a_part(7) == 1


def test_steps_are_told_of_when_their_gradients_are_complete(images_a_part: int) -> None:
    _, net = block(TRAIN)
    net.keep_blobs = False
    told: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def complete(step: object) -> None:
        diffs = [blob.diff for blob in step.layer.blobs]  # type: ignore[attr-defined]
        told.append((diffs, [diff.clone() for diff in diffs]))

    net.after_backward = complete
    net.forward(**batch(IMAGES))
    net.backward()
    assert len(told) > len(net.plan)
    for diffs, then in told:
        torch.testing.assert_close(diffs, then, rtol=0, atol=0)
