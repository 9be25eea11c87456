"""How well a net fits training images: by labels with the noise that it was trained on, and by the intact ones."""

from dataclasses import dataclass
from typing import Any

import torch

from imae.layers.data.image_set import ImageSetData
from imae.layers.layer import TEST
from imae.layers.loss.sample_loss import SampleLoss
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import NetParameter
from imae.solvers.solver import Solver

BATCH_SIZE = 500


@dataclass
class TrainingAccuracy:
    """Fractions of the training images whose predicted class is the label."""

    corrupted: float
    """Against the labels trained on."""
    intact: float
    """Against the labels as they were before the noise."""


def training_accuracy(solver: Solver, *, held_out: int = 0) -> TrainingAccuracy:
    """Return the accuracies over the training images, without augmentation, in the TEST phase (the paper's Table 2).

    With `held_out` they are over the last so many images of the training split instead, which must not be among the
    `subset` trained on. The net must read an image set (Cifar10Data, DigitsData) and end in a loss. Raises InputError
    otherwise.
    """
    data = next((step.layer for step in solver.net.steps if isinstance(step.layer, ImageSetData)), None)
    loss = next((step.layer for step in solver.net.steps if isinstance(step.layer, SampleLoss)), None)
    if data is None or loss is None or not solver.test_nets:
        raise InputError(f'net "{solver.net.name}": needs an image set, a loss and a test net')
    net = Net(
        _evaluation_net(solver.test_nets[0].param, data, held_out),
        TEST,
        device=solver.device,
        dtype=solver.net.context.dtype,
        folder=solver.folder,
        backward=False,
        plan="fused",
        tf32=None,
    )
    net.keep_blobs = False
    net.share_weights(solver.net)
    scores, label = loss.param.bottom
    evaluated = next(step.layer for step in net.steps if isinstance(step.layer, ImageSetData))
    evaluated.keep_last(held_out or evaluated.num_images)
    correct = torch.zeros(2, dtype=torch.int64, device=solver.device)
    for first in range(0, evaluated.num_images, BATCH_SIZE):
        values = net.forward()
        predicted = values[scores].flatten(1).argmax(1)
        wanted = torch.stack([values[label], values["intact"]])
        correct += (predicted == wanted)[:, : evaluated.num_images - first].sum(1)
    return TrainingAccuracy(*(correct / evaluated.num_images).tolist())


def _evaluation_net(test_net: NetParameter, train_data: ImageSetData, held_out: int) -> NetParameter:
    """The test net on the images trained on, or on the whole split where some are held out, in order.

    With the intact labels as a top; without loss and accuracy.
    """
    net = NetParameter()
    net.CopyFrom(test_net)
    net.ClearField("state")
    del net.layer[:]
    for layer in test_net.layer:
        if layer.type == train_data.type:
            replaced = net.layer.add()
            replaced.CopyFrom(train_data.param)
            replaced.ClearField("phase")
            replaced.ClearField("include")
            replaced.top.append("intact")
            settings: Any = getattr(replaced, train_data.field)
            settings.split, settings.intact_labels = settings.TRAIN, True
            settings.batch_size = min(BATCH_SIZE, held_out or train_data.num_images)
            if held_out:
                settings.subset = 0
        elif not set(layer.bottom) & {train_data.param.top[1]}:
            net.layer.add().CopyFrom(layer)
    return net
