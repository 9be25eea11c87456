"""BN, of SegNet's Caffe, and the other one of PSPNet's and of temporal segment networks: normalisation and scale."""

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.layers.normalization.batch_norm import normalised_by_batch
from imae.prototxt_like.schema import BNParameter, FillerParameter

aten = torch.ops.aten


class BN(Layer):
    """y = a (x - mean) / sqrt(var + eps) + b, by channel; a and b are the first two blobs.

    SegNet's, told by `scale_filler`, `shift_filler` or `bn_mode`, has no more blobs: its statistics are the batch's in
    both phases (LEARN, eps 1e-9), or y = a x + b (INFERENCE). Of the others two more blobs are moving averages, old
    `momentum` + new (1 - `momentum`), of the batch's mean and variance, which normalise in the TEST phase, and with
    `frozen` in TRAIN as well, where a and b are not learned then.
    """

    type = "BN"
    capturable = True
    kept = Kept(bottoms=(0,))

    def setup(self, bottoms: Shapes) -> None:
        own, (shape,) = self.param.bn_param, bottoms
        if len(shape) < 2:
            raise self.error(f"needs channels, found a bottom of {describe(shape)}")
        segnet, other = (
            [name for name in names if own.HasField(name)]
            for names in (
                ("scale_filler", "shift_filler", "bn_mode"),
                ("slope_filler", "bias_filler", "momentum", "eps", "frozen"),
            )
        )
        if segnet and other:
            raise self.error(f"{segnet[0]} is of SegNet's, {other[0]} of PSPNet's: expected fields of one of them")
        size = (1, shape[1], 1, 1) if segnet else (1, shape[1])
        for filler in (own.scale_filler, own.shift_filler) if segnet else (own.slope_filler, own.bias_filler):
            self.add_blob(size, filler)
        self.use_global, self.eps = own.bn_mode == BNParameter.INFERENCE, 1e-9
        if not segnet:
            self.use_global, self.eps = own.frozen or not self.training, own.eps
            for value in (0, own.frozen):
                self.add_blob(size, FillerParameter(type="constant", value=value)).lr_mult = 0.0
            for blob in self.blobs if own.frozen else ():
                blob.lr_mult = 0.0
        elif self.use_global:
            self.eps = 0.0

    def reshape(self, bottoms: Shapes) -> Shapes:
        """Shape as the bottom's; there are as many channels as there were."""
        shape, channels = bottoms[0], self.blobs[0].shape[1]
        if len(shape) < 2 or shape[1] != channels or (0 in shape and not self.use_global):
            raise self.error(f"has the statistics of {channels} channels, found a bottom of {describe(shape)}")
        self.geometry = shape
        return bottoms

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = a (x - mean) / sqrt(var + eps) + b; the moving averages of a batch's statistics move on."""
        x, (scale, bias) = bottoms[0], self._affine()
        if self.use_global:
            return [aten.native_batch_norm(x, scale, bias, *self._statistics(), False, 0.0, self.eps)[0]]
        mean, var = torch.zeros_like(scale), torch.zeros_like(scale)
        y, saved["mean"], saved["inverse_std"] = aten.native_batch_norm(x, scale, bias, mean, var, True, 1.0, self.eps)
        samples = x.numel() // x.shape[1]
        if samples == 1:  # the variance is 0, of which PyTorch makes 0 / 0, and x - mean its rounding
            var, y = torch.zeros_like(var), bias.to(x.dtype).view(-1, *[1] * (x.dim() - 2)).expand_as(x).contiguous()
        momentum = self.param.bn_param.momentum
        for blob, new in zip(self.blobs[2:], (mean, var * ((samples - 1) / samples)), strict=False):
            blob.data.mul_(momentum).add_(new.view(blob.shape), alpha=1 - momentum)
        return [y]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """As BatchNorm's; da = the sum of dy (x - mean) / sqrt(var + eps), db = the sum of dy."""
        x, dy, scale = bottoms[0], top_diffs[0], self._affine()[0]
        if not x.numel():
            return [dy]
        batch = saved.get("mean"), saved.get("inverse_std")
        kept = (*self._statistics(), None, None) if self.use_global else (None, None, *batch)
        wanted = [needs[0], *(blob.wants_diff for blob in self.blobs[:2])]
        diffs = aten.native_batch_norm_backward(dy, x, scale, *kept, not self.use_global, self.eps, wanted)
        for blob, diff in zip(self.blobs, diffs[1:], strict=False):
            if blob.wants_diff:
                blob.diff += diff.view(blob.shape)
        return [diffs[0] if needs[0] else None]

    def _affine(self) -> tuple[Tensor, Tensor]:
        """a and b (channels)."""
        scale, bias = (blob.data.flatten() for blob in self.blobs[:2])
        return scale, bias

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """The mean and the variance that normalise; 0 and 1 where none do."""
        scale = self.blobs[0].data.flatten()
        given = [blob.data.flatten() for blob in self.blobs[2:]]
        return (given[0], given[1]) if given else (torch.zeros_like(scale), torch.ones_like(scale))

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """BatchNormalization; in SegNet's mode LEARN Sub, Mul, ReduceMean, Add, Sqrt and Div, then Mul and Add."""
        scale, bias = self._affine()
        if self.use_global:
            values = dict(zip(("scale", "bias", "mean", "var"), (scale, bias, *self._statistics()), strict=True))
            constants = [graph.constant(f"{self.name}_{name}", value) for name, value in values.items()]
            graph.node("BatchNormalization", [*bottoms, *constants], tops, epsilon=self.eps)
            return
        along = (-1, *[1] * (len(self.geometry) - 2))
        normal = normalised_by_batch(graph, bottoms[0], len(self.geometry), self.eps)
        factor, summand = (graph.constant(f"{self.name}_{i}", x.view(along)) for i, x in enumerate((scale, bias)))
        graph.node("Add", [graph.add("Mul", [normal, factor]), summand], tops)
