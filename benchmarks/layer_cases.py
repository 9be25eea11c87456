"""Each layer with its shortest honest PyTorch expression, at the shapes that `benchmarks.layers` times both at.

Images are 32 x 64 x 28 x 28, scores 256 x 1000, where nothing else is said. An expression takes the bottoms, then the
blobs, and gives what the layer gives, of ties, too; where a row is `against` another function, it says how that
differs. Only argmax is ArgMax's counterpart as it is, as it does less: of equal values it takes the first. Indices
(`integers`) are int64 for both sides, as the data layers give labels and PyTorch's users have them; of float32, as in
Caffe, a layer makes int64, which takes two microseconds for 128 labels.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imae.layers.layer import TEST, TRAIN

Draw = Callable[[], Tensor]
"""Returns a bottom."""
IMAGE, SCORES = (32, 64, 28, 28), (256, 1000)


def normal(*shape: int) -> Draw:
    """From the standard normal distribution."""
    return lambda: torch.randn(shape)


def positive(*shape: int) -> Draw:
    """Uniform in 0.1 to 1.1."""
    return lambda: torch.rand(shape) + 0.1


def integers(below: int, *shape: int) -> Draw:
    """Indices 0 to `below` - 1."""
    return lambda: torch.randint(below, shape)


def channels_last(draw: Draw) -> Draw:
    """The same in the order that the fused plan has images in."""
    return lambda: draw().contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Case:
    """A layer, where it is timed, and the expression it is compared with."""

    type: str
    settings: str
    bottoms: Sequence[Draw]
    expression: Callable[..., Tensor | Sequence[Tensor]]
    """Of bottoms and blobs."""
    what: str = ""
    """Said beside the type in the table; by default the settings."""
    tops: int = 1
    phase: int = TRAIN
    differs: str = ""
    """Why the two sides' values are not compared."""
    weights: Callable[[list[Tensor]], list[Tensor]] = list
    """Returns the blobs as PyTorch takes them."""
    prepare: Callable[[Any], None] = lambda layer: None
    """Makes the layer ready, once."""
    why: str = ""
    """Why it may take longer than PyTorch."""


image, scores = normal(*IMAGE), normal(*SCORES)
few = normal(128, 10)
label, few_labels = integers(1000, 256), integers(10, 128)
pixels, pixel_labels = normal(4, 21, 96, 96), integers(21, 4, 96, 96)
CHANNELS = (64, 1, 1)
DRAWN = "at random"
MICROSECONDS = "both take microseconds"
ARGMAX = "argmax takes the first of equal scores, so that a tie can be a hit; of Caffe it is a miss: the row above"
TOPK = "topk leaves open in which order equal values are; Caffe has the last first: the row above"
ELSEWHERE = {
    "AnchorTarget": "PyTorch has none",
    "BN": "is BatchNorm's kernel",
    "BoxAnnotatorOHEM": MICROSECONDS,
    "Cifar10Data": "benchmarks.data_path has it",
    "Data": "benchmarks.data_path has it",
    "DetectionOutput": "torchvision's kernel is all of its work",
    "DigitsData": "reads a file",
    "HDF5Data": "reads files",
    "HDF5Output": "writes a file",
    "ImageData": "benchmarks.image_data has it",
    "Input": "does nothing",
    "MarsData": "reads files",
    "MultiBoxLoss": "PyTorch has none; box by box it would take many times as long",
    "PSROIPooling": "torchvision's ps_roi_pool has other cells",
    "PriorBox": "depends on shapes alone",
    "Proposal": "torchvision's kernel is all of its work",
    "ProposalTarget": "PyTorch has none",
    "Python": "runs its user's code",
    "ROIPooling": "is torchvision's kernel",
    "SigmoidCrossEntropyBalanceLoss": "is SigmoidCrossEntropyLoss but for weights",
    "Silence": "does nothing",
    "SmoothL1LossOHEM": "is SmoothL1Loss but for a sum over channels",
    "SoftmaxWithLossOHEM": "is SoftmaxWithLoss but for a top more",
    "WindowData": "reads files",
}
"""The types that have no case, and why."""


