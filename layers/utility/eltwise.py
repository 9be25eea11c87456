"""Eltwise: the sum, product or maximum of blobs of one shape."""

from functools import reduce
from itertools import accumulate

import torch

from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe


class Eltwise(Layer):
    """SUM: y = sum of coeff_i x_i; PROD: y = product of x_i; MAX: y = max of x_i, elementwise.

    At a tie MAX gives the gradient to the second of the first two bottoms, and to the earlier one after that.
    """

    type = "Eltwise"
    bottoms = (2, None)
    capturable = True

    def setup(self, bottoms: Shapes) -> None:
        param = self.param.eltwise_param
        self.operation = param.EltwiseOp.Name(param.operation)
        if len(param.coeff) not in (0, len(bottoms)):
            raise self.error(f"needs a coeff for each of its {len(bottoms)} bottoms, or none, not {len(param.coeff)}")
        if self.operation == "PROD" and param.coeff:
            raise self.error("coeff goes with SUM only")
        self.coeff = list(param.coeff) or [1.0] * len(bottoms)

    def reshape(self, bottoms: Shapes) -> Shapes:
        if any(shape != bottoms[0] for shape in bottoms):
            raise self.error(f"its bottoms differ in shape: {', '.join(map(describe, bottoms))}")
        return bottoms[:1]

    def keeps(self) -> Kept:
        """The bottoms, but of a sum."""
        return Kept(bottoms=() if self.operation == "SUM" else tuple(range(len(self.coeff))))

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        if self.operation == "SUM":
            first, *others = zip(bottoms, self.coeff, strict=True)
            y = first[0] * first[1] if first[1] != 1 else first[0]
            for i, (x, coeff) in enumerate(others):
                y = torch.add(y, x, alpha=coeff) if i == 0 else y.add_(x, alpha=coeff)
            return [y]
        _, *partial, y = accumulate(bottoms, torch.mul if self.operation == "PROD" else torch.maximum)
        saved["partial"] = partial
        return [y]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """SUM: dx_i = coeff_i dy; PROD: dx_i = dy times the other bottoms; MAX: dx_i = dy where x_i won."""
        dy = top_diffs[0]
        if self.operation == "SUM":
            return [None if not need else dy if c == 1 else dy * c for c, need in zip(self.coeff, needs, strict=True)]
        diffs: Diffs = []
        # From the last bottom to the first: dy becomes what is left for the product, or maximum, of those before.
        for x, before in zip(bottoms[:0:-1], [*saved["partial"][::-1], bottoms[0]], strict=True):
            if self.operation == "PROD":
                diffs.append(dy * before)
                dy = dy * x
            else:
                compare = torch.ge if before is bottoms[0] else torch.gt
                won = compare(x, before, out=torch.empty_like(dy)).mul_(dy)
                diffs.append(won)
                dy = dy - won
        return [diff if need else None for diff, need in zip([dy, *diffs[::-1]], needs, strict=True)]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        if self.operation == "MAX":
            graph.node("Max", bottoms, tops)
        elif self.operation == "PROD":
            *first, last = bottoms
            graph.node("Mul", [reduce(lambda a, b: graph.add("Mul", [a, b]), first), last], tops)
        else:
            terms = [
                x if c == 1 else graph.add("Mul", [x, graph.constant(f"{self.name}_coeff{i}", torch.tensor(c))])
                for i, (x, c) in enumerate(zip(bottoms, self.coeff, strict=True))
            ]
            graph.node("Sum", terms, tops)
