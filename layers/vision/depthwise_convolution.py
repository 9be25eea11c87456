"""DepthwiseConvolution and ConvolutionDepthwise, of MobileNet's Caffes: convolutions of each channel by itself."""

from imae.layers.layer import Shapes
from imae.layers.vision.convolution import Convolution
from imae.prototxt_like.schema import LayerParameter


class DepthwiseConvolution(Convolution):
    """Convolution, by its `convolution_param`: `group` says that each channel is by itself; blobs as Convolution's."""

    type = "DepthwiseConvolution"


class ConvolutionDepthwise(Convolution):
    """Convolution with as many groups as channels, whatever `group` says, and `num_output` equal to them."""

    type = "ConvolutionDepthwise"

    def setup(self, bottoms: Shapes) -> None:
        param, channels = self.param.convolution_param, bottoms[0][1] if len(bottoms[0]) > 1 else 0
        if param.num_output != channels:
            raise self.error(f"num_output {param.num_output} must be the number of channels, {channels}")
        given, self.param = self.param, LayerParameter()
        self.param.CopyFrom(given)
        self.param.convolution_param.group = channels
        super().setup(bottoms)
