"""BatchNorm: normalisation by the batch's statistics, without the affine part (a Scale layer's) but in forks' form."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shape, Shapes, Tensors, describe
from imae.prototxt_like.schema import FillerParameter

aten = torch.ops.aten


class BatchNorm(Layer):
    """y = (x - mean) / sqrt(var + eps), by channel (Ioffe and Szegedy 2015).

    In the TRAIN phase the statistics are the batch's, the variance divided by m. Blobs: the decayed sums of the means,
    of the variances times m / (m - 1), and of the weights 1; the global statistics are the first two over the third:
    sum <- moving_average_fraction * sum + new. No blob is learned but for NVIDIA's and Intel's Caffe: with `scale_bias`
    or a filler a fourth blob, of ones at first, multiplies y, and a fifth is added.
    """

    type = "BatchNorm"
    capturable = True
    geometry: Shape  # the bottom's

    def setup(self, bottoms: Shapes) -> None:
        param, shape = self.param.batch_norm_param, bottoms[0]
        given = param.HasField("use_global_stats")
        self.use_global = param.use_global_stats if given else not self.training
        self.fraction, self.eps = param.moving_average_fraction, param.eps
        self.is_affine: bool = param.scale_bias or any(map(param.HasField, ("scale_filler", "filler", "bias_filler")))
        if not self.is_affine and any(spec.lr_mult for spec in self.param.param):
            raise self.error("its statistics cannot be learned: each param must have lr_mult 0")
        channels = shape[1] if len(shape) > 1 else 1
        for size in (channels, channels, 1):
            self.add_blob((size,), FillerParameter(type="constant")).lr_mult = 0.0
        if self.is_affine:
            given = [getattr(param, name) for name in ("scale_filler", "filler") if param.HasField(name)]
            self.add_blob((channels,), given[0] if given else FillerParameter(type="constant", value=1))
            self.add_blob((channels,), param.bias_filler)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's; there are as many channels as there were."""
        shape, (channels,) = bottoms[0], self.blobs[0].shape
        if not shape or (0 in shape and not self.use_global):
            raise self.error(f"has no statistics of a bottom of {describe(shape)}")
        if (shape[1] if len(shape) > 1 else 1) != channels:
            raise self.error(f"has the statistics of {channels} channels, found a bottom of {describe(shape)}")
        self.geometry = shape
        return bottoms

    def keeps(self) -> Kept:
        """x; with global statistics, and nothing else that is learned, nothing."""
        return Kept(bottoms=() if self.use_global and not self.is_affine else (0,))

    def affine(self) -> list[Tensor] | list[None]:
        """The scale and the bias, None where there are none."""
        return [blob.data for blob in self.blobs[3:]] or [None, None]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = (x - mean) / sqrt(var + eps); in the TRAIN phase the sums move on."""
        x = bottoms[0]
        folded = with_channels(x)
        if self.use_global:
            mean, var = self.statistics()
            saved["inverse_std"] = (var + self.eps).rsqrt().to(x.dtype).view(-1, *[1] * (x.dim() - 2))
            return [aten.native_batch_norm(folded, *self.affine(), mean, var, False, 0.0, self.eps)[0].view_as(x)]
        batch_mean, batch_var = (torch.zeros_like(blob.data) for blob in self.blobs[:2])
        affine = self.affine()
        y, mean, inverse_std = aten.native_batch_norm(folded, *affine, batch_mean, batch_var, True, 1.0, self.eps)
        samples = folded.numel() // folded.shape[1]
        self.move_on(batch_mean, batch_var, samples)
        saved.update(mean=mean, inverse_std=inverse_std)
        if samples == 1:  # x - mean is 0, where PyTorch leaves its rounding over sqrt(eps)
            y = torch.zeros_like(y)
            if self.is_affine:
                y += self.blobs[4].data.view(-1, *[1] * (y.dim() - 2))
        return [y.view_as(x)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = (dy - mean(dy) - y mean(dy y)) / sqrt(var + eps); with global statistics dy / sqrt(var + eps); the scale
        multiplies dy first, and has the sum of dy y.
        """
        dy, scale = top_diffs[0], self.affine()[0]
        if self.use_global and (scale is None or not dy.numel()):
            return [dy * saved["inverse_std"]]
        x, learned = with_channels(bottoms[0]), [blob.wants_diff for blob in self.blobs[3:]] or [False, False]
        batch = saved.get("mean"), saved["inverse_std"]
        kept = (*self.statistics(), None, None) if self.use_global else (None, None, *batch)
        diffs = aten.native_batch_norm_backward(
            dy.view_as(x), x, scale, *kept, not self.use_global, self.eps, [needs[0], *learned]
        )
        for blob, diff in zip(self.blobs[3:], diffs[1:], strict=False):
            if blob.wants_diff:
                blob.diff += diff
        return [diffs[0].view_as(dy) if needs[0] else None]

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return the global mean and variance (channels): the sums over their weight, 0 where nothing was summed."""
        mean, var, weight = (blob.data for blob in self.blobs[:3])
        factor = torch.where(weight == 0, 0.0, 1 / weight)
        return mean * factor, var * factor

    def move_on(self, batch_mean: Tensor, batch_var: Tensor, samples: int) -> None:
        """Add a batch's statistics, over `samples` m a channel, to the sums; `batch_var` has the factor m / (m - 1)."""
        if samples == 1:  # the variance is 0, where m / (m - 1) gives 0 / 0
            batch_var = torch.zeros_like(batch_var)
        mean, var, weight = (blob.data.mul_(self.fraction) for blob in self.blobs[:3])
        mean.add_(batch_mean)
        var.add_(batch_var)
        weight.add_(1.0)

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """BatchNormalization with unit scale and zero bias; Sub and Mul over a bottom of one axis; without
        global statistics Sub, Mul, ReduceMean, Add, Sqrt and Div, by those of the batch that it is given.
        """
        along = (-1, *[1] * (len(self.geometry) - 2))
        normal = [graph.name(f"{self.name}/normal")] if self.is_affine else tops
        if not self.use_global:
            normalised_by_batch(graph, bottoms[0], len(self.geometry), self.eps, normal[0])
        elif len(self.geometry) == 1:
            mean, var = self.statistics()
            inverse = graph.constant(f"{self.name}_scale", (var + self.eps).rsqrt())
            centred = graph.add("Sub", [*bottoms, graph.constant(f"{self.name}_mean", mean)])
            graph.node("Mul", [centred, inverse], normal)
        else:
            mean, var = self.statistics()
            scale, bias = self.affine()
            values = {
                "scale": torch.ones_like(mean) if scale is None else scale,
                "bias": torch.zeros_like(mean) if bias is None else bias,
                "mean": mean,
                "var": var,
            }
            constants = [graph.constant(f"{self.name}_{name}", value) for name, value in values.items()]
            graph.node("BatchNormalization", [*bottoms, *constants], tops, epsilon=self.eps)
            return
        if self.is_affine:
            factor, summand = (graph.constant(f"{self.name}_{i}", self.blobs[i].data.view(along)) for i in (3, 4))
            graph.node("Add", [graph.add("Mul", [*normal, factor]), summand], tops)


def normalised_by_batch(graph: OnnxGraph, x: str, axes: int, eps: float, output: str | None = None) -> str:
    """Add nodes that normalise the channels of a value of so many axes, and return the output's name."""
    along = [axis for axis in range(axes) if axis != 1]
    centred = graph.add("Sub", [x, graph.reduce("ReduceMean", x, along, keepdims=True)])
    square = graph.reduce("ReduceMean", graph.add("Mul", [centred, centred]), along, keepdims=True)
    shifted = graph.add("Add", [square, graph.constant(f"{x}/eps", eps)])
    return graph.add("Div", [centred, graph.add("Sqrt", [shifted])], output)


def with_channels(x: Tensor) -> Tensor:
    """Return x with an axis of channels, which a vector has not."""
    return x if x.dim() > 1 else x[:, None]
