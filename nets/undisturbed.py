"""Passes that leave no trace in a net."""

from collections.abc import Iterator
from contextlib import contextmanager

from imae.layers.layer import Layer
from imae.layers.normalization.batch_norm import BatchNorm
from imae.layers.normalization.bn import BN
from imae.layers.utility.python import Python
from imae.nets.net import Net


@contextmanager
def undisturbed(net: Net) -> Iterator[None]:
    """Have a net that begins with Input layers be, after the body, as it was, whatever forward passes run in it.

    That is: the inputs' shapes, hidden values, the number of the pass, the loss, `observer` and `keep_blobs`, and what
    layers move in their blobs, such as BatchNorm the sums of the batches' statistics. Of `blobs` what a body with
    `keep_blobs` on leaves stays.
    """
    layers = [step.layer for step in net.steps]
    shapes = {name: net.shapes[index] for name, index in net.input_values.items()}
    moved = [(blob.data, blob.data.clone()) for layer in layers if _moves(layer) for blob in layer.blobs]
    states = [[value.clone() for value in layer.state] for layer in layers]
    before = net.observer, net.keep_blobs, net.loss, net.context.passes.number
    try:
        yield
    finally:
        net.observer, net.keep_blobs, net.loss, net.context.passes.number = before
        net.reshape(**shapes)
        for layer, values in zip(layers, states, strict=True):
            moved += zip(layer.state, values, strict=True)
        for data, value in moved:
            data.copy_(value)


def _moves(layer: Layer) -> bool:
    """Whether its forward may change its blobs."""
    return isinstance(layer, Python) or (isinstance(layer, BatchNorm | BN) and not layer.use_global)
