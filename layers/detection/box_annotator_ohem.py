"""BoxAnnotatorOHEM, of R-FCN's Caffe: the regions with the largest losses, which alone are learned from."""

import torch

from imae.layers.layer import Kept, Layer, Saved, Shapes, Tensors, describe, with_four_axes


class BoxAnnotatorOHEM(Layer):
    """Labels (R x 1 x H x W) and weights (R x B x H x W) of the `roi_per_img` regions of each image of largest loss.

    Bottoms: regions (R x 5 x ...: image, x1, y1, x2, y2), their losses, their labels (R x 1 x ... each), and weights of
    their offsets (R x B x ...). The others get `ignore_label` and weights of 0. Shrivastava et al. 2016.
    """

    type = "BoxAnnotatorOHEM"
    bottoms = (4, 4)
    tops = (2, 2)
    no_gradient_to = held_fixed = frozenset({0, 1, 2, 3})
    no_gradient_from = frozenset({0, 1})
    index_bottoms = frozenset({0, 2})
    index_tops = frozenset({0})
    in_place = False
    capturable = True
    kept = Kept()

    def setup(self, bottoms: Shapes) -> None:
        """Check the settings."""
        if not self.param.box_annotator_ohem_param.roi_per_img:
            raise self.error("needs roi_per_img above 0")

    def reshape(self, bottoms: Shapes) -> Shapes:
        """The geometry is the bottoms' shapes with four axes."""
        four = [*map(with_four_axes, bottoms)]
        count, _, *positions = four[0]
        expected = [(count, channels, *positions) for channels in (5, 1, 1, four[3][1])]
        if four != expected:
            raise self.error(
                "needs regions of R x 5, losses and labels of R x 1 and weights of R x B, found "
                f"{' and '.join(map(describe, bottoms))}"
            )
        self.geometry = tuple(expected)
        return [expected[1], expected[3]]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Sort by loss, then by image: who comes early in its image is chosen."""
        regions, losses, labels, weights = (x.reshape(shape) for x, shape in zip(bottoms, self.geometry, strict=True))
        order = losses.flatten().argsort(descending=True, stable=True)
        of_image, by_image = regions[:, 0].flatten()[order].long().sort(stable=True)
        place = torch.arange(len(order), device=order.device) - torch.searchsorted(of_image, of_image)
        own = self.param.box_annotator_ohem_param
        chosen = torch.zeros_like(order, dtype=torch.bool)
        chosen[order[by_image]] = place < own.roi_per_img
        chosen = chosen.view(labels.shape)
        return [torch.where(chosen, labels, own.ignore_label), torch.where(chosen, weights, 0.0)]
