"""PSROIPooling, of R-FCN's Caffe: means over a grid on each region of interest, each cell's of maps of its own."""

import torch
from torch import Tensor

from imae.layers.indices import IndexCheck
from imae.layers.layer import Diffs, Kept, Layer, OnnxGraph, Saved, Shapes, Tensors, describe
from imae.layers.loss.loss_layer import at_least_float32


class PSROIPooling(Layer):
    """y (R x `output_dim` x g x g, g the `group_size`): means over the cells of regions, 0 for a cell that is empty.

    Bottoms: features (N x C x H x W, C = `output_dim` g g), regions (R x 5: image, x1, y1, x2, y2, both ends included),
    whose corners are rounded, then multiplied by `spatial_scale`. Cell (i, j) of class d takes channel (d g + i) g + j,
    and all pixels that it touches. Dai et al. 2016, equation 1. Sums are products of matrices, the same each time.
    """

    type = "PSROIPooling"
    bottoms = (2, 2)
    no_gradient_to = held_fixed = index_bottoms = frozenset({1})
    in_place = False
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings."""
        own = self.param.psroi_pooling_param
        if min(own.output_dim, own.group_size) < 1 or not own.spatial_scale > 0:
            raise self.error("needs spatial_scale, output_dim and group_size above 0")
        self._check = IndexCheck(self, "image", "images")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the features' shape with g x g beside the classes."""
        (features, regions), own = bottoms, self.param.psroi_pooling_param
        classes, g = own.output_dim, own.group_size
        if len(features) != 4 or not regions or torch.Size(regions[1:]).numel() != 5:
            raise self.error(
                f"needs features of 4 axes and regions of R x 5, found {describe(features)} and {describe(regions)}"
            )
        if features[1] != classes * g * g:
            raise self.error(f"needs {classes} x {g} x {g} channels, found {describe(features)}")
        self.geometry = features[0], classes, g, g, *features[2:]
        return [(regions[0], classes, g, g)]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """y = the sum over rows, times their shares, of the sum over columns, times theirs."""
        x = at_least_float32(bottoms[0]).reshape(self.geometry)
        rows, columns = saved["shares"] = self._shares(bottoms[1].flatten(1).to(x.dtype))
        y = [
            torch.einsum("ndjhw,jwr->ndjhr", x[:, :, i], columns).mul_(rows[:, None, i, None]).sum((0, 3))
            for i in range(rows.shape[1])
        ]
        return [torch.stack(y, 1).permute(3, 0, 1, 2).to(bottoms[0].dtype).contiguous()]

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """dx = dy times the shares, summed over the regions."""
        (rows, columns), dy = saved["shares"], at_least_float32(top_diffs[0]).permute(1, 2, 3, 0)
        dx = [
            torch.einsum("ndjhr,jwr->ndjhw", dy[None, :, i, :, None] * rows[:, None, i, None], columns)
            for i in range(rows.shape[1])
        ]
        n, classes, g, _, height, width = self.geometry
        shape = n, classes * g * g, height, width
        return [torch.stack(dx, 2).reshape(shape).to(top_diffs[0].dtype), None]

    def _shares(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """What share each row of each image (N x g x H x R) and each column (g x W x R) has in cells of regions."""
        n, *_, g, height, width = self.geometry
        image, corners = regions[:, 0].long(), regions[:, 1:]
        corners = (corners.abs() + 0.5).floor() * corners.sign()
        low, high = (
            part * self.param.psroi_pooling_param.spatial_scale for part in (corners[:, :2], corners[:, 2:] + 1)
        )
        cell, number = (high - low).clamp_min(0.1) / g, torch.arange(g, device=regions.device)[:, None]
        shares = []
        for axis, size in ((1, height), (0, width)):
            begin = (number * cell[:, axis] + low[:, axis]).floor().clamp(0, size)[:, None]
            end = ((number + 1) * cell[:, axis] + low[:, axis]).ceil().clamp(0, size)[:, None]
            place = torch.arange(size, device=regions.device)[:, None]
            shares.append(((place >= begin) & (place < end)) / (end - begin).clamp_min(1))
        of_image = self._check.checked(image, n) == torch.arange(n, device=regions.device)[:, None]
        return of_image[:, None, None] * shares[0], shares[1]

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Range, Floor, Ceil, Less, Div: the shares of rows and columns; MatMul, Mul, ReduceSum."""
        graph.whole = True
        _, classes, g, *_ = self.geometry

        def number(value: float | list[int] | Tensor) -> str:
            return graph.constant(f"{self.name}/number", value)

        def part(value: str, first: int, end: int) -> str:
            return graph.add("Slice", [value, number([first]), number([end]), number([1])])

        def up_to(size: str) -> str:
            bounds = [number(torch.tensor(0)), graph.squeeze(size, [0]), number(torch.tensor(1))]
            return graph.add("Range", bounds)

        regions = graph.reshape(bottoms[1], [-1, 5])
        corners = part(regions, 1, 5)
        rounded = graph.add("Floor", [graph.add("Add", [graph.add("Abs", [corners]), number(0.5)])])
        corners, scale = (
            graph.add("Mul", [rounded, graph.add("Sign", [corners])]),
            self.param.psroi_pooling_param.spatial_scale,
        )
        low = graph.add("Mul", [part(corners, 0, 2), number(scale)])
        high = graph.add("Mul", [graph.add("Add", [part(corners, 2, 4), number(1.0)]), number(scale)])
        length = graph.add("Max", [graph.add("Sub", [high, low]), number(0.1)])
        cell = graph.add("Div", [length, number(float(g))])
        count = torch.arange(g, dtype=torch.float32).view(g, 1, 1)
        n, height, width = (graph.sizes(bottoms[0], axis, axis + 1) for axis in (0, 2, 3))
        shares = []
        for axis, size in ((1, height), (0, width)):
            along, begin = (graph.reshape(part(value, axis, axis + 1), [1, 1, -1]) for value in (cell, low))
            ends = []
            for op, many in (("Floor", count), ("Ceil", count + 1)):
                at = graph.add(op, [graph.add("Add", [graph.add("Mul", [along, number(many)]), begin])])
                ends.append(graph.add("Min", [graph.add("Max", [at, number(0.0)]), graph.cast(size, "FLOAT")]))
            place = graph.reshape(graph.cast(up_to(size), "FLOAT"), [1, -1, 1])
            before = [graph.add("Less", [place, end]) for end in ends]
            inside = graph.cast(graph.add("And", [graph.add("Not", before[:1]), before[1]]), "FLOAT")
            area = graph.add("Max", [graph.add("Sub", ends[::-1]), number(1.0)])
            shares.append(graph.add("Div", [inside, area]))
        image = graph.reshape(graph.cast(part(regions, 0, 1), "INT64"), [1, -1])
        of_image = graph.cast(graph.add("Equal", [graph.reshape(up_to(n), [-1, 1]), image]), "FLOAT")
        rows, columns = graph.unsqueeze(shares[0], [0, 1, 3]), graph.unsqueeze(shares[1], [0, 1, 2])
        shape = graph.add("Concat", [n, number([classes, g, g]), height, width], axis=0)
        y = graph.add("Mul", [graph.add("MatMul", [graph.reshape(bottoms[0], shape), columns]), rows])
        y = graph.add("Mul", [y, graph.unsqueeze(of_image, [1, 2, 3, 4])])
        graph.node("Transpose", [graph.reduce("ReduceSum", y, [0, 4], keepdims=False)], tops, perm=[3, 0, 1, 2])