def activation() -> list[Case]:
    """Functions of single elements, and scales and biases along axes."""

    def case(type: str, expression: Callable[..., Tensor], settings: str = "", *bottoms: Draw) -> Case:
        return Case(type, settings, bottoms or (image,), expression)

    x2 = positive(*IMAGE)
    return [
        case("AbsVal", torch.abs),
        case("BNLL", F.softplus),
        case("Bias", lambda x, b: x + b.view(CHANNELS)),
        case("Bias", lambda x, b: x + b[..., None], "bias_param { axis: 1 num_axes: 2 }"),
        case("Bias", lambda x, b: x + b, "bias_param { axis: 1 num_axes: -1 }"),
        case("Bias", lambda x, b: x + b[:, None, None, None], "bias_param { axis: 0 }", image, normal(32)),
        case("Clip", lambda x: x.clamp(-1, 1), "clip_param { min: -1 max: 1 }"),
        case("ELU", F.elu),
        case("Exp", torch.exp),
        case("Exp", lambda x: torch.exp2(0.5 * x + 0.1), "exp_param { base: 2 scale: 0.5 shift: 0.1 }"),
        case("Log", torch.log, "", x2),
        case("Log", lambda x: torch.log10(0.5 * x + 1), "log_param { base: 10 scale: 0.5 shift: 1 }", x2),
        case("Log", lambda x: torch.log(x + 1), "log_param { shift: 1 }", x2),
        case("Power", lambda x: 0.5 * x + 1, "power_param { scale: 0.5 shift: 1 }"),
        case("Power", lambda x: (0.5 * x + 1) ** 2, "power_param { power: 2 scale: 0.5 shift: 1 }"),
        case("Power", lambda x: (0.5 * x + 1) ** -0.75, "power_param { power: -0.75 scale: 0.5 shift: 1 }", x2),
        case("PReLU", F.prelu),
        case("PReLU", lambda x, a: F.prelu(x, a.view(1)), "prelu_param { channel_shared: true }"),
        case("ReLU", F.relu),
        case("ReLU", lambda x: F.leaky_relu(x, 0.1), "relu_param { negative_slope: 0.1 }"),
        case("Scale", lambda x, a: x * a.view(CHANNELS)),
        case("Scale", lambda x, a, b: x * a.view(CHANNELS) + b.view(CHANNELS), "scale_param { bias_term: true }"),
        case("Scale", lambda x, a: x * a[..., None], "scale_param { axis: 1 num_axes: 2 }"),
        case("Scale", lambda x, a: x * a[:, None, None, None], "scale_param { axis: 0 }", image, normal(32)),
        case("Scale", lambda x, a: x * a, "scale_param { axis: 0 }", image, image),
        case("Sigmoid", torch.sigmoid),
        case("Swish", F.silu),
        case("Swish", lambda x: x * torch.sigmoid(2 * x), "swish_param { beta: 2 }"),
        case("TanH", torch.tanh),
        case("Threshold", lambda x: (x > 0.5).float(), "threshold_param { threshold: 0.5 }"),
    ]


def common() -> list[Case]:
    """Dropout, and what learns a matrix."""
    transposed = "inner_product_param { num_output: 1000 transpose: true }"
    return [
        Case("Dropout", "", [image], lambda x: F.dropout(x, 0.5), differs=DRAWN),
        Case("Dropout", "", [image], lambda x: F.dropout(x, 0.5, training=False), "in phase TEST", phase=TEST),
        Case(
            "Embed",
            "embed_param { num_output: 256 input_dim: 8000 }",
            [integers(8000, 20, 64)],
            lambda x, w, b: F.embedding(x, w) + b,
        ),
        Case("InnerProduct", "inner_product_param { num_output: 1000 }", [normal(128, 1024)], F.linear),
        Case("InnerProduct", "inner_product_param { num_output: 10 }", [normal(128, 64)], F.linear),
        Case("InnerProduct", transposed, [normal(128, 1024)], lambda x, w, b: torch.addmm(b, x, w)),
    ]


