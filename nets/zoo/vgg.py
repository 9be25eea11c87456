"""VGG-16: Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image recognition".

Configuration D of Table 1, with the names of VGG_ILSVRC_16_layers_deploy.prototxt: 138,357,544 parameters (Table 2: 138
million). It begins at Glorot and Bengio's weights, with which the authors found that no shallower net need come first.
"""

from imae.nets.zoo.blocks import convolution, dropout, images, inner_product, pool, relu, scored
from imae.prototxt_like.net_spec import NetSpec, Top
from imae.prototxt_like.schema import NetParameter

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of the 3 x 3 convolutions before each pooling."""


def vgg16(*, classes: int = 1000, batch: int = 64) -> NetParameter:
    """Return VGG-16 for `batch` images of 3 x 224 x 224."""
    n = NetSpec()
    data, label = images(n, batch, 3, 224, 224)
    top = convolutions(n, data)
    for i in (6, 7):
        top = dropout(n, f"drop{i}", relu(n, f"relu{i}", inner_product(n, f"fc{i}", top, 4096)))
    scored(n, inner_product(n, "fc8", top, classes), label)
    return n.to_proto("VGG-16")


def convolutions(n: NetSpec, data: Top, first_pad: int = 1) -> Top:
    """Add all layers from the images to `pool5`, and return that; the first convolution is padded by `first_pad`."""
    top, pad = data, first_pad
    for block, (channels, count) in enumerate(BLOCKS, 1):
        for i in range(1, count + 1):
            top, pad = convolution(n, f"conv{block}_{i}", top, channels, 3, pad=pad), 1
        top = pool(n, f"pool{block}", top, kernel=2)
    return top
