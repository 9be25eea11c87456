"""Proposal, of Faster R-CNN's Caffes: regions of interest from a region proposal network."""

import math

import torch
from torch import Tensor

from imae.layers.detection.boxes import suppress
from imae.layers.layer import Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import AnchorTargetParameter, ProposalParameter


class Proposal(Layer):
    """Regions (R x 5: image, x1, y1, x2, y2), each image's best first, and as a second top their scores (R x 1).

    Bottoms: probabilities (N x 2 A x H x W, background first), offsets (N x 4 A x H x W), and the image's height, width
    and scale (along each axis, if there are two). A anchors at each position, `feat_stride` pixels apart: of each
    `ratio` (height over width) and `scale` of a square of `base_size`. Offsets move and stretch them; boxes are cut to
    the image; those whose sides are below `min_size` times the scale go; of the `pre_nms_topn` best those that overlap
    no better one by more than `nms_thresh`, at most `post_nms_topn`. Ren et al. 2015, Section 3.
    """

    type = "Proposal"
    bottoms = (3, 3)
    tops = (1, 2)
    no_gradient_to = held_fixed = frozenset({0, 1, 2})
    no_gradient_from = frozenset({0, 1})
    index_bottoms = frozenset({2})
    in_place = False
    kept = Kept()
    tops_vary = True

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings, and list the anchors."""
        self.own = self.param.proposal_param
        with self.naming():
            self.anchors = anchors_of(self.own)

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the height and the width of the map."""
        (scores, offsets, info), count = bottoms, len(self.anchors)
        if len(scores) != 4 or scores[1] != 2 * count or offsets != (scores[0], 4 * count, *scores[2:]):
            raise self.error(
                f"{count} anchors need bottoms with {2 * count} and {4 * count} channels, found {describe(scores)} and "
                f"{describe(offsets)}"
            )
        if math.prod(info) not in (3, 4):
            raise self.error(f"needs the image's height, width and scale, found {describe(info)}")
        self.geometry = scores[2:]
        places = count * math.prod(self.geometry)
        most: int = scores[0] * max(1, min(self.own.post_nms_topn or places, places))
        tops: Shapes = [(most, 5), (most, 1)]
        return tops[: len(self.param.top)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Place the anchors; for each image move, cut, sort, suppress."""
        scores, offsets, info = (x.cpu().double() for x in bottoms)
        placed, of_image = placed_at(self.anchors, self.own.feat_stride, *self.geometry), info.flatten().tolist()
        found = [self._of_image(i, placed, scores[i], offsets[i], of_image) for i in range(len(scores))]
        tops = torch.cat(found or [placed.new_zeros(0, 6)]).to(bottoms[0])
        return [tops[:, :5], tops[:, 5:]][: len(self.param.top)]

    def _of_image(self, image: int, boxes: Tensor, scores: Tensor, offsets: Tensor, info: list[float]) -> Tensor:
        """The regions of one image with their scores (R x 6); one of zeros where none is large enough."""
        height, width, *scale = info
        offsets = offsets.reshape(-1, 4, *self.geometry).permute(2, 3, 0, 1).reshape(-1, 4)
        ends = torch.tensor([width, height] * 2, dtype=torch.float64) - 1
        boxes = torch.minimum(moved(boxes, offsets).clamp_min(0), ends)
        score = scores[len(self.anchors) :].permute(1, 2, 0).flatten()
        least = self.own.min_size * torch.tensor([scale[-1], scale[0]])
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= least).all(1)
        boxes, score = boxes[large], score[large]
        order = score.argsort(descending=True, stable=True)[: self.own.pre_nms_topn or None]
        order = order[suppress(boxes[order], self.own.nms_thresh, pixel=1)][: self.own.post_nms_topn or None]
        if not len(order):
            return boxes.new_tensor([[image, 0, 0, 0, 0, 0]])
        return torch.cat([boxes.new_full((len(order), 1), image), boxes[order], score[order][:, None]], 1)

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """TopK, NonMaxSuppression; the boxes by Mul, Exp, Add, Max and Min. Height and width of the map are fixed."""
        graph.whole = True
        count, places = len(self.anchors), len(self.anchors) * math.prod(self.geometry)

        def number(value: float | list[int] | Tensor) -> str:
            return graph.constant(f"{self.name}/number", value)

        def part(value: str, first: int, end: int, axis: int) -> str:
            return graph.add("Slice", [value, number([first]), number([end]), number([axis])])

        placed = placed_at(self.anchors, self.own.feat_stride, *self.geometry)
        offsets = graph.reshape(bottoms[1], [0, count, 4, *self.geometry])
        offsets = graph.reshape(graph.add("Transpose", [offsets], perm=[0, 3, 4, 1, 2]), [0, places, 4])
        sides, middle = number(placed[:, 2:] - placed[:, :2] + 1), number((placed[:, :2] + placed[:, 2:] + 1) / 2)
        centre = graph.add("Add", [graph.add("Mul", [part(offsets, 0, 2, 2), sides]), middle])
        half = graph.add("Mul", [graph.add("Mul", [graph.add("Exp", [part(offsets, 2, 4, 2)]), sides]), number(0.5)])
        boxes = graph.add("Concat", [graph.add("Sub", [centre, half]), graph.add("Add", [centre, half])], axis=2)
        info = graph.reshape(bottoms[2], [-1])
        ends = graph.add("Sub", [graph.add("Gather", [info, number([1, 0, 1, 0])]), number(1.0)])
        boxes = graph.add("Min", [graph.add("Max", [boxes, number(0.0)]), ends])
        lengths = graph.add("Sub", [part(boxes, 2, 4, 2), part(boxes, 0, 2, 2)])
        least = graph.add("Mul", [graph.add("Gather", [info, number([-1, 2])]), number(float(self.own.min_size))])
        lacking = graph.add("Sub", [graph.add("Sub", [least, number(1.0)]), lengths])
        small = graph.add("Greater", [graph.reduce("ReduceMax", lacking, [2], keepdims=False), number(0.0)])
        scores = graph.add("Transpose", [part(bottoms[0], count, 2 * count, 1)], perm=[0, 2, 3, 1])
        scores = graph.add("Where", [small, number(-torch.inf), graph.reshape(scores, [0, places])])
        score, place = graph.name(f"{self.name}/score"), graph.name(f"{self.name}/place")
        graph.node("TopK", [scores, number([min(self.own.pre_nms_topn or places, places)])], [score, place], axis=1)
        along = graph.add("Expand", [graph.unsqueeze(place, [2]), number([1, 1, 4])])
        best = graph.add("GatherElements", [boxes, along], axis=1)
        reaching = graph.add("Add", [best, number(torch.tensor([0.0, 0.0, 1.0, 1.0]))])
        limits = [number([self.own.post_nms_topn or places]), number(self.own.nms_thresh), number(-3e38)]
        left = graph.add("NonMaxSuppression", [reaching, graph.unsqueeze(score, [1]), *limits])
        at = graph.add("Gather", [left, number([0, 2])], axis=1)
        scored = graph.unsqueeze(graph.add("GatherND", [score, at]), [1])
        image = graph.cast(part(left, 0, 1, 1), "FLOAT")
        rows = graph.add("Concat", [image, graph.add("GatherND", [best, at]), scored], axis=1)
        some = graph.sizes(rows, 0, 1)  # where there is none, one of zeros
        end = graph.add("Where", [graph.add("Equal", [some, number([0])]), number([1]), some])
        rows = graph.add("Concat", [rows, number(torch.zeros(1, 6))], axis=0)
        rows = graph.add("Slice", [rows, number([0]), end])
        for top, first, last in zip(tops, (0, 5), (5, 6), strict=False):
            graph.node("Slice", [rows, number([first]), number([last]), number([1])], [top])


def anchors_of(own: ProposalParameter | AnchorTargetParameter) -> Tensor:
    """Return the anchors of these settings (A x 4), in three ratios and at three scales unless they say which.

    Raises InputError for a number that makes no anchor.
    """
    ratios, scales = list(own.ratio) or [0.5, 1.0, 2.0], list(own.scale) or [8.0, 16.0, 32.0]
    if not all(0 < number < 1e6 for number in (*ratios, *scales, own.feat_stride, own.base_size)):
        raise InputError("ratio, scale, feat_stride and base_size must be above 0, and below 1e6")
    return anchors(own.base_size, ratios, scales)


def placed_at(boxes: Tensor, stride: float, height: int, width: int) -> Tensor:
    """Return the anchors `boxes` (A x 4) at all positions of a map, `stride` apart: H W A x 4."""
    y, x = (torch.arange(n, dtype=torch.float64) * stride for n in (height, width))
    shift = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).repeat(1, 1, 2)[:, :, None]
    return (boxes + shift).view(-1, 4)


def anchors(base: float, ratios: list[float], scales: list[float]) -> Tensor:
    """Return boxes (A x 4) around the square (0, 0, base - 1, base - 1), ratio by ratio, scale by scale."""
    centre = (base - 1) / 2
    found = []
    for ratio in ratios:
        width = _rounded(math.sqrt(base * base / ratio))
        height = _rounded(width * ratio)
        for scale in scales:
            x, y = (width * scale - 1) / 2, (height * scale - 1) / 2
            found.append([centre - x, centre - y, centre + x, centre + y])
    return torch.tensor(found, dtype=torch.float64)


def moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Return boxes (P x 4) with their centres moved and their sides stretched by offsets (dx, dy, log w, log h)."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    centre = boxes[:, :2] + size / 2 + offsets[:, :2] * size
    half = size * offsets[:, 2:].exp() / 2
    return torch.cat([centre - half, centre + half], 1)


def _rounded(x: float) -> float:
    """To the nearest whole number, halves to the even one as NumPy's."""
    return float(round(x))
