"""The accuracy of each class over all images of a test pass, beside the mean over its batches, which is Caffe's."""

import math
from collections.abc import Sequence

from imae.layers.loss.accuracy import Accuracy
from imae.nets.net import Net

SUFFIX = "_over_all_images"  # what the metrics append to the name of the mean over batches


def counting_layers(net: Net) -> dict[str, Accuracy]:
    """Return the layers of a net that count hits by class, by the name of the output whose mean is Caffe's."""
    layers = (step.layer for step in net.steps if isinstance(step.layer, Accuracy) and step.layer.state)
    return {layer.param.top[1]: layer for layer in layers if layer.param.top[1] in net.outputs}


def clear_counts(net: Net) -> None:
    """Forget what was counted: a test pass begins."""
    for layer in counting_layers(net).values():
        layer.reset()


def over_all_images(net: Net) -> dict[str, list[float]]:
    """Return the accuracies of each class over all that was counted, by output; NaN for a class without an image."""
    return {name: layer.of_each_class().tolist() for name, layer in counting_layers(net).items()}


def remark(accuracies: Sequence[float], label: int) -> str:
    """Return what follows the mean over batches of class `label`: which it is, and the one over all images."""
    value = accuracies[label]
    true = "it has no image" if math.isnan(value) else f"over all images {value:g}"
    return f" (class {label}, mean over batches as in Caffe; {true})"
