"""Cross entropy with a matrix of gains: which confusions cost how much."""

import math

import torch

from imae.layers.layer import Diffs, Saved, Shapes, Tensors, describe
from imae.layers.loss.labels import Labels, counted
from imae.layers.loss.loss_layer import Loss, at_least_float32
from imae.prototxt_like.mean_file import read_mean

_LOG_SMALLEST = math.log(1e-20)  # of the smallest probability whose logarithm Caffe takes


class InfogainLoss(Loss):
    """-sum over l of H[y, l] log p_l, p = softmax of the logits along `axis`; with the identity as H, cross entropy.

    Bottoms: logits (N x C x ...), labels (N x ...), and H (C x C, in any shape) unless it is in the `source`, a
    .binaryproto or .npy. Tops: the mean of the samples, as `loss_param` says; by option p.
    """

    type = "InfogainLoss"
    bottoms = (2, 3)
    tops = (1, 2)
    no_gradient_to = frozenset({1, 2})
    no_gradient_from = frozenset({1})
    index_bottoms = frozenset({1, 2})  # H is as exact as the labels that it is for

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.infogain_loss_param
        self.labels = Labels(self, self.param.loss_param)
        if self.param.loss_param.HasField("normalize"):
            raise self.error("takes no loss_param { normalize }, only normalization: VALID or BATCH_SIZE")
        if len(bottoms) == 3:
            return
        if not param.HasField("source"):
            raise self.error("needs its matrix as a third bottom, or as infogain_loss_param { source }")
        with self.naming():
            matrix = read_mean(self.context.find(param.source))
        dtype = torch.float64 if self.context.dtype == torch.float64 else torch.float32
        self.matrix = torch.from_numpy(matrix).to(self.context.device, dtype)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; a second top has the first bottom's shape. The geometry is the axis of the classes."""
        self.check_batch(bottoms)
        self.geometry = self.axis(self.param.infogain_loss_param.axis, bottoms[0])
        self.labels.reshape(bottoms, self.geometry)
        shape, classes = bottoms[2] if len(bottoms) == 3 else tuple(self.matrix.shape), bottoms[0][self.geometry]
        if math.prod(shape) != classes**2:
            raise self.error(f"{classes} classes need a matrix of {classes}x{classes}, found {describe(shape)}")
        return [(), bottoms[0]][: len(self.param.top)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """-sum of H[y, l] log p_l over the samples that count, p_l being at least 1e-20, over the normaliser."""
        axis, x = self.geometry, at_least_float32(bottoms[0])
        log_p = torch.log_softmax(x, axis)
        index, valid = self.labels.indices(bottoms[1])
        matrix = (bottoms[2] if len(bottoms) == 3 else self.matrix).to(x.dtype).reshape(x.shape[axis], x.shape[axis])
        gains = counted(matrix[index.squeeze(axis)].movedim(-1, axis), valid)
        normaliser = self.labels.normaliser(valid)
        saved.update(log_p=log_p, gains=gains, normaliser=normaliser, dtype=bottoms[0].dtype)
        loss = -log_p.clamp_min(_LOG_SMALLEST).mul_(gains).sum() / normaliser
        return [loss] if len(self.param.top) == 1 else [loss, log_p.exp()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx_l = (p_l sum_k H[y, k] - H[y, l]) dy over the normaliser; 0 if ignored."""
        by_log_p = saved["gains"] * (-top_diffs[0] / saved["normaliser"])
        dx = torch.ops.aten._log_softmax_backward_data(by_log_p, saved["log_p"], self.geometry, by_log_p.dtype)
        return [dx.to(saved["dtype"]), *[None] * (len(bottoms) - 1)]

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The loss without the bound, which the gradient does not have either."""
        values = torch.log_softmax(bottoms[0], self.geometry) * saved["gains"]
        return [-values.sum() / saved["normaliser"]]
