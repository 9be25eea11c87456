"""DetectionOutput, of SSD's Caffe: the boxes that are left after non-maximum suppression."""

import torch
from torch import Tensor

from imae.layers.detection.boxes import decode, suppress
from imae.layers.layer import Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.layers.loss.loss_layer import at_least_float32
from imae.prototxt_like.schema import PriorBoxParameter


class DetectionOutput(Layer):
    """Rows (image, label, score, xmin, ymin, xmax, ymax), 1 x 1 x rows x 7, by image, then label, then score.

    Bottoms: offsets (N x 4 P, or with `share_location: false` N x 4 P C), scores (N x P C), priors (1 x 2 x 4 P, see
    PriorBox). For each class but `background_label_id`: of the priors with a score above `confidence_threshold`, the
    `nms_param.top_k` best, without those that overlap a better one by more than `nms_threshold`; of an image's all
    the `keep_top_k` best. Where nothing is left in any image, there is a row for each: its number, then -1.
    `code_type` and `variance_encoded_in_target` say what the offsets mean. Liu et al. 2016.
    """

    type = "DetectionOutput"
    bottoms = (3, 3)
    no_gradient_to = held_fixed = frozenset({0, 1, 2})
    no_gradient_from = frozenset({0})
    in_place = False
    kept = Kept()
    tops_vary = True

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings."""
        self.own = param = self.param.detection_output_param
        self.code = PriorBoxParameter.CodeType.Name(param.code_type)
        if param.num_classes < 1:
            raise self.error("num_classes is missing or 0")
        if not param.nms_param.nms_threshold >= 0:
            raise self.error(f"nms_threshold must not be negative, not {param.nms_param.nms_threshold:g}")
        if not 0 < param.nms_param.eta <= 1:
            raise self.error(f"eta must lie in (0, 1], not {param.nms_param.eta:g}")
        self.threshold = param.confidence_threshold if param.HasField("confidence_threshold") else -torch.inf
        self.top_k = param.nms_param.top_k if param.nms_param.HasField("top_k") else -1

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the numbers of images and priors, and of places for offsets."""
        location, confidence, prior = bottoms
        classes, places = self.own.num_classes, 1 if self.own.share_location else self.own.num_classes
        if len(prior) != 3 or prior[:2] != (1, 2) or prior[2] % 4:
            raise self.error(f"needs priors of 1 x 2 x 4 P, found {describe(prior)}")
        count = prior[2] // 4
        of_image = [torch.Size(shape[1:]).numel() for shape in (location, confidence)]
        images = location[0] if location else 0
        if of_image != [4 * count * places, count * classes] or confidence[:1] != location[:1]:
            raise self.error(
                f"{count} priors and {classes} classes do not fit offsets of {describe(location)} and scores of "
                f"{describe(confidence)}"
            )
        self.geometry = images, count, places
        most = count * classes if self.own.keep_top_k < 0 else min(self.own.keep_top_k, count * classes)
        return [(1, 1, images * max(1, most), 7)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Decode, suppress, keep the best."""
        images, count, places = self.geometry
        location, confidence, prior = map(at_least_float32, bottoms)
        priors, variances = prior.view(2, count, 4).cpu()
        encoded = self.own.variance_encoded_in_target
        offsets = location.reshape(images, count, places, 4).transpose(1, 2).cpu()
        boxes = decode(self.code, offsets, priors, None if encoded else variances)
        scores = confidence.reshape(images, count, -1).transpose(1, 2).cpu()
        rows = [row for image in range(images) for row in self._of_image(image, boxes[image], scores[image])]
        if not rows:
            rows = [torch.tensor([image, *[-1.0] * 6]) for image in range(images)]
        return [torch.stack(rows).to(bottoms[0])[None, None] if rows else location.new_zeros(1, 1, 0, 7)]

    def _of_image(self, image: int, boxes: Tensor, scores: Tensor) -> list[Tensor]:
        """The rows of one image, from its boxes (places x P x 4) and scores (C x P)."""
        found = []
        for label in range(len(scores)):
            if label == self.own.background_label_id:
                continue
            above = (scores[label] > self.threshold).nonzero().flatten()
            order = above[scores[label][above].argsort(descending=True, stable=True)]
            order = order[: self.top_k] if self.top_k > -1 else order
            candidates = boxes[label if len(boxes) > 1 else 0][order]
            nms = self.own.nms_param
            left = order[suppress(candidates, nms.nms_threshold, eta=nms.eta)]
            found += [
                (score, label, place) for score, place in zip(scores[label][left].tolist(), left.tolist(), strict=True)
            ]
        if -1 < self.own.keep_top_k < len(found):
            best = sorted(range(len(found)), key=lambda i: -found[i][0])[: self.own.keep_top_k]
            found = [found[i] for i in sorted(best)]
        return [
            torch.cat([boxes.new_tensor([image, label, score]), boxes[label if len(boxes) > 1 else 0][place]])
            for score, label, place in found
        ]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """TopK of each class, NonMaxSuppression, TopK of each image, NonZero; decoded by Mul, Exp and Add."""
        if self.own.nms_param.eta != 1:
            raise self.error("has no ONNX form with an eta other than 1: NonMaxSuppression has one threshold")
        graph.whole = True
        _, count, places = self.geometry
        labels = [label for label in range(self.own.num_classes) if label != self.own.background_label_id]
        best = count if self.top_k < 0 else min(self.top_k, count)
        each = len(labels) * best  # candidates of an image

        def number(value: float | list[int]) -> str:
            return graph.constant(f"{self.name}/number", value)

        def chosen(value: str, which: list[int] | str, axis: int) -> str:
            index = which if isinstance(which, str) else number(which)
            return graph.add("Gather", [value, index], axis=axis)

        boxes = graph.add(
            "Expand", [self._decoded(graph, bottoms), number([1, len(labels) if places == 1 else 1, 1, 1])]
        )
        boxes = boxes if places == 1 else chosen(boxes, labels, 1)
        scores = graph.add("Transpose", [graph.reshape(bottoms[1], [0, count, -1])], perm=[0, 2, 1])
        scores = graph.reshape(chosen(scores, labels, 1), [-1, count])
        score, place = graph.name(f"{self.name}/score"), graph.name(f"{self.name}/place")
        graph.node("TopK", [scores, number([best])], [score, place], axis=1)
        along = graph.add("Expand", [graph.unsqueeze(place, [2]), number([1, 1, 4])])
        boxes = graph.add("GatherElements", [graph.reshape(boxes, [-1, count, 4]), along], axis=1)
        threshold = [] if self.threshold == -torch.inf else [number(self.threshold)]
        settings = [number([best]), number(self.own.nms_param.nms_threshold), *threshold]
        # A box whose ends are the wrong way round overlaps none; ONNX would turn them.
        solid = graph.add("Max", [boxes, chosen(boxes, [0, 1, 0, 1], 2)])
        left = chosen(graph.add("NonMaxSuppression", [solid, graph.unsqueeze(score, [1]), *settings]), [0, 2], 1)
        nothing = graph.add("Expand", [number(0.0), graph.add("Shape", [score])])
        ones = graph.add("Expand", [number(1.0), graph.sizes(left, 0, 1)])
        mask = graph.reshape(graph.add("ScatterND", [nothing, left, ones]), [-1, each])
        if -1 < self.own.keep_top_k < each:
            low = number(-torch.inf)
            kept = graph.add("Where", [graph.cast(mask, "BOOL"), graph.reshape(score, [-1, each]), low])
            value, index = graph.name(f"{self.name}/kept"), graph.name(f"{self.name}/index")
            graph.node("TopK", [kept, number([self.own.keep_top_k])], [value, index], axis=1)
            nothing = graph.add("Expand", [number(0.0), graph.add("Shape", [mask])])
            sound = graph.cast(graph.add("Greater", [value, low]), "FLOAT")
            mask = graph.add("ScatterElements", [nothing, index, sound], axis=1)
        found = graph.add("NonZero", [mask])
        image, at = (graph.squeeze(chosen(found, [i], 0), [0]) for i in (0, 1))
        flat = graph.add("Add", [graph.add("Mul", [image, number([each])]), at])
        label = chosen(number(labels), graph.add("Div", [at, number([best])]), 0)
        columns = [graph.cast(image, "FLOAT"), graph.cast(label, "FLOAT"), chosen(graph.reshape(score, [-1]), flat, 0)]
        rows = [*(graph.unsqueeze(column, [1]) for column in columns), chosen(graph.reshape(boxes, [-1, 4]), flat, 0)]
        rows = [graph.add("Concat", rows, axis=1)]
        # Where nothing is found, a row for each image: its number, then -1.
        images, some = graph.sizes(bottoms[0], 0, 1), graph.sizes(rows[0], 0, 1)
        numbers = graph.add("Range", [number(0), graph.squeeze(images, [0]), number(1)])
        empty = graph.add("Expand", [number(-1.0), graph.add("Concat", [images, number([6])], axis=0)])
        rows.append(graph.add("Concat", [graph.unsqueeze(graph.cast(numbers, "FLOAT"), [1]), empty], axis=1))
        end = graph.add("Where", [graph.add("Greater", [some, number([0])]), some, images])
        rows = [graph.add("Slice", [graph.add("Concat", rows, axis=0), number([0]), end])]
        graph.reshape(rows[0], [1, 1, -1, 7], tops[0])

    def _decoded(self, graph: OnnxGraph, bottoms: list[str]) -> str:
        """The boxes (N x places x P x 4), as `decode` has them."""
        _, count, places = self.geometry

        def part(value: str, first: int, end: int) -> str:
            bounds = [graph.constant(f"{value}/at", [at]) for at in (first, end, -1)]
            return graph.add("Slice", [value, *bounds])

        offsets = graph.add("Transpose", [graph.reshape(bottoms[0], [0, count, places, 4])], perm=[0, 2, 1, 3])
        both = graph.reshape(bottoms[2], [2, count, 4])
        prior, variance = (
            graph.add("Gather", [both, graph.constant(f"{both}/place", torch.tensor(i))], axis=0) for i in (0, 1)
        )
        if not self.own.variance_encoded_in_target:
            offsets = graph.add("Mul", [offsets, variance])
        if self.code == "CORNER":
            return graph.add("Add", [prior, offsets])
        low, high = part(prior, 0, 2), part(prior, 2, 4)
        size = graph.add("Sub", [high, low])
        if self.code == "CORNER_SIZE":
            return graph.add("Add", [prior, graph.add("Mul", [offsets, graph.add("Concat", [size, size], axis=1)])])
        half = graph.constant(f"{self.name}/half", 0.5)
        centre = graph.add("Mul", [graph.add("Add", [low, high]), half])
        centre = graph.add("Add", [graph.add("Mul", [part(offsets, 0, 2), size]), centre])
        reach = graph.add("Mul", [graph.add("Mul", [graph.add("Exp", [part(offsets, 2, 4)]), size]), half])
        ends = [graph.add("Sub", [centre, reach]), graph.add("Add", [centre, reach])]
        return graph.add("Concat", ends, axis=-1)
