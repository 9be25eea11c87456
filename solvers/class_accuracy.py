"""A net's outputs in words, with the accuracy of each class over all images beside Caffe's mean over batches."""

import math
from collections.abc import Iterator, Mapping, Sequence

from imae.layers.loss.accuracy import Accuracy
from imae.nets.net import Net
from imae.solvers.divergence import loss_weights

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


def output_lines(net: Net, outputs: Mapping[str, Sequence[float]], *, over_all: bool) -> Iterator[str]:
    """Give a line for each element of each output: its value and its part in the loss.

    With `over_all` also what it is `over_all_images`, where it is the accuracy of a class.
    """
    weights, accuracies = loss_weights(net), over_all_images(net) if over_all else {}
    for name, values in outputs.items():
        for place, value in enumerate(values):
            weight = weights[name]
            part = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            if name in accuracies:
                true = accuracies[name][place]
                said = "it has no image" if math.isnan(true) else f"over all images {true:g}"
                part += f" (class {place}, mean over batches as in Caffe; {said})"
            yield f"{name} = {value:g}{part}"
