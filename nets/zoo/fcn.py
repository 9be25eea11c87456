"""FCN-8s: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation", for PASCAL VOC.

VGG-16 as convolutions, whose scores at strides 32, 16 and 8 are added up, with the names, pads and offsets of voc-fcn8s
in shelhamer/fcn.berkeleyvision.org: 134 million parameters (Table 1), of which 134,362,751 learn. Upsampling is fixed
and bilinear, as there, but by one kernel a class: the published 21 x 21 kernels are zero but for these.
"""

from imae.nets.zoo.blocks import WEIGHT_AND_BIAS, constant, convolution, dropout, inputs
from imae.nets.zoo.vgg import convolutions
from imae.prototxt_like.net_spec import L, NetSpec, Top, named
from imae.prototxt_like.schema import NetParameter


def fcn8s(*, classes: int = 21, batch: int = 1, size: int = 500) -> NetParameter:
    """Return FCN-8s for `batch` images of 3 x `size` x `size`, each pixel with a label, 255 where none counts."""
    n = NetSpec()
    data, label = inputs(n, data=(batch, 3, size, size), label=(batch, 1, size, size))
    top = convolutions(n, data, first_pad=100)
    top = dropout(n, "drop6", convolution(n, "fc6", top, 4096, 7))
    top = dropout(n, "drop7", convolution(n, "fc7", top, 4096))
    top = _enlarged(n, "upscore2", _scores(n, "score_fr", top, classes), classes, 4, 2)
    top = _fused(n, 4, top, _scores(n, "score_pool4", n.pool4, classes), offset=5)
    top = _enlarged(n, "upscore_pool4", top, classes, 4, 2)
    top = _fused(n, 3, top, _scores(n, "score_pool3", n.pool3, classes), offset=9)
    n.score = score = L.Crop(_enlarged(n, "upscore8", top, classes, 16, 8), data, axis=2, offset=31)
    n.loss = L.SoftmaxWithLoss(score, label, ignore_label=255, normalize=False)
    n.accuracy = L.Accuracy(score, label, ignore_label=255, include={"phase": "TEST"})
    return n.to_proto("FCN-8s")


def _scores(n: NetSpec, name: str, bottom: Top, classes: int) -> Top:
    """The score of each class at each place, which begins at zero."""
    return named(
        n,
        name,
        L.Convolution(bottom, num_output=classes, kernel_size=1, param=WEIGHT_AND_BIAS, weight_filler=constant(0)),
    )


def _enlarged(n: NetSpec, name: str, bottom: Top, classes: int, kernel: int, stride: int) -> Top:
    """Bilinear interpolation, which does not learn."""
    return named(
        n,
        name,
        L.Deconvolution(
            bottom,
            num_output=classes,
            group=classes,
            kernel_size=kernel,
            stride=stride,
            bias_term=False,
            weight_filler={"type": "bilinear"},
            param={"lr_mult": 0, "decay_mult": 0},
        ),
    )


def _fused(n: NetSpec, pool: int, coarse: Top, fine: Top, offset: int) -> Top:
    """The sum of the coarse scores and of those of a pooling, cut to their size."""
    n[f"score_pool{pool}c"] = cut = L.Crop(fine, coarse, axis=2, offset=offset)
    return named(n, f"fuse_pool{pool}", L.Eltwise(coarse, cut, operation="SUM"))
