"""ProposalTarget, py-faster-rcnn's: regions to learn from, their classes, and where their objects are."""

import math

import torch

from imae.layers.detection.anchor_target import check_fractions, random_order
from imae.layers.detection.boxes import encode, overlaps, with_ends
from imae.layers.layer import Kept, Layer, Saved, Shapes, Tensors, describe


class ProposalTarget(Layer):
    """Regions (R x 5 x 1 x 1), labels (R x 1 x 1 x 1), offsets (R x 4 K x 1 x 1), inside and outside weights of these.

    Bottoms: regions of one image (P x 5: 0, x1, y1, x2, y2), and annotated boxes (G x 5: x1, y1, x2, y2, class), which
    are taken for regions, too. A region that overlaps a box by `fg_overlap` has the class of the one that it overlaps
    most; one that does so by less than `bg_overlap_high`, and `bg_overlap_low`, is background, 0. At random, at most
    `batch_size` times `fg_fraction` of the former, and of the latter what is left of `batch_size` (0: all). The offsets
    to the box, less `mean` (0) over `std` (0.1, 0.1, 0.2, 0.2), stand at the region's class of the K = `num_classes`;
    of two, all objects' stand at 1. Both weights are 1 there. Girshick 2015, Section 2.3.
    """

    type = "ProposalTarget"
    bottoms = (2, 2)
    tops = (5, 5)
    no_gradient_to = held_fixed = frozenset({0, 1})
    no_gradient_from = frozenset({0, 1, 2, 3, 4})
    index_bottoms = frozenset({0, 1})
    index_tops = frozenset({0, 1})
    in_place = False
    kept = Kept()
    tops_vary = True

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings."""
        self.own = own = self.param.proposal_target_param
        if own.num_classes < 2:
            raise self.error(f"num_classes is {own.num_classes}, expected at least 2, the background and an object")
        with self.naming():
            check_fractions(own, "fg_fraction", "fg_overlap", "bg_overlap_high", "bg_overlap_low")
        self.mean, self.std = list(own.mean) or [0.0] * 4, list(own.std) or [0.1, 0.1, 0.2, 0.2]
        if len(self.mean) != 4 or len(self.std) != 4 or min(self.std) <= 0:
            raise self.error("mean and std take 4 numbers each, and std's are above 0")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The most that there may be."""
        regions, boxes = bottoms
        if math.prod(regions[1:]) != 5 or math.prod(boxes[1:]) != 5 or not regions or not boxes:
            raise self.error(f"needs regions of P x 5 and boxes of G x 5, found {' and '.join(map(describe, bottoms))}")
        most = regions[0] + boxes[0]
        most = min(most, self.own.batch_size or most)
        return [(most, channels, 1, 1) for channels in (5, 1, *[4 * self.own.num_classes] * 3)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Match, choose, encode."""
        own, (regions, boxes) = self.own, (x.cpu().double().reshape(-1, 5) for x in bottoms)
        if regions[:, 0].any():
            raise self.error("takes regions of one image, numbered 0")
        corners, boxes, classes = torch.cat([regions[:, 1:], boxes[:, :4]]), boxes[:, :4], boxes[:, 4].long()
        wrong = (classes < 1) | (classes >= own.num_classes) & (own.num_classes > 2)
        if wrong.any():
            raise self.error(f"a box has class {int(classes[wrong][0])}, expected 1 to {own.num_classes - 1}")
        overlap = overlaps(with_ends(corners), with_ends(boxes))
        empty = corners.new_zeros(len(corners)), torch.zeros(len(corners), dtype=torch.int64)
        largest, which = overlap.max(1) if len(boxes) else empty
        order = random_order(self, len(corners))
        most = own.batch_size or len(corners)
        objects = order[largest[order] >= own.fg_overlap][: round(own.fg_fraction * most)]
        rest = order[((largest < own.bg_overlap_high) & (largest >= own.bg_overlap_low))[order]]
        chosen = torch.cat([objects, rest[: most - len(objects)]])
        label = torch.zeros(len(chosen), dtype=torch.int64)
        label[: len(objects)] = classes[which[objects]]
        offsets = corners.new_zeros(len(chosen), own.num_classes, 4)
        weights = torch.zeros_like(offsets)
        at = torch.arange(len(objects)), label[: len(objects)].clamp_max(own.num_classes - 1)
        right = encode("CENTER_SIZE", with_ends(boxes)[which[objects]], with_ends(corners[objects]), None)
        offsets[at] = (right - offsets.new_tensor(self.mean)) / offsets.new_tensor(self.std)
        weights[at] = 1
        regions = torch.cat([corners.new_zeros(len(chosen), 1), corners[chosen]], 1)
        tops = [regions, label[:, None], *(x.flatten(1) for x in (offsets, weights, weights))]
        return [top[:, :, None, None].to(bottoms[0], copy=True) for top in tops]
