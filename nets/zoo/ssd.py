"""SSD300: Liu et al. 2016, "SSD: Single shot multibox detector", for PASCAL VOC, as it detects.

VGG-16 with its fully connected layers as dilated convolutions, four smaller maps behind it, and on six maps the offsets
and scores of 8,732 default boxes, with the names of VGG_VOC0712_SSD_300x300 in weiliu89/caffe, branch ssd: 26,285,486
parameters. Its loss, MultiBoxLoss, is not among our layers: the net has no end to train by.
"""

from typing import NamedTuple

from imae.nets.zoo.blocks import WEIGHT_AND_BIAS, XAVIER, constant, convolution, inputs, pool
from imae.nets.zoo.vgg import BLOCKS
from imae.prototxt_like.net_spec import L, NetSpec, Top
from imae.prototxt_like.schema import NetParameter


class Source(NamedTuple):
    """A map that boxes are predicted from, and these boxes, in pixels of the image."""

    name: str
    smallest: int
    largest: int
    step: int
    ratios: tuple[int, ...]


SOURCES = (
    Source("conv4_3_norm", 30, 60, 8, (2,)),
    Source("fc7", 60, 111, 16, (2, 3)),
    Source("conv6_2", 111, 162, 32, (2, 3)),
    Source("conv7_2", 162, 213, 64, (2, 3)),
    Source("conv8_2", 213, 264, 100, (2,)),
    Source("conv9_2", 264, 315, 300, (2,)),
)
SMALLER = ((6, 256, 512, 2), (7, 128, 256, 2), (8, 128, 256, 1), (9, 128, 256, 1))
"""Number, channels of the 1 x 1 and of the 3 x 3 convolution, and stride, of what follows fc7."""


def ssd300(*, classes: int = 21, batch: int = 1) -> NetParameter:
    """Return SSD300 for `batch` images of 3 x 300 x 300; class 0 is the background."""
    n = NetSpec()
    (data,) = inputs(n, data=(batch, 3, 300, 300))
    top = data
    for block, (channels, count) in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            top = convolution(n, f"conv{block}_{i}", top, channels, 3, pad=1)
        top = pool(n, "pool5", top, stride=1, pad=1) if block == len(BLOCKS) else pool(n, f"pool{block}", top, kernel=2)
    top = convolution(n, "fc7", convolution(n, "fc6", top, 1024, 3, pad=6, dilation=6), 1024)
    for number, narrow, wide, stride in SMALLER:
        top = convolution(n, f"conv{number}_1", top, narrow)
        top = convolution(n, f"conv{number}_2", top, wide, 3, stride=stride, pad=1 if stride == 2 else 0)
    scale = {"across_spatial": False, "channel_shared": False, "scale_filler": constant(20)}
    n.conv4_3_norm = L.Normalize(n.conv4_3, norm_param=scale)
    for source in SOURCES:
        _predict(n, source, data, classes)
    n.mbox_loc = L.Concat(*(n[f"{source.name}_mbox_loc_flat"] for source in SOURCES), axis=1)
    n.mbox_conf = L.Concat(*(n[f"{source.name}_mbox_conf_flat"] for source in SOURCES), axis=1)
    n.mbox_priorbox = L.Concat(*(n[f"{source.name}_mbox_priorbox"] for source in SOURCES), axis=2)
    n.mbox_conf_reshape = L.Reshape(n.mbox_conf, shape={"dim": [0, -1, classes]})
    n.mbox_conf_softmax = L.Softmax(n.mbox_conf_reshape, axis=2)
    n.mbox_conf_flatten = L.Flatten(n.mbox_conf_softmax, axis=1)
    detection = {
        "num_classes": classes,
        "code_type": "CENTER_SIZE",
        "keep_top_k": 200,
        "confidence_threshold": 0.01,
        "nms_param": {"nms_threshold": 0.45, "top_k": 400},
    }
    n.detection_out = L.DetectionOutput(
        n.mbox_loc, n.mbox_conf_flatten, n.mbox_priorbox, detection_output_param=detection, include={"phase": "TEST"}
    )
    return n.to_proto("VGG_VOC0712_SSD_300x300_deploy")


def _predict(n: NetSpec, source: Source, data: Top, classes: int) -> None:
    """Add offsets and scores of a map's boxes, each position's together, and the boxes."""
    boxes = 2 + 2 * len(source.ratios)
    for what, each in (("loc", 4), ("conf", classes)):
        name = f"{source.name}_mbox_{what}"
        n[name] = L.Convolution(
            n[source.name],
            num_output=boxes * each,
            kernel_size=3,
            pad=1,
            weight_filler=XAVIER,
            param=WEIGHT_AND_BIAS,
        )
        n[f"{name}_perm"] = L.Permute(n[name], order=[0, 2, 3, 1])
        n[f"{name}_flat"] = L.Flatten(n[f"{name}_perm"], axis=1)
    prior = {
        "min_size": source.smallest,
        "max_size": source.largest,
        "aspect_ratio": source.ratios,
        "step": source.step,
    }
    prior |= {"variance": [0.1, 0.1, 0.2, 0.2]}
    n[f"{source.name}_mbox_priorbox"] = L.PriorBox(n[source.name], data, prior_box_param=prior)