def data() -> list[Case]:
    """Blobs from fillers, and rows of arrays."""
    shape = "shape { dim: 32 dim: 64 dim: 28 dim: 28 }"
    gaussian = f'dummy_data_param {{ {shape} data_filler {{ type: "gaussian" }} }}'
    rows, labels = torch.randn(64, 3, 32, 32), torch.zeros(64)
    uniform = f'dummy_data_param {{ {shape} data_filler {{ type: "uniform" }} }}'
    return [
        Case("DummyData", f"dummy_data_param {{ {shape} }}", [], lambda: torch.zeros(IMAGE), "constant"),
        Case("DummyData", gaussian, [], lambda: torch.empty(IMAGE).normal_(), "gaussian", differs=DRAWN),
        Case("DummyData", uniform, [], lambda: torch.empty(IMAGE).uniform_(), "uniform", differs=DRAWN),
        Case(
            "MemoryData",
            "memory_data_param { batch_size: 32 channels: 3 height: 32 width: 32 }",
            [],
            lambda: (rows[32:64], labels[32:64]),
            tops=2,
            prepare=lambda layer: layer.set_input_arrays(rows, labels),
            why=MICROSECONDS,
        ),
    ]


def mae(p_y: Tensor) -> Tensor:
    """Mean absolute error of p_y."""
    return 2 * (1 - p_y).mean()


def gce(p_y: Tensor) -> Tensor:
    """Zhang and Sabuncu's loss of p_y."""
    return ((1 - p_y**0.7) / 0.7).mean()


def imae(p_y: Tensor) -> Tensor:
    """MAE of p_y, its gradient rescaled as the authors' layer does it."""
    mae = 2 * (1 - p_y)
    scale = (torch.exp(8 * p_y * (1 - p_y)) / (2 * p_y * (mae + 1e-6))).detach()
    return (mae.detach() + scale * (mae - mae.detach())).mean()


def imae_of_probabilities(p: Tensor, y: Tensor) -> Tensor:
    """The same of p, with the layer's gradient by each probability, of which Softmax makes that by the logits."""
    p_y, others = p.gather(1, y[:, None]), p.scatter(1, y[:, None], 0.0).sum(1, keepdim=True)
    half, fitted = torch.exp(8 * p_y * (1 - p_y)).detach() / 2, (others / (others + 5e-7)).detach()
    odds = half * ((others + 5e-7).log() - fitted * p_y.log())
    return (2 * (1 - p_y.detach()) + (odds - odds.detach())).mean()


