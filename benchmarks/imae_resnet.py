"""Our side of the comparisons: ResNet for CIFAR-10, trained or predicting, fed from memory."""

from collections.abc import Callable

import torch

from imae.layers.normalization.batch_norm import BatchNorm
from imae.nets.deploy import deploy
from imae.nets.memory import keep_freed_memory
from imae.nets.net import Net
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import TEST, SolverParameter
from imae.solvers.solver import Solver

IMAGE = (3, 32, 32)


def solver(depth: int, batch: int, plan: str = "fused", dtype: torch.dtype = torch.float32) -> Solver:
    """Return the solver of the paper's CIFAR-10 net with its data layers replaced by inputs."""
    net = resnet_cifar(depth, "cce")
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, *IMAGE]})
    n.label = L.Input(shape={"dim": [batch]})
    fed = n.to_proto(net.name)
    fed.layer.extend(layer for layer in net.layer if layer.type not in ("Cifar10Data", "Accuracy"))
    settings = {"base_lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "lr_policy": "fixed", "random_seed": 1}
    return Solver(SolverParameter(net_param=fed, **settings), plan=plan, dtype=dtype)


def iteration(solver: Solver) -> Callable[[], None]:
    """Return forward, backward and update on one batch of noise."""
    net = solver.net
    data, label = torch.randn(net.shapes[net.newest["data"]]), torch.randint(10, net.shapes[net.newest["label"]])

    def iterate() -> None:
        net.clear_diffs()
        net.forward(data=data, label=label)
        net.backward()
        solver.update.apply(0.1)

    return iterate


def training(depth: int, batch: int, plan: str = "fused", dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """Return one training iteration, with memory kept from one to the next as `imae train` does."""
    keep_freed_memory()
    return iteration(solver(depth, batch, plan, dtype))


def predictor(depth: int, batch: int) -> Net:
    """Return the net that predicts, with the same weights for any `batch`, its running variances 1."""
    param = deploy(resnet_cifar(depth, "cce"), shape=IMAGE)
    param.layer[0].input_param.shape[0].dim[0] = batch
    net = Net(param, TEST, backward=False, plan="fused")
    net.keep_blobs = False
    for step in net.steps:
        if isinstance(step.layer, BatchNorm):
            _, var, weight = step.layer.blobs
            var.data.fill_(1.0)
            weight.data.fill_(1.0)
    return net
