"""A siamese net of MNIST's digits: Hadsell, Chopra and LeCun 2006, "Dimensionality reduction by learning an invariant
mapping".

As examples/siamese of BVLC/caffe has it, with its names: two LeNets, whose parameters are shared, bring pairs of like
digits together in the plane and others apart by a margin of 1; 431,102 parameters.
"""

from typing import Any

from imae.nets.zoo.blocks import XAVIER, inputs, pool, relu
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter


def siamese(*, classes: int = 2, batch: int = 64) -> NetParameter:
    """Return the net for `batch` pairs of 28 x 28 digits, side by side as two channels, and `sim`, 1 for like ones.

    `classes` is the number of features that a digit gets, the coordinates of its place.
    """
    n = NetSpec()
    pairs, similar = inputs(n, pair_data=(batch, 2, 28, 28), sim=(batch,))
    n.data, n.data_p = one, other = L.Slice(pairs, axis=1, slice_point=1, ntop=2)
    n.loss = L.ContrastiveLoss(_lenet(n, one, "", classes), _lenet(n, other, "_p", classes), similar, margin=1)
    return n.to_proto("siamese")


def _lenet(n: NetSpec, data: Top, suffix: str, outputs: int) -> Top:
    """Add a LeNet, whose layers' names end in `suffix`, with the parameters of all others."""
    top = data
    for i, channels in ((1, 20), (2, 50)):
        n[f"conv{i}{suffix}"] = L.Convolution(top, num_output=channels, kernel_size=5, **_shared(f"conv{i}"))
        top = pool(n, f"pool{i}{suffix}", n[f"conv{i}{suffix}"], kernel=2)
    n[f"ip1{suffix}"] = L.InnerProduct(top, num_output=500, **_shared("ip1"))
    top = relu(n, f"relu1{suffix}", n[f"ip1{suffix}"])
    n[f"ip2{suffix}"] = L.InnerProduct(top, num_output=10, **_shared("ip2"))
    return named(n, f"feat{suffix}", L.InnerProduct(n[f"ip2{suffix}"], num_output=outputs, **_shared("feat")))


def _shared(name: str) -> dict[str, Any]:
    """Weights and biases that all layers of this name in their `param` share."""
    return {
        "param": [{"name": f"{name}_w", "lr_mult": 1}, {"name": f"{name}_b", "lr_mult": 2}],
        "weight_filler": XAVIER,
    }
