"""Boxes by their corners (xmin, ymin, xmax, ymax): decoding, and non-maximum suppression."""

import importlib

import torch
from torch import Tensor

_LOW, _HIGH = slice(0, 2), slice(2, 4)


def decode(code: str, offsets: Tensor, priors: Tensor, variances: Tensor | None) -> Tensor:
    """Return the boxes (... x P x 4) that `offsets` from `priors` (P x 4) stand for, by SSD's code of that name.

    Offsets are multiplied by `variances` (P x 4) unless these are encoded in them already.
    """
    if variances is not None:
        offsets = offsets * variances
    if code == "CORNER":
        return priors + offsets
    size = priors[:, 2:] - priors[:, :2]
    if code == "CORNER_SIZE":
        return priors + offsets * torch.cat([size, size], 1)
    centre = offsets[..., :2] * size + (priors[:, :2] + priors[:, 2:]) / 2
    half = offsets[..., 2:].exp() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def encode(code: str, boxes: Tensor, priors: Tensor, variances: Tensor | None) -> Tensor:
    """Return the offsets (K x 4) from `priors` that stand for `boxes`: the inverse of `decode`."""
    size = priors[:, 2:] - priors[:, :2]
    if code == "CORNER":
        offsets = boxes - priors
    elif code == "CORNER_SIZE":
        offsets = (boxes - priors) / torch.cat([size, size], 1)
    else:
        centre = ((boxes[:, :2] + boxes[:, 2:]) - (priors[:, :2] + priors[:, 2:])) / 2
        offsets = torch.cat([centre / size, ((boxes[:, 2:] - boxes[:, :2]) / size).log()], 1)
    return offsets if variances is None else offsets / variances


def with_ends(boxes: Tensor) -> Tensor:
    """Return boxes (K x 4) whose last pixels are within, by Faster R-CNN's corners, as boxes that end behind these."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] + 1], 1)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union of each of `boxes` (K x 4) and each of `others` (L x 4), K x L."""
    low, high = (f(boxes[:, None, a], others[None, :, a]) for f, a in ((torch.maximum, _LOW), (torch.minimum, _HIGH)))
    both = (high - low).clamp_min(0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).clamp_min(0).prod(1) for x in (boxes, others)]
    return torch.where(both > 0, both / (areas[0][:, None] + areas[1] - both), 0)


def suppress(boxes: Tensor, threshold: float, *, pixel: float = 0.0, eta: float = 1.0) -> Tensor:
    """Return the places of `boxes` (K x 4, best first) that overlap no better one by more than `threshold`.

    The overlap is intersection over union, of sides that are `pixel` longer than the difference of their ends. An `eta`
    below 1 multiplies a threshold above 0.5 each time that a box is kept.
    """
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + pixel], 1)
    if eta == 1:
        importlib.import_module("torchvision")  # which registers the kernel
        places: Tensor = torch.ops.torchvision.nms(boxes, torch.arange(len(boxes), 0, -1).to(boxes), threshold)
        return places
    kept: list[int] = []
    worst = boxes.new_zeros(len(boxes))  # each box's largest overlap with one that is kept
    low, high = boxes[:, :2], boxes[:, 2:]
    area = (high - low).clamp_min(0).prod(1)
    for i in range(len(boxes)):
        if worst[i] > threshold:
            continue
        kept.append(i)
        both = (torch.minimum(high[i], high) - torch.maximum(low[i], low)).clamp_min(0).prod(1)
        worst = torch.maximum(worst, torch.where(both > 0, both / (area[i] + area - both), 0))
        if threshold > 0.5:
            threshold *= eta
    return torch.tensor(kept, dtype=torch.int64)