def of_p_y(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss of probabilities and labels."""
    return lambda p, y: loss(p.gather(1, y[:, None]))


def of_logits(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss of logits and labels."""
    return lambda x, y: loss(F.softmax(x, 1).gather(1, y[:, None]))


def contrastive(a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
    """Half the mean of d^2 of similar pairs, of max(1 - d, 0)^2 of others."""
    d = (a - b).norm(dim=1)
    return torch.where(similar != 0, d, (1 - d).clamp(min=0)).square().sum() / (2 * len(a))


def contrastive_legacy(a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
    """Half the mean of d^2 of similar pairs, of max(1 - d^2, 0) of others."""
    d2 = (a - b).square().sum(1)
    return torch.where(similar != 0, d2, (1 - d2).clamp(min=0)).sum() / (2 * len(a))


def hinge(x: Tensor, y: Tensor, power: int) -> Tensor:
    """One class against the rest."""
    return ((1 - 2 * F.one_hot(y, x.shape[1])) * x + 1).relu().pow(power).sum() / len(x)


def accuracy(x: Tensor, y: Tensor, top_k: int = 1) -> Tensor:
    """How often fewer than top_k others score at least as much as the label."""
    return ((x >= x.gather(1, y[:, None])).sum(1) <= top_k).float().mean()


def by_argmax(x: Tensor, y: Tensor) -> Tensor:
    """The same where no scores tie."""
    return (x.argmax(1) == y).float().mean()


def probabilities(*shape: int) -> Draw:
    """Rows that sum to 1."""
    return lambda: torch.randn(shape).softmax(1)


def loss() -> list[Case]:
    """Losses and Accuracy."""
    pairs = [normal(256, 128), normal(256, 128), integers(2, 256)]
    p = probabilities(*SCORES)
    binary = [normal(128, 1000), lambda: torch.rand(128, 1000)]
    return [
        Case("Accuracy", "", [scores, label], accuracy),
        Case("Accuracy", "accuracy_param { top_k: 5 }", [scores, label], functools.partial(accuracy, top_k=5)),
        Case("Accuracy", "", [few, few_labels], accuracy),
        Case("Accuracy", "", [few, few_labels], by_argmax, "against argmax", why=ARGMAX),
        Case("Accuracy", "", [pixels, pixel_labels], accuracy),
        Case("ContrastiveLoss", "", pairs, contrastive),
        Case("ContrastiveLoss", "contrastive_loss_param { legacy_version: true }", pairs, contrastive_legacy),
        Case("EuclideanLoss", "", [scores, scores], lambda a, b: F.mse_loss(a, b, reduction="sum") / (2 * len(a))),
        Case("SmoothL1Loss", "", [scores, scores], lambda a, b: F.smooth_l1_loss(a, b, reduction="sum") / len(a)),
        Case("HingeLoss", "", [scores, label], functools.partial(hinge, power=1)),
        Case("HingeLoss", "hinge_loss_param { norm: L2 }", [scores, label], functools.partial(hinge, power=2)),
        Case(
            "InfogainLoss",
            "",
            [normal(256, 100), integers(100, 256), normal(100, 100)],
            lambda x, y, h: F.cross_entropy(x, h.detach()[y]),
        ),
        Case("MultinomialLogisticLoss", "", [p, label], lambda p, y: F.nll_loss(p.log(), y)),
        Case("MAELoss", "", [p, label], of_p_y(mae)),
        Case("GCELoss", "", [p, label], of_p_y(gce)),
        Case("IMAELoss", "", [p, label], imae_of_probabilities),
        Case(
            "SigmoidCrossEntropyLoss",
            "",
            binary,
            lambda x, t: F.binary_cross_entropy_with_logits(x, t.detach(), reduction="sum") / len(x),
        ),
        Case("SoftmaxWithLoss", "", [scores, label], F.cross_entropy),
        Case("SoftmaxWithLoss", "", [few, few_labels], F.cross_entropy),
        Case("SoftmaxWithLoss", "", [pixels, pixel_labels], F.cross_entropy),
        Case(
            "SoftmaxWithLoss",
            "loss_param { ignore_label: 0 }",
            [pixels, pixel_labels],
            lambda x, y: F.cross_entropy(x, y, ignore_index=0),
        ),
        Case("SoftmaxWithMAELoss", "", [scores, label], of_logits(mae)),
        Case("SoftmaxWithGCELoss", "", [scores, label], of_logits(gce)),
        Case("SoftmaxWithIMAELoss", "", [scores, label], of_logits(imae)),
        Case("SoftmaxWithIMAELoss", "", [few, few_labels], of_logits(imae)),
    ]


def lrn_within(x: Tensor) -> Tensor:
    """Each value by the squares in 5 x 5 places."""
    return x * (1 + F.avg_pool2d(x * x, 5, 1, 2)) ** -0.75


def normalization() -> list[Case]:
    """Normalisation by statistics."""
    norm = functools.partial(F.batch_norm, eps=1e-5)
    return [
        Case("BatchNorm", "", [image], lambda x, mean, var, _: norm(x, mean, var, training=True, momentum=0.001)),
        Case(
            "BatchNorm",
            "",
            [channels_last(image)],
            lambda x, mean, var, _: norm(x, mean, var, training=True, momentum=0.001),
            "channels last",
        ),
        Case("BatchNorm", "", [image], lambda x, mean, var, _: norm(x, mean, var), "in phase TEST", phase=TEST),
        Case(
            "LRN",
            "lrn_param { local_size: 5 alpha: 0.0001 }",
            [image],
            lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 1),
            "across channels",
        ),
        Case("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }", [image], lrn_within, "within channels"),
        Case("MVN", "", [image], lambda x: F.instance_norm(x, eps=1e-18)),
        Case(
            "MVN",
            "mvn_param { normalize_variance: false }",
            [image],
            lambda x: x - x.mean((2, 3), keepdim=True),
        ),
        Case(
            "MVN",
            "mvn_param { across_channels: true }",
            [image],
            lambda x: F.layer_norm(x, x.shape[1:], eps=1e-18),
        ),
    ]


def lstm(x: Tensor, cont: Tensor, *weights: Tensor) -> Tensor:
    """What torch.nn.LSTM calls."""
    start = x.new_zeros(1, x.shape[1], weights[1].shape[1])
    return torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, False)[0]


def rnn(x: Tensor, cont: Tensor, w: Tensor, b: Tensor, u: Tensor, out: Tensor, out_bias: Tensor) -> Tensor:
    """What torch.nn.RNN calls, and Caffe's output."""
    start = x.new_zeros(1, x.shape[1], u.shape[0])
    h = torch.rnn_tanh(x, start, (w, u, b, torch.zeros_like(b)), True, 1, 0.0, True, False, False)[0]
    return torch.tanh(F.linear(h, out, out_bias))


def as_torch_has_gates(blobs: list[Tensor]) -> list[Tensor]:
    """Caffe's gates are i, f, o, g and have one bias, PyTorch's are i, f, g, o and have two."""
    w, b, u = (torch.cat([blob.chunk(4)[i] for i in (0, 1, 3, 2)]) for blob in blobs)
    return [w, u, b, torch.zeros_like(b)]


def lstm_unit(c_prev: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """One step."""
    i, f, o, g = gates.chunk(4, -1)
    c = f.sigmoid() * (cont[..., None] * c_prev) + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()


def sequences(steps: int, count: int) -> Draw:
    """`cont` of sequences that begin with the first step."""
    return lambda: torch.cat([torch.zeros(1, count), torch.ones(steps - 1, count)])


def recurrent() -> list[Case]:
    """Networks that step through time."""
    x, param = [normal(100, 32, 128), sequences(100, 32)], "recurrent_param { num_output: 128 }"
    unit = [normal(1, 256, 512), normal(1, 256, 2048), lambda: torch.ones(1, 256)]
    return [
        Case("LSTM", param, x, lstm, weights=as_torch_has_gates),
        Case("LSTMUnit", "", unit, lstm_unit, tops=2),
        Case("RNN", param, x, rnn),
    ]


def last_of_largest(x: Tensor) -> Tensor:
    """Where the 5 largest are, of equal ones the last first."""
    return x.shape[1] - 1 - x.flip(1).sort(dim=1, descending=True, stable=True).indices[:, :5]


def utility() -> list[Case]:
    """What puts blobs together, takes them apart and reshapes them."""
    total = "reduction_param { axis: 1 operation: "
    by_index = [normal(256, 2048), integers(256, 256)]
    return [
        Case("ArgMax", "", [scores], lambda x: x.argmax(1)),
        Case("ArgMax", "argmax_param { top_k: 5 }", [scores], last_of_largest),
        Case("ArgMax", "argmax_param { top_k: 5 }", [scores], lambda x: x.topk(5, 1).indices, "against topk", why=TOPK),
        Case("ArgMax", "argmax_param { axis: 1 }", [pixels], lambda x: x.argmax(1, keepdim=True)),
        Case("BatchReindex", "", by_index, lambda x, index: x[index]),
        Case("Concat", "", [image, image], lambda a, b: torch.cat([a, b], 1)),
        Case("Concat", "", [channels_last(image)] * 2, lambda a, b: torch.cat([a, b], 1), "channels last"),
        Case("Concat", "concat_param { axis: 0 }", [image, image], lambda a, b: torch.cat([a, b])),
        Case("Eltwise", "", [image, image], torch.add),
        Case("Eltwise", "eltwise_param { coeff: 1 coeff: -0.5 }", [image, image], lambda a, b: a - 0.5 * b),
        Case("Eltwise", "eltwise_param { operation: PROD }", [image, image], torch.mul),
        Case("Eltwise", "eltwise_param { operation: PROD }", [image] * 3, lambda a, b, c: a * b * c),
        Case("Eltwise", "eltwise_param { operation: MAX }", [image, image], torch.maximum),
        Case(
            "Eltwise",
            "eltwise_param { operation: MAX }",
            [image] * 3,
            lambda a, b, c: torch.maximum(torch.maximum(a, b), c),
        ),
        Case("Filter", "", [normal(256, 2048), integers(2, 256)], lambda x, chosen: x[chosen.bool()]),
        Case("Flatten", "", [image], lambda x: x.flatten(1)),
        Case("Parameter", "parameter_param { shape { dim: 1000 dim: 512 } }", [], lambda w: w.view_as(w)),
        Case("Reduction", total + "SUM }", [image], lambda x: x.sum((1, 2, 3))),
        Case("Reduction", total + "ASUM }", [image], lambda x: x.abs().sum((1, 2, 3))),
        Case("Reduction", total + "SUMSQ }", [image], lambda x: x.square().sum((1, 2, 3))),
        Case("Reduction", total + "MEAN }", [image], lambda x: x.mean((1, 2, 3))),
        Case("Reduction", "", [image], torch.sum),
        Case("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }", [image], lambda x: x.reshape(len(x), -1)),
        Case("Slice", "", [image], lambda x: x.split(32, 1), tops=2),
        Case("Softmax", "", [scores], lambda x: F.softmax(x, 1)),
        Case("Softmax", "", [pixels], lambda x: F.softmax(x, 1)),
        Case("Split", "", [image], lambda x: (x.view_as(x), x.view_as(x)), tops=2),
        Case("Tile", "tile_param { tiles: 3 }", [image], lambda x: x.repeat(1, 3, 1, 1)),
        Case("Tile", "tile_param { tiles: 3 axis: 2 }", [image], lambda x: x.repeat(1, 1, 3, 1)),
    ]


def stochastic(x: Tensor) -> Tensor:
    """One element of each 2 x 2 window, drawn in proportion to its value."""
    windows = F.unfold(x, 2, stride=2).view(*x.shape[:2], 4, -1).transpose(2, 3)
    drawn = torch.multinomial(windows.reshape(-1, 4), 1).view(*windows.shape[:3], 1)
    return windows.gather(3, drawn).view(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)


def pyramid(x: Tensor, pool: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Poolings into 1, 2 x 2 and 4 x 4 bins."""
    return torch.cat([pool(x, bins).flatten(1) for bins in (1, 2, 4)], 1)


def conv(settings: str, x: Draw, expression: Callable[..., Tensor], what: str = "", out: int = 64) -> Case:
    """A Convolution with `out` channels."""
    return Case("Convolution", f"convolution_param {{ num_output: {out} {settings} }}", [x], expression, what)


def vision() -> list[Case]:
    """Over images."""
    pool = "pooling_param { kernel_size: 3 stride: 2 "
    three = functools.partial(F.conv2d, padding=1)
    up = "convolution_param { num_output: 21 kernel_size: 4 stride: 2 pad: 1 "
    small = normal(4, 21, 48, 48)
    window = "convolution_param { kernel_size: 3 pad: 1 }"
    largest = functools.partial(F.max_pool2d, kernel_size=3, stride=2, ceil_mode=True)
    crop = "crop_param { axis: 2 offset: 3 }"
    halves = [channels_last(image)]
    return [
        conv("kernel_size: 3 pad: 1", image, three),
        conv("kernel_size: 3 pad: 1", channels_last(image), three, "3 x 3, channels last"),
        conv("kernel_size: 1", image, F.conv2d),
        conv("kernel_size: 5 pad: 2 group: 2", image, functools.partial(F.conv2d, padding=2, groups=2)),
        conv("kernel_size: 3 pad: 1 group: 64", image, functools.partial(F.conv2d, padding=1, groups=64)),
        conv("kernel_size: 3 pad: 2 dilation: 2", image, functools.partial(F.conv2d, padding=2, dilation=2)),
        conv("kernel_size: 11 stride: 4", normal(8, 3, 227, 227), functools.partial(F.conv2d, stride=4), out=96),
        conv("kernel_size: 3 pad: 1", normal(8, 64, 1000), functools.partial(F.conv1d, padding=1), "over one axis"),
        conv("kernel_size: 3 pad: 1", normal(2, 16, 16, 28, 28), functools.partial(F.conv3d, padding=1), "over three"),
        Case("Crop", crop, [image, normal(32, 64, 20, 20)], lambda x, like: x[:, :, 3:23, 3:23]),
        Case(
            "Deconvolution",
            up + "}",
            [small],
            functools.partial(F.conv_transpose2d, stride=2, padding=1),
        ),
        Case(
            "Deconvolution",
            up + "group: 21 bias_term: false }",
            [small],
            functools.partial(F.conv_transpose2d, stride=2, padding=1, groups=21),
        ),
        Case(
            "Deconvolution",
            up + "group: 3 }",
            [small],
            functools.partial(F.conv_transpose2d, stride=2, padding=1, groups=3),
        ),
        Case("Im2col", window, [image], lambda x: F.unfold(x, 3, padding=1).view(32, 576, 28, 28)),
        Case(
            "Im2col",
            "convolution_param { kernel_size: 3 }",
            [normal(32, 64, 784)],
            lambda x: x.unfold(2, 3, 1).transpose(2, 3).reshape(32, 192, 782),
            "over one axis",
        ),
        Case("Pooling", pool + "}", [image], largest),
        Case("Pooling", pool + "}", [channels_last(image)], largest, "MAX, channels last"),
        Case("Pooling", pool + "pool: AVE }", [image], lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
        Case(
            "Pooling",
            pool + "pool: AVE pad: 1 }",
            [channels_last(image)],
            lambda x: F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True),
            "AVE, channels last",
        ),
        Case(
            "Pooling",
            "pooling_param { global_pooling: true pool: AVE }",
            [image],
            lambda x: F.adaptive_avg_pool2d(x, 1),
            "AVE of all",
        ),
        Case(
            "Pooling",
            "pooling_param { kernel_size: 2 stride: 2 pool: STOCHASTIC }",
            [positive(*IMAGE)],
            stochastic,
            differs=DRAWN,
        ),
        Case(
            "Shortcut",
            "shortcut_param { num_output: 128 stride: 2 }",
            halves,
            lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 64)),
        ),
        Case(
            "SPP",
            "spp_param { pyramid_height: 3 }",
            [image],
            functools.partial(pyramid, pool=F.adaptive_max_pool2d),
        ),
        Case(
            "SPP",
            "spp_param { pyramid_height: 3 pool: AVE }",
            [image],
            functools.partial(pyramid, pool=F.adaptive_avg_pool2d),
        ),
    ]


def of_other_caffes() -> list[Case]:
    """Types that BVLC's Caffe does not have."""
    each = "convolution_param { num_output: 64 kernel_size: 3 pad: 1 group: 64 }"
    depthwise = functools.partial(F.conv2d, padding=1, groups=64)
    larger = functools.partial(F.interpolate, size=(95, 95), mode="bilinear", align_corners=True)
    return [
        Case("Axpy", "", [normal(32, 64), image, image], lambda a, x, y: a[:, :, None, None] * x + y),
        Case("ConvolutionDepthwise", each, [image], depthwise),
        Case("CReLU", "", [image], lambda x: torch.cat([x, -x], 1).relu()),
        Case("DepthwiseConvolution", each, [image], depthwise),
        Case("Interp", "interp_param { zoom_factor: 2 }", [normal(4, 21, 48, 48)], larger),
        Case("Normalize", "", [image], lambda x, a: F.normalize(x.flatten(1)).view_as(x) * a),
        Case("Permute", "permute_param { order: [0, 2, 3, 1] }", [image], lambda x: x.permute(0, 2, 3, 1).contiguous()),
        Case("ReLU6", "", [image], F.relu6),
        Case("ShuffleChannel", "shuffle_channel_param { group: 4 }", [image], lambda x: F.channel_shuffle(x, 4)),
        Case("Upsample", "", [image], lambda x: F.interpolate(x, scale_factor=2.0)),
    ]


CASES = [
    *activation(),
    *common(),
    *data(),
    *loss(),
    *normalization(),
    *recurrent(),
    *utility(),
    *vision(),
    *of_other_caffes(),
]
