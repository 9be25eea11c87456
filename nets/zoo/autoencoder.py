"""An autoencoder of MNIST's digits: Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural
networks".

784-1000-500-250-30 and back, as examples/mnist/mnist_autoencoder.prototxt of BVLC/caffe has it, with its names:
2,837,314 parameters.
"""

from imae.nets.zoo.blocks import inputs
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter

WIDTHS = (1000, 500, 250)
PIXELS = 28


def autoencoder(*, classes: int = 30, batch: int = 100) -> NetParameter:
    """Return the net for `batch` digits of 1 x 28 x 28, from 0 to 1; `classes` is the width of the code in the middle.

    The loss is the cross entropy of the pixels; the squared distance is told beside it.
    """
    n = NetSpec()
    (data,) = inputs(n, data=(batch, 1, PIXELS, PIXELS))
    n.flatdata = top = L.Flatten(data)
    for i, width in enumerate(WIDTHS, 1):
        top = _sigmoid(n, f"encode{i}", _linear(n, f"encode{i}", top, width))
    top = _linear(n, "encode4", top, classes)
    for i, width in reversed([*enumerate(WIDTHS, 2)]):
        top = _sigmoid(n, f"decode{i}", _linear(n, f"decode{i}", top, width))
    logits = _linear(n, "decode1", top, PIXELS * PIXELS)
    n.cross_entropy_loss = L.SigmoidCrossEntropyLoss(logits, n.flatdata, loss_weight=1)
    n.l2_error = L.EuclideanLoss(_sigmoid(n, "decode1", logits), n.flatdata, loss_weight=0)
    return n.to_proto("MNISTAutoencoder")


def _linear(n: NetSpec, name: str, bottom: Top, outputs: int) -> Top:
    """About 15 inputs of each output have a weight at first; biases do not decay."""
    return named(
        n,
        name,
        L.InnerProduct(
            bottom,
            num_output=outputs,
            param=[{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 1, "decay_mult": 0}],
            weight_filler={"type": "gaussian", "std": 1, "sparse": min(15, outputs)},
        ),
    )


def _sigmoid(n: NetSpec, name: str, bottom: Top) -> Top:
    return named(n, f"{name}neuron", L.Sigmoid(bottom))
