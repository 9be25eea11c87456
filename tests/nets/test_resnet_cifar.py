"""The paper's ResNets are those of He et al. 2016, section 4.2, for CIFAR-10."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imae.nets.deploy import deploy
from imae.nets.digits_net import digits_net
from imae.nets.net import Net
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import SolverParameter
from imae.solvers.solver import Solver

SHAPE = (3, 32, 32)


def deployed(depth: int, **options: bool) -> Net:
    return Net(deploy(resnet_cifar(depth, "cce", **options), shape=SHAPE, outputs=["score"]), backward=False)


def learnable(net: Net) -> int:
    return sum(blob.data.numel() for blob in net.learnable if blob.lr_mult)


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_number_of_learnable_parameters(depth: int, count: int) -> None:
    net = deployed(depth)
    assert learnable(net) == count
    convolutions = [step for step in net.steps if step.layer.type == "Convolution"]
    assert len(convolutions) + 1 == depth


def test_projections_are_1x1_convolutions_where_the_width_changes() -> None:
    assert learnable(deployed(20, projection=True)) == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    ours = {"Shortcut"}
    assert ours.isdisjoint(layer.type for layer in resnet_cifar(20, "cce", projection=True).layer)


def he_et_al(x: Tensor, net: Net, blocks: int) -> Tensor:
    """Scores as section 4.2 describes them, written on PyTorch's functions with the net's weights."""

    def normalised_convolution(x: Tensor, name: str, stride: int = 1) -> Tensor:
        x = F.conv2d(x, net.params[name][0].data, stride=stride, padding=1)
        mean, var, count = (blob.data for blob in net.params[f"{name}_bn"])
        gamma, beta = (blob.data for blob in net.params[f"{name}_scale"])
        return F.batch_norm(x, mean / count, var / count, gamma, beta, eps=1e-5)

    x = F.relu(normalised_convolution(x, "conv1"))
    for stage, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(1, blocks + 1):
            name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
            y = F.relu(normalised_convolution(x, f"{name}_conv1", stride))
            y = normalised_convolution(y, f"{name}_conv2")
            shortcut = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, width - x.shape[1]))
            x = F.relu(y + shortcut)
    weight, bias = (blob.data for blob in net.params["score"])
    return F.linear(x.mean((2, 3)), weight, bias)


def test_scores_are_those_of_the_architecture_in_the_paper() -> None:
    net = deployed(32)
    generator = torch.Generator().manual_seed(0)
    for name, blobs in net.params.items():
        if name.endswith(("_bn", "_scale")):
            for blob in blobs:
                blob.data.uniform_(0.5, 1.5, generator=generator)
    x = torch.randn(2, *SHAPE, generator=generator)
    torch.testing.assert_close(net.forward(data=x)["score"], he_et_al(x, net, 5), rtol=1e-4, atol=1e-3)


def test_initial_weights_have_the_variance_of_fb_resnet_torch() -> None:
    net = deployed(56)
    for name in ("stage1_block2_conv1", "stage3_block1_conv1", "stage3_block5_conv2"):
        weight = net.params[name][0].data
        assert float(weight.std()) == pytest.approx((2 / (9 * weight.shape[0])) ** 0.5, rel=0.05)


def test_losses_and_noise_go_into_the_layers() -> None:
    net = resnet_cifar(20, "imae", T=0.5, noise_rate=0.2, noise_seed=7, source="there")
    train, test = net.layer[0], net.layer[1]
    assert (net.layer[-2].type, net.layer[-2].imae_param.T) == ("SoftmaxWithIMAELoss", 0.5)
    assert (train.cifar10_data_param.noise_seed, test.cifar10_data_param.HasField("noise_rate")) == (7, False)
    assert train.cifar10_data_param.noise_rate == pytest.approx(0.2)
    assert resnet_cifar(20, "gce", k=0.5, start_iter=100).layer[-2].gce_param.start_iter == 100
    assert resnet_cifar(20, "mae").layer[-2].type == "SoftmaxWithMAELoss"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((21, "cce"), {}, r"must be 6n \+ 2 \(20, 32, 44, 56, 110\), not 21"),
        ((2, "cce"), {}, "must be 6n"),
        ((20, "IMEA"), {}, 'no loss "IMEA"; expected one of cce, mae, gce, imae; did you mean "imae"?'),
        ((20, "mae"), {"T": 8}, 'SoftmaxWithMAELoss: there is no setting "T"'),
    ],
)
def test_a_user_is_told_what_is_wrong(arguments: tuple[int, str], options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resnet_cifar(*arguments, **options)


@pytest.mark.slow
def test_reaches_the_accuracy_that_digits_allow() -> None:
    param = SolverParameter(
        base_lr=0.1,
        lr_policy="multistep",
        gamma=0.1,
        stepvalue=[150],
        max_iter=200,
        momentum=0.9,
        weight_decay=0.001,
        test_iter=[5],
        test_interval=1000,
        random_seed=1,
    )
    param.net_param.CopyFrom(digits_net("cce"))
    solver = Solver(param)
    solver.step(200)
    assert solver.test_all()[0]["accuracy"] >= 0.96
