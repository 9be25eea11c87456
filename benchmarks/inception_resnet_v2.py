"""Inception-ResNet-v2 (Szegedy et al. 2016, Figures 3, 7 and 16 to 19, Table 1): the large net of the measurements.

python -m benchmarks.inception_resnet_v2 > inception_resnet_v2.prototxt
"""

from collections.abc import Sequence

from imae.prototxt_like.net_spec import L, NetSpec, Top
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import format_text

RESIDUAL_SCALE = 0.2
"""Section 3.3: 0.1 to 0.3."""
Kernel = int | tuple[int, int]


def inception_resnet_v2(batch: int = 32, *, blocks: Sequence[int] = (5, 10, 5), classes: int = 1000) -> NetParameter:
    """Return the net for `batch` images of 3 x 299 x 299, with so many `blocks` of Inception-ResNet-A, -B and -C.

    Each convolution is followed by BatchNorm, Scale and ReLU, but for the last of a residual block, which has a bias
    instead (section 3.2). The figures print 1154 and 2048 channels where reductions A and B leave 1152 and 2144.
    """
    n = NetSpec()
    n.data, n.label = L.Input(shape={"dim": [batch, 3, 299, 299]}), L.Input(shape={"dim": [batch]})
    top = _stem(n)
    for name in (f"a{number}" for number in range(1, blocks[0] + 1)):
        one = _chain(n, f"{name}_1", top, (32, 1))
        two = _chain(n, f"{name}_2", top, (32, 1), (32, 3))
        three = _chain(n, f"{name}_3", top, (32, 1), (48, 3), (64, 3))
        top = _residual(n, name, 384, top, one, two, three)
    two = _reduce(n, "reduction_a_2", top, 384)
    three = _reduce(n, "reduction_a_3", _chain(n, "reduction_a_3", top, (256, 1), (256, 3)), 384)
    top = _concat(n, "reduction_a", _pool(n, "reduction_a_1", top), two, three)
    for name in (f"b{number}" for number in range(1, blocks[1] + 1)):
        one = _chain(n, f"{name}_1", top, (192, 1))
        two = _chain(n, f"{name}_2", top, (128, 1), (160, (1, 7)), (192, (7, 1)))
        top = _residual(n, name, 1152, top, one, two)
    two = _reduce(n, "reduction_b_2", _chain(n, "reduction_b_2", top, (256, 1)), 384)
    three = _reduce(n, "reduction_b_3", _chain(n, "reduction_b_3", top, (256, 1)), 288)
    four = _reduce(n, "reduction_b_4", _chain(n, "reduction_b_4", top, (256, 1), (288, 3)), 320)
    top = _concat(n, "reduction_b", _pool(n, "reduction_b_1", top), two, three, four)
    for name in (f"c{number}" for number in range(1, blocks[2] + 1)):
        one = _chain(n, f"{name}_1", top, (192, 1))
        two = _chain(n, f"{name}_2", top, (192, 1), (224, (1, 3)), (256, (3, 1)))
        top = _residual(n, name, 2144, top, one, two)
    n.pool = L.Pooling(top, pool="AVE", global_pooling=True)
    n.drop = L.Dropout(n.pool, dropout_ratio=0.2, in_place=True)
    n.score = L.InnerProduct(n.drop, num_output=classes, weight_filler={"type": "msra"})
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto("Inception-ResNet-v2")


def _stem(n: NetSpec) -> Top:
    """Figure 3: 3 x 299 x 299 to 384 x 35 x 35."""
    top = _convolution(n, "stem_1", n.data, 32, 3, stride=2, same=False)
    top = _convolution(n, "stem_2", top, 32, 3, same=False)
    top = _convolution(n, "stem_3", top, 64, 3)
    top = _concat(n, "stem_4", _pool(n, "stem_4_1", top), _reduce(n, "stem_4_2", top, 96))
    short = _chain(n, "stem_5_1", top, (64, 1))
    long = _chain(n, "stem_5_2", top, (64, 1), (64, (7, 1)), (64, (1, 7)))
    ends = [_convolution(n, f"stem_5_{i}_end", end, 96, 3, same=False) for i, end in enumerate((short, long), 1)]
    top = _concat(n, "stem_5", *ends)
    return _concat(n, "stem_6", _reduce(n, "stem_6_1", top, 192), _pool(n, "stem_6_2", top))


def _residual(n: NetSpec, name: str, channels: int, bottom: Top, *branches: Top) -> Top:
    """Figures 16, 17 and 19: the branches side by side, a linear 1x1 convolution, and the scaled sum's ReLU."""
    n[f"{name}_up"] = up = L.Convolution(
        _concat(n, f"{name}_concat", *branches), num_output=channels, kernel_size=1, weight_filler={"type": "msra"}
    )
    n[name] = L.Eltwise(bottom, up, operation="SUM", coeff=[1.0, RESIDUAL_SCALE])
    relu: Top = L.ReLU(n[name], in_place=True)
    n[f"{name}_relu"] = relu
    return relu


def _chain(n: NetSpec, name: str, bottom: Top, *convolutions: tuple[int, Kernel]) -> Top:
    """Convolutions of (channels, kernel), one after the other."""
    for number, (channels, kernel) in enumerate(convolutions, 1):
        bottom = _convolution(n, f"{name}_{number}", bottom, channels, kernel)
    return bottom


def _reduce(n: NetSpec, name: str, bottom: Top, channels: int) -> Top:
    """A 3x3 convolution that halves height and width."""
    return _convolution(n, f"{name}_reduce", bottom, channels, 3, stride=2, same=False)


def _convolution(
    n: NetSpec, name: str, bottom: Top, channels: int, kernel: Kernel, *, stride: int = 1, same: bool = True
) -> Top:
    """A convolution, padded to keep the size unless not `same`, with BatchNorm, Scale and ReLU."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    n[name] = L.Convolution(
        bottom,
        num_output=channels,
        kernel_h=height,
        kernel_w=width,
        pad_h=height // 2 if same else 0,
        pad_w=width // 2 if same else 0,
        stride=stride,
        bias_term=False,
        weight_filler={"type": "msra"},
    )
    n[f"{name}_bn"] = L.BatchNorm(n[name], in_place=True)
    n[f"{name}_scale"] = L.Scale(n[f"{name}_bn"], bias_term=True, in_place=True)
    relu: Top = L.ReLU(n[f"{name}_scale"], in_place=True)
    n[f"{name}_relu"] = relu
    return relu


def _pool(n: NetSpec, name: str, bottom: Top) -> Top:
    """The maximum of each 3x3 window at stride 2."""
    top: Top = L.Pooling(bottom, pool="MAX", kernel_size=3, stride=2)
    n[name] = top
    return top


def _concat(n: NetSpec, name: str, *bottoms: Top) -> Top:
    """The channels of all."""
    top: Top = L.Concat(*bottoms)
    n[name] = top
    return top


if __name__ == "__main__":
    print(format_text(inception_resnet_v2()), end="")
