"""DeepLab-LargeFOV: Chen et al. 2015, "Semantic image segmentation with deep convolutional nets", for PASCAL VOC.

VGG-16 whose last two poolings keep the size, dilated behind them, and a field of view of 224 pixels, without the CRF,
with the names of DeepLab-LargeFOV in its authors' Caffe: 20.5 million parameters (Table 2). Its poolings are of 3 x 3.
"""

from imae.nets.zoo.blocks import WEIGHT_AND_BIAS, convolution, dropout, gaussian, inputs, pool
from imae.nets.zoo.vgg import BLOCKS
from imae.prototxt_like.net_spec import L, NetSpec
from imae.prototxt_like.schema import NetParameter


def deeplab(*, classes: int = 21, batch: int = 1, size: int = 321) -> NetParameter:
    """Return DeepLab-LargeFOV for `batch` images of 3 x `size` x `size`, with a label a pixel, 255 for none.

    It trains on the labels of every eighth pixel: `size` is one more than a multiple of 8.
    """
    n = NetSpec()
    data, label = inputs(n, data=(batch, 3, size, size), label=(batch, 1, size, size))
    top = data
    for block, (channels, count) in enumerate(BLOCKS, 1):
        spread = 2 if block == len(BLOCKS) else 1
        for i in range(1, count + 1):
            top = convolution(n, f"conv{block}_{i}", top, channels, 3, pad=spread, dilation=spread)
        top = pool(n, f"pool{block}", top, stride=2 if block <= 3 else 1, pad=1)
    top = pool(n, "pool5a", top, "AVE", stride=1, pad=1)
    top = dropout(n, "drop6", convolution(n, "fc6", top, 1024, 3, pad=12, dilation=12))
    top = dropout(n, "drop7", convolution(n, "fc7", top, 1024))
    n.fc8_voc12 = L.Convolution(
        top, num_output=classes, kernel_size=1, param=WEIGHT_AND_BIAS, weight_filler=gaussian(0.01)
    )
    training, testing = {"phase": "TRAIN"}, {"phase": "TEST"}
    n.label_shrink = L.Interp(label, interp_param={"shrink_factor": 8}, include=training, propagate_down=False)
    n.loss = L.SoftmaxWithLoss(n.fc8_voc12, n.label_shrink, ignore_label=255, include=training)
    n.fc8_interp = L.Interp(n.fc8_voc12, interp_param={"zoom_factor": 8}, include=testing)
    n.accuracy = L.Accuracy(n.fc8_interp, label, ignore_label=255, include=testing)
    return n.to_proto("DeepLab-LargeFOV")
