"""AnchorTarget, py-faster-rcnn's: which anchors of a region proposal network are objects, and where these are."""

import math

import torch
from torch import Tensor

from imae.layers.detection.boxes import encode, overlaps, with_ends
from imae.layers.detection.proposal import anchors_of, placed_at
from imae.layers.layer import Kept, Layer, Saved, Shapes, Tensors, describe
from imae.layers.random_streams import permutation
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import AnchorTargetParameter, ProposalTargetParameter


class AnchorTarget(Layer):
    """Labels (1 x 1 x A H x W: 1 an object, 0 none, -1 not to be learned), offsets, their inside and outside weights.

    Bottoms: any map of H x W of one image, annotated boxes (G x 5: x1, y1, x2, y2, class), the image's height, width
    and scale, and what else is not read. Anchors are Proposal's; those that leave the image by more than
    `allowed_border` are -1. Those that overlap a box most, or by `positive_overlap`, are 1; the others that overlap
    none by `negative_overlap` are 0. At random, at most `batch_size` times `fg_fraction` of 1, and of 0 what is left of
    `batch_size`, remain. The offsets (1 x 4 A x H x W) lead to the box that is overlapped most. Inside weights are 1
    for objects, outside weights 1 over the number of labels. Ren et al. 2015, Section 3.1.2.
    """

    type = "AnchorTarget"
    bottoms = (3, 4)
    tops = (4, 4)
    no_gradient_to = held_fixed = frozenset({0, 1, 2, 3})
    no_gradient_from = frozenset({0, 1, 2, 3})
    index_bottoms = frozenset({1, 2})
    index_tops = frozenset({0})
    in_place = False
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings, and list the anchors."""
        self.own = self.param.anchor_target_param
        with self.naming():
            self.anchors = anchors_of(self.own)
            check_fractions(self.own, "positive_overlap", "negative_overlap", "fg_fraction")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the height and the width of the map."""
        scores, boxes, info = bottoms[:3]
        if len(scores) != 4 or scores[0] != 1 or math.prod(info) not in (3, 4) or math.prod(boxes[1:]) != 5:
            raise self.error(
                "needs a map of one image, boxes of G x 5 and the image's height, width and scale, found "
                f"{', '.join(map(describe, bottoms[:3]))}"
            )
        count, (height, width) = len(self.anchors), scores[2:]
        self.geometry = height, width
        return [(1, 1, count * height, width), *[(1, 4 * count, height, width)] * 3]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Match, choose, encode."""
        boxes, info = bottoms[1].cpu().double().reshape(-1, 5)[:, :4], bottoms[2].flatten().tolist()
        placed, border = placed_at(self.anchors, self.own.feat_stride, *self.geometry), self.own.allowed_border
        ends = torch.tensor([info[1], info[0]], dtype=torch.float64) + border
        inside = (placed[:, :2] >= -border).all(1) & (placed[:, 2:] < ends).all(1)
        overlap = torch.where(inside[:, None], overlaps(with_ends(placed), with_ends(boxes)), -1)
        some = overlap.numel() > 0
        largest = overlap.amax(1) if some else inside.double() - 1
        label = torch.where(inside & (largest < self.own.negative_overlap), 0.0, -1.0).double()
        if some:
            label[inside & (overlap == overlap.amax(0)).any(1)] = 1
        label[largest >= self.own.positive_overlap] = 1
        order = random_order(self, len(placed))
        leave(label, 1, int(self.own.fg_fraction * self.own.batch_size), order)
        leave(label, 0, self.own.batch_size - int((label == 1).sum()), order)
        offsets = torch.zeros_like(placed)
        if some:
            offsets = encode("CENTER_SIZE", with_ends(boxes)[overlap.argmax(1)], with_ends(placed), None)
            offsets[~inside] = 0
        weights = (label == 1).double()[:, None].expand(-1, 4)
        outside = (label >= 0).double()[:, None].expand(-1, 4) / (label >= 0).sum().clamp_min(1)
        height, width = self.geometry
        tops = [
            values.reshape(height, width, len(self.anchors) * each).permute(2, 0, 1)[None].to(bottoms[1], copy=True)
            for values, each in ((label, 1), (offsets, 4), (weights, 4), (outside, 4))
        ]
        return [tops[0].reshape(1, 1, len(self.anchors) * height, width), *(top.contiguous() for top in tops[1:])]


def random_order(layer: Layer, count: int) -> Tensor:
    """Return the places 0 .. `count` - 1 in an order of this layer and pass alone, on the host."""
    passes = layer.context.passes
    return permutation(count, passes.seed, layer.name, passes.number)


def check_fractions(settings: AnchorTargetParameter | ProposalTargetParameter, *names: str) -> None:
    """Raise InputError unless the settings of these names lie between 0 and 1."""
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"{name} must lie between 0 and 1, not {getattr(settings, name):g}")


def leave(label: Tensor, value: int, most: int, order: Tensor) -> None:
    """Make all labels of `value` but the `most` that come first in `order` -1, in place."""
    label[order[label[order] == value][max(0, most) :]] = -1
