"""What the cases and the tests of the losses share."""

import math
from collections.abc import Callable

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from layer_cases import Case, Draw, Maker, labels
from torch import Tensor

from imae.layers.gradient_check import backward, build_layer
from imae.layers.layer import Saved

Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
Term = Callable[[Tensor], Tensor]
few = settings(max_examples=30, deadline=None)
SUM = "loss_param { normalization: NONE }"
"""So that the gradient is that of each sample, not of the mean over the batch."""
FULL, BATCH_SIZE, NONE = "normalization: FULL", "normalization: BATCH_SIZE", "normalization: NONE"
GAPS = np.concatenate([np.linspace(0, 120, 49), [150, 500, 1000]])
"""Between two logits: p_y underflows from 88 to 104 in float32, from 708 to 745 in float64."""


def loss(
    kind: str,
    term: Term,
    x: Maker,
    y: Maker,
    *,
    axis: int = 1,
    ignored: int | None = None,
    mode: str = "",
    settings: str = "",
    top: str = "",
    forwards: int = 0,
) -> Case:
    """A loss whose value of a sample is a `term` of log p_y, and how the batch is normalised."""

    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        x, y = xs[0], xs[1].reshape(-1)
        scores = x.movedim(axis, -1).reshape(-1, x.shape[axis])
        log_p = scores.log_softmax(1) if kind.startswith("Softmax") else scores.log()
        counted = y != (-1 if ignored is None else ignored)
        log_p_y = log_p.gather(1, torch.where(counted, y, 0)[:, None])[:, 0]
        total = term(log_p_y)[counted].sum()
        count = {"": max(1, int(counted.sum())), FULL: y.numel(), BATCH_SIZE: math.prod(x.shape[:axis]), NONE: 1}[mode]
        return [total / count, x.softmax(axis)] if top else [total / count]

    given = "" if ignored is None else f"ignore_label: {ignored}"
    text = f'type: "{kind}" {top} loss_param {{ {given} {mode} }} softmax_param {{ axis: {axis} }} {settings}'
    return Case(text, [x, y], reference, forwards=forwards)


def usual_losses(kind: str, term: Term) -> list[Case]:
    """The cases that each loss has: of vectors, of images with a label to ignore, of videos over the batch's size."""
    return [
        loss(kind, term, scores(kind, 6, 4), labels(4, 6)),
        loss(kind, term, scores(kind, 2, 3, 2, 2), labels(3, 2, 2, 2), ignored=1),
        loss(kind, term, scores(kind, 2, 3, 2, 2), labels(3, 2, 1, 2, 2), mode=BATCH_SIZE, ignored=2),
    ]


def scores(kind: str, *shape: int) -> Maker:
    """Logits, or probabilities for a loss on these."""

    def make(draw: Draw) -> Tensor:
        z = 2 * draw.normal(*shape)
        return z if kind.startswith("Softmax") else z.softmax(1)

    return make


def run(text: str, x: Tensor, y: Tensor, top_diff: float = 1.0, forwards: int = 0) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient by x, times `top_diff`."""
    layer = build_layer(text, [tuple(x.shape), tuple(y.shape)], forwards=forwards)
    saved: Saved = {}
    tops = layer.forward([x, y], saved)
    value = tops[0]
    dx, dy = backward(layer, [x, y], tops, [torch.tensor(top_diff, dtype=value.dtype)], saved, [True, False])
    assert dx is not None and dy is None
    return value, dx


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@st.composite
def samples(draw: st.DrawFn, scale: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N x C, float64, exact in float32) of magnitude up to `scale`, and labels (N)."""
    n, c = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    numbers = st.floats(-scale, scale, width=32)
    z = draw(st.lists(st.lists(numbers, min_size=c, max_size=c), min_size=n, max_size=n))
    y = draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    return np.array(z), np.array(y)
