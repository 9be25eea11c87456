"""MultiBoxLoss, of SSD's Caffe: of offsets and scores of boxes, from the annotated boxes that they are matched with."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imae.layers.detection.boxes import decode, encode, overlaps, suppress
from imae.layers.layer import Diffs, Saved, Shapes, Tensors, describe
from imae.layers.loss.labels import Normaliser
from imae.layers.loss.loss_layer import Loss, at_least_float32
from imae.prototxt_like.schema import MultiBoxLossParameter, PriorBoxParameter

_UNMATCHED, _IGNORED = -1, -2
_LEAST = math.log(torch.finfo(torch.float32).tiny)
"""Of a logarithm of a probability."""


@dataclass(frozen=True)
class _Image:
    """What is known of one image, on the host."""

    labels: Tensor
    boxes: Tensor
    """The annotated ones, G x 4."""
    offsets: Tensor
    """places x P x 4."""
    scores: Tensor
    """P x C."""
    priors: Tensor
    variances: Tensor
    decoded: Tensor
    """The boxes of the offsets, places x P x 4."""


class MultiBoxLoss(Loss):
    """(loc_weight sum of l(offset - that of the matched box) + sum of the loss of scores) / number of matches.

    Bottoms: offsets (N x 4 P, or with `share_location: false` N x 4 P C), scores (N x P C), priors (1 x 2 x 4 P, see
    PriorBox), annotated boxes (1 x 1 x G x 8): image, or -1 for a row that is none, label, a number that is not read,
    xmin, ymin, xmax, ymax, whether it is difficult. Each annotated box is matched with the prior (or, without
    `use_prior_for_matching`, the decoded box) that overlaps it most; with PER_PREDICTION each other prior, too, with
    the box that it overlaps most, if by `overlap_threshold`. l is smooth L1 or half the square; scores have the softmax
    loss, or the logistic one of each class. Of the unmatched priors that overlap by less than `neg_overlap`, the
    `neg_pos_ratio` times the matches with the largest losses are background; HARD_EXAMPLE takes the `sample_size`
    priors of an image with the largest losses, matched or not; NONE takes all. `normalization` is as for
    SoftmaxWithLoss. Images without a box take part with NONE alone. Liu et al. 2016.

    With `encode_variance_in_target` the gradient is by the offset over its variance, as in the fork. With LOGISTIC a
    target is 1 for the label, and for the background of what is mined, else 0: the fork begins with all at the
    background's number, and with NONE counts rows of the second image on wrongly.
    """

    type = "MultiBoxLoss"
    bottoms = (4, 4)
    predictions = 3
    no_gradient_to = held_fixed = frozenset({2, 3})
    capturable = False

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings."""
        self.own = own = self.param.multibox_loss_param
        self.code = PriorBoxParameter.CodeType.Name(own.code_type)
        self.mining = MultiBoxLossParameter.MiningType.Name(own.mining_type)
        self.background = own.background_label_id
        self.logistic = own.conf_loss_type == MultiBoxLossParameter.LOGISTIC
        self.smooth = own.loc_loss_type == MultiBoxLossParameter.SMOOTH_L1
        self.normaliser = Normaliser(self.param.loss_param)
        # The first two of the layer's `propagate_down` say which of the two losses there are.
        self.parts = [*self.param.propagate_down, True, True][:2] if self.param.propagate_down else [True, True]
        if own.num_classes < 1:
            raise self.error("num_classes is missing or 0")
        if not self.logistic and not 0 <= self.background < own.num_classes:
            raise self.error(f"background_label_id is {self.background}, expected 0 to {own.num_classes - 1}")
        if own.HasField("do_neg_mining") and own.do_neg_mining != (self.mining != "NONE"):
            raise self.error(f"do_neg_mining: {str(own.do_neg_mining).lower()} and mining_type: {self.mining}")
        if self.mining != "NONE" and not own.share_location:
            raise self.error(f"mining_type: {self.mining} needs share_location: true; expected mining_type: NONE")
        if self.mining == "HARD_EXAMPLE" and own.sample_size < 1:
            raise self.error(f"sample_size is {own.sample_size}, expected at least 1")
        if own.map_object_to_agnostic and own.num_classes != 1 + (self.background >= 0):
            raise self.error(f"map_object_to_agnostic has one class of objects; num_classes is {own.num_classes}")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """A scalar; the geometry is the numbers of images and priors, and of places for offsets."""
        location, confidence, prior, annotated = bottoms
        classes, places = self.own.num_classes, 1 if self.own.share_location else self.own.num_classes
        if len(prior) != 3 or prior[:2] != (1, 2) or prior[2] % 4:
            raise self.error(f"needs priors of 1 x 2 x 4 P, found {describe(prior)}")
        if len(annotated) != 4 or annotated[:2] != (1, 1) or annotated[3] != 8:
            raise self.error(f"needs annotated boxes of 1 x 1 x G x 8, found {describe(annotated)}")
        count, images = prior[2] // 4, self.check_batch(bottoms)
        if [torch.Size(shape[1:]).numel() for shape in bottoms[:2]] != [4 * count * places, count * classes]:
            raise self.error(
                f"{count} priors and {classes} classes do not fit offsets of {describe(location)} and scores of "
                f"{describe(confidence)}"
            )
        self.geometry = images, count, places
        return [()]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Match, mine, and sum the losses of what is left."""
        images, count, places = self.geometry
        dtype = at_least_float32(bottoms[0]).dtype
        location, confidence, prior, rows = (x.to("cpu", dtype) for x in bottoms)
        offsets = location.reshape(images, count, places, 4).transpose(1, 2)
        scores = confidence.reshape(images, count, self.own.num_classes)
        priors, variances = prior.reshape(2, count, 4)
        decoded = decode(self.code, offsets, priors, None if self.own.encode_variance_in_target else variances)
        at = [torch.zeros(3, 0, dtype=torch.int64)]
        residuals, numbers, targets = [offsets.new_zeros(0, 4)], [at[0][0]], [scores.new_zeros(0, self.own.num_classes)]
        for i, (labels, boxes) in enumerate(self._annotated(rows.reshape(-1, 8), images)):
            image = _Image(labels, boxes, offsets[i], scores[i], priors, variances, decoded[i])
            matches, largest = self._matches(image)
            target = self._targets(image, matches)
            chosen = torch.arange(count) if self.mining == "NONE" else self._mine(image, matches, largest, target)
            place, which = (matches >= 0).nonzero().unbind(1)
            at.append(torch.stack([torch.full_like(place, i), which, place]))
            residuals.append(self._residuals(image, matches))
            numbers.append(i * count + chosen)
            targets.append(target[chosen])
        residual, number, target = torch.cat(residuals), torch.cat(numbers), torch.cat(targets)
        chosen_scores = scores.flatten(0, 1)[number]
        by = self.normaliser.of_all(len(residual) if self.normaliser.mode == "VALID" else images * count, images)
        saved.update(scale=1 / by, like=[(x.shape, x.dtype, x.device) for x in bottoms[:2]])
        saved["location"], saved["scores"] = (torch.cat(at, 1), residual), (number, chosen_scores, target)
        loss = self.parts[0] * self.own.loc_weight * self._of_residuals(residual).sum()
        loss = (loss + self.parts[1] * self._of_scores(chosen_scores, target).sum()) * saved["scale"]
        return [loss.to(bottoms[0].device)]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """l' of the residuals, p - target of the chosen scores."""
        images, count, places = self.geometry
        scale = top_diffs[0].cpu() * saved["scale"]
        (image, which, place), residual = saved["location"]
        by_offset = residual.new_zeros(images, count, places, 4)
        by_offset[image, which, place] = residual.clamp(-1, 1) if self.smooth else residual
        number, scores, target = saved["scores"]
        by_score = scores.new_zeros(images * count, self.own.num_classes)
        by_score[number] = (scores.sigmoid() if self.logistic else scores.softmax(1)) - target
        diffs = by_offset * (scale * self.parts[0] * self.own.loc_weight), by_score * (scale * self.parts[1])
        return [
            *(
                diff.reshape(shape).to(device, dtype) if need else None
                for diff, (shape, dtype, device), need in zip(diffs, saved["like"], needs[:2], strict=True)
            ),
            None,
            None,
        ]

    def _annotated(self, rows: Tensor, images: int) -> list[tuple[Tensor, Tensor]]:
        """The labels and the boxes (G x 4) of each image."""
        rows = rows[rows[:, 0].long() != -1]
        image, label = rows[:, 0].long(), rows[:, 1].long()
        if len(rows) and not 0 <= int(image.min()) <= int(image.max()) < images:
            raise self.error(f"an annotated box is of image {int(image.max())}, there are {images}")
        if self.own.map_object_to_agnostic:
            label = torch.full_like(label, self.background + 1)
        wrong = (label < 0) | (label >= self.own.num_classes) | (label == self.background)
        if wrong.any():
            raise self.error(
                f"an annotated box has the label {int(label[wrong][0])}, expected 0 to {self.own.num_classes - 1} but "
                f"for the background's, {self.background}"
            )
        counts = (rows[:, 7] == 0) | self.own.use_difficult_gt
        each = [(image == i) & counts for i in range(images)]
        return [(label[chosen], rows[chosen, 3:7]) for chosen in each]

    def _matches(self, image: _Image) -> tuple[Tensor, Tensor]:
        """With which box each prior is matched (places x P), and by how much it overlaps one at most."""
        _, count, places = self.geometry
        if self.own.share_location or self.own.use_prior_for_matching:
            candidates = image.priors if self.own.use_prior_for_matching else image.decoded[0]
            match, largest = self._match(candidates, image.boxes)
            if self.own.share_location:
                return match[None], largest
            label = torch.full_like(match, _UNMATCHED)
            label[match >= 0] = image.labels[match[match >= 0]]
            return torch.where(label == torch.arange(places)[:, None], match, _UNMATCHED), largest
        matches = torch.full((places, count), _UNMATCHED)
        for place in set(range(places)) - {self.background}:
            own = (image.labels == place).nonzero().flatten()
            match, _ = self._match(image.decoded[place], image.boxes[own])
            matches[place, match >= 0] = own[match[match >= 0]]
        return matches, image.boxes.new_zeros(count)

    def _match(self, candidates: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Match each box with the candidate that overlaps it most, then, PER_PREDICTION, the other candidates."""
        found = np.full(len(candidates), _UNMATCHED)
        overlap = overlaps(candidates, boxes).numpy()
        overlap[overlap <= 1e-6] = 0
        if self.own.ignore_cross_boundary_bbox:
            outside = ((candidates < 0) | (candidates > 1)).any(1).numpy()
            found[outside], overlap[outside] = _IGNORED, 0
        largest, left = overlap.max(1, initial=0), overlap.copy()
        for _ in range(len(boxes)):
            which, box = divmod(int(left.argmax()), len(boxes))
            if not left[which, box]:
                break
            found[which], left[which], left[:, box] = box, 0, 0
        if len(boxes) and self.own.match_type == MultiBoxLossParameter.PER_PREDICTION:
            rest = (found == _UNMATCHED) & (largest > 0) & (largest >= self.own.overlap_threshold)
            found[rest] = overlap[rest].argmax(1)
        return torch.from_numpy(found), torch.from_numpy(largest)

    def _targets(self, image: _Image, matches: Tensor) -> Tensor:
        """What each prior's scores should be (P x C)."""
        target = torch.zeros_like(image.scores)
        for match in matches:
            which = (match >= 0).nonzero().flatten()
            if not self.logistic:
                target[which] = 0  # the last place's label is right
            target[which, image.labels[match[which]]] = 1
        if 0 <= self.background < self.own.num_classes and not (self.logistic and self.mining == "NONE"):
            target[(matches < 0).all(0), self.background] = 1
        return target

    def _residuals(self, image: _Image, matches: Tensor) -> Tensor:
        """By how much the offsets of the matched priors differ from those of their boxes (M x 4)."""
        place, which = (matches >= 0).nonzero().unbind(1)
        priors, variances = image.priors[which], image.variances[which]
        encoded = self.own.encode_variance_in_target
        right = encode(self.code, image.boxes[matches[place, which]], priors, None if encoded else variances)
        residual = image.offsets[place, which] - right
        if self.own.bp_inside:
            box = priors if self.own.use_prior_for_matching else image.decoded[place, which]
            residual = torch.where((box >= 0) & (box <= 1), residual, 0)
        return residual / variances if encoded else residual

    def _mine(self, image: _Image, matches: Tensor, largest: Tensor, target: Tensor) -> Tensor:
        """The priors of an image whose scores count; HARD_EXAMPLE takes back matches, in place."""
        match, hard, own = matches[0], self.mining == "HARD_EXAMPLE", self.own
        matched = match >= 0
        loss = self._of_scores(image.scores, target).sum(1)
        if hard:
            loss[matched] += self._of_residuals(self._residuals(image, matches)).sum(1)
        eligible = torch.ones_like(matched) if hard else (match == _UNMATCHED) & (largest < own.neg_overlap)
        most = own.sample_size if hard else int(int(matched.sum()) * own.neg_pos_ratio)
        order = eligible.nonzero().flatten()
        order = order[loss[order].argsort(descending=True, stable=True)]
        if own.HasField("nms_param") and own.nms_param.nms_threshold > 0:
            if own.nms_param.HasField("top_k") and own.nms_param.top_k > -1:
                order = order[: own.nms_param.top_k]
            boxes = image.priors if own.use_prior_for_nms else image.decoded[0]
            order = order[(boxes[order, 2:] - boxes[order, :2]).clamp_min(0).prod(1) >= 1e-5]
            order = order[suppress(boxes[order], own.nms_param.nms_threshold)]
        selected = torch.zeros_like(matched)
        selected[order[: most if len(image.boxes) else 0]] = True
        negative = selected & (match == _UNMATCHED)
        if hard:
            match[matched & ~selected] = _UNMATCHED
        return torch.cat([(match >= 0).nonzero().flatten(), negative.nonzero().flatten()])

    def _of_residuals(self, residual: Tensor) -> Tensor:
        size = residual.abs()
        return torch.where(size < 1, residual * residual / 2, size - 0.5) if self.smooth else residual * residual / 2

    def _of_scores(self, scores: Tensor, target: Tensor) -> Tensor:
        if self.logistic:
            return functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
        return -target * scores.log_softmax(1).clamp_min(_LEAST)
