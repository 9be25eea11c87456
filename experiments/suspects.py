"""Which training labels a net does not believe: those of the smallest p_y, and a picture of the first of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from imae.prototxt_like.errors import InputError
from imae.reports import pictures
from imae.solvers.solver import Solver
from imae.solvers.training_samples import TrainingSamples

_CELL = 0.75  # inches: the width of an image of the picture
SHEET_WIDTH = 8 * _CELL
_SEEN, _MISTAKEN = pictures.LOSS_COLOURS["GCE"], pictures.LOSS_COLOURS["IMAE"]


@dataclass(frozen=True)
class Suspects:
    """What a net makes of the N labels that it was trained on."""

    label: Tensor  # trained on (N)
    intact: Tensor  # before the noise (N)
    suggested: Tensor  # the most probable class other than the label (N)
    order: Tensor  # the samples, that of the smallest p_y first (N)

    @property
    def wrong(self) -> Tensor:
        """Which labels really are wrong (N, bool)."""
        return self.label != self.intact

    @property
    def count(self) -> int:
        """How many are."""
        return int(self.wrong.sum())

    @property
    def found(self) -> int:
        """How many of so many labels, those of the smallest p_y, really are wrong."""
        return int(self.wrong[self.order[: self.count]].sum())

    @property
    def corrected(self) -> int:
        """For how many of these the suggested class is the right one."""
        first = self.order[: self.count]
        return int((self.suggested == self.intact)[first].sum())


def suspects_of(solver: Solver) -> Suspects:
    """Return what a solver's net, which ends in logits, makes of its training labels, without augmentation.

    Raises InputError if the labels before the noise are not known.
    """
    parts = []
    for scores, label, intact in TrainingSamples(solver):
        if intact is None:
            raise InputError(f'net "{solver.net.name}": the labels before the noise are not known')
        p = scores.flatten(1).double().softmax(1)
        label = label.long()
        p_y = p.gather(1, label[:, None])[:, 0]
        parts.append((label, intact.long(), p.scatter(1, label[:, None], -1).argmax(1), p_y))
    label, intact, suggested, p_y = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return Suspects(label, intact, suggested, p_y.argsort(stable=True))


def draw_suspects(suspects: Suspects, images: Tensor, width: float, shown: int = 24) -> "pictures.Figure":
    """Draw the `shown` most suspicious of `images` (N x 1 x H x W), each with its label and the suggested one."""
    from matplotlib.figure import Figure

    columns = max(1, min(shown, int(width / _CELL)))
    rows = -(-shown // columns)
    figure = Figure(figsize=(width, 1.1 * rows + 0.3), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in every:
        axes.set_axis_off()
    for axes, i in zip(every, suspects.order[:shown].tolist(), strict=False):
        axes.imshow(images[i, 0].numpy(), cmap="gray_r", interpolation="nearest")
        verdict, colour = ("was wrong", _SEEN) if suspects.wrong[i] else ("was right", _MISTAKEN)
        text = f"{suspects.label[i]}, rather {suspects.suggested[i]}\n{verdict}"
        axes.set_title(text, size=pictures.SMALL_FONT_SIZE, color=colour, pad=2)
    figure.suptitle(f"The {shown} most suspicious labels", size=pictures.FONT_SIZE, color=pictures.INK)
    return figure
