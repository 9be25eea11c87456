"""Cross entropy with a matrix of gains: which confusions cost how much."""

import torch
from torch import Tensor

from imae.layers.layer import Saved, Shapes, Tensors, describe
from imae.layers.loss.sample_loss import OnLogits
from imae.layers.registry import register
from imae.prototxt_like.binary import read_binaryproto
from imae.prototxt_like.errors import InputError


@register
class InfogainLoss(OnLogits):
    """-sum over l of H[y, l] log p_l, p = softmax of the logits along `axis`; with the identity as H, cross entropy.

    H (C x C, in any shape) is a third bottom, or the `source`, a binaryproto. Gradient by the logits:
    p_l sum_k H[y, k] - H[y, l].
    """

    type = "InfogainLoss"
    bottoms = (2, 3)
    no_gradient_to = frozenset({1, 2})
    index_bottoms = frozenset({1, 2})  # H is as exact as the labels that it is for
    smallest = 1e-20

    def setup(self, bottoms: Shapes) -> None:
        """Read the matrix, unless it is a bottom."""
        super().setup(bottoms)
        if self.param.loss_param.HasField("normalize"):
            raise self.error("takes no loss_param { normalize }, only normalization: VALID or BATCH_SIZE")
        param = self.param.infogain_loss_param
        if len(bottoms) == 3:
            return
        if not param.HasField("source"):
            raise self.error("needs its matrix as a third bottom, or as infogain_loss_param { source }")
        try:
            matrix = read_binaryproto(self.context.find(param.source))
        except InputError as error:
            raise self.error(str(error)) from None
        dtype = torch.float64 if self.context.dtype == torch.float64 else torch.float32
        self.matrix = torch.from_numpy(matrix).to(self.context.device, dtype)

    def classes_axis(self) -> int:
        """That of `infogain_loss_param`."""
        axis: int = self.param.infogain_loss_param.axis
        return axis

    def reshape(self, bottoms: Shapes) -> Shapes:
        """As of all losses; checks the matrix's size."""
        tops = super().reshape(bottoms)
        shape = bottoms[2] if len(bottoms) == 3 else tuple(self.matrix.shape)
        classes = bottoms[0][self.geometry]
        if torch.Size(shape).numel() != classes**2:
            raise self.error(f"{classes} classes need a matrix of {classes}x{classes}, found {describe(shape)}")
        return tops

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The sum of the values of the samples that count, over the normaliser."""
        saved["matrix"] = bottoms[2] if len(bottoms) == 3 else self.matrix
        return super().forward(bottoms, saved)

    def gains(self, saved: Saved) -> Tensor:
        """H[y], along the classes of each sample (as p)."""
        p, index = saved["p"], saved["index"]
        classes = p.shape[self.geometry]
        matrix = saved["matrix"].to(p.dtype).reshape(classes, classes)
        gains: Tensor = matrix[index.squeeze(self.geometry)].movedim(-1, self.geometry)
        return gains

    def value(self, saved: Saved) -> Tensor:
        """-sum of H[y, l] log p_l, p_l being bounded by 1e-20 as in Caffe."""
        log_p: Tensor = saved["p"].clamp_min(self.smallest).log()
        return -(self.gains(saved) * log_p).sum(self.geometry, keepdim=True)

    def gradient(self, saved: Saved) -> Tensor:
        """p_l sum_k H[y, k] - H[y, l]."""
        gains = self.gains(saved)
        gradient: Tensor = saved["p"] * gains.sum(self.geometry, keepdim=True) - gains
        return gradient

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """The loss without the bound, which the gradient does not have either."""
        log_p = torch.log_softmax(bottoms[0], self.geometry)
        return [self.mean(-(self.gains(saved) * log_p).sum(self.geometry, keepdim=True), saved)]
