"""An LSTM in oneDNN's kernels, of which PyTorch's own is made on a CPU: a run of steps in one call."""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from imae.layers.layer import Diffs, Tensors

aten = torch.ops.aten
LSTM = 2  # PyTorch's number of the kind of network
LARGEST = 2**16  # weights of a gate up to which it is faster than our own steps: its gradient of more is slow
SHORTEST = 16  # steps of a run, in the mean, from which it is, and
WEIGHTS_PER_STEP = 2**11  # at most, as each run takes the weights apart anew


class Run(NamedTuple):
    """Steps `start` to `end`, between which no sequence begins: what backward needs of them."""

    start: int
    end: int
    before: Tensors  # cont times h and c of the step before, N x num_output
    after: Tensors  # h and c of the last step
    workspace: Tensor


def is_faster(x: Tensor, size: int, begins: list[bool]) -> bool:
    """Whether it can take x (T x N x inputs), and is faster for num_output `size` and where sequences begin (T)."""
    starts, weights = 1 + sum(begins[1:]), size * (x.shape[2] + size)
    pays = weights <= LARGEST and len(begins) >= starts * max(SHORTEST, weights // WEIGHTS_PER_STEP)
    return pays and x.dtype == torch.float32 and x.numel() > 0 and _is_there()


def forward(
    x: Tensor, cont: Tensor, begins: list[bool], weights: Tensors, before: Tensors
) -> tuple[Tensor, Tensors, list[Run]]:
    """Return h of all steps (T x N x num_output), h and c after the last, and the runs.

    x is T x N x inputs, cont T x N x 1, and `before` has h and c before the first step. The weights are Caffe's blobs:
    by x, the bias, by h.
    """
    starts = [t for t, begin in enumerate(begins) if begin or t == 0]
    weights, size, hs, runs = _as_torch_has(weights), before[0].shape[1], [], []
    for start, end in zip(starts, [*starts[1:], len(begins)], strict=True):
        before = [value * cont[start] for value in before]
        h, *after, workspace = aten.mkldnn_rnn_layer(
            x[start:end], *weights, *before, False, [], LSTM, size, 1, True, False, False, True
        )
        hs.append(h)
        runs.append(Run(start, end, before, after, workspace))
        before = after
    return _joined(hs), before, runs


def backward(
    x: Tensor, cont: Tensor, weights: Tensors, h: Tensor, runs: list[Run], dy: Tensor
) -> tuple[Tensor, Tensors]:
    """Return the derivatives by x and by the weights, of `forward`'s arguments, what it gave, and that by h."""
    dxs: Tensors = []
    diffs: list[Tensors] = []
    dafter: Diffs = [None, None]
    weights, size = _as_torch_has(weights), h.shape[2]
    for run in reversed(runs):
        steps = slice(run.start, run.end)
        dx, by_x, by_h, bias, _, *dbefore = aten.mkldnn_rnn_layer_backward(
            *(x[steps], *weights, *run.before, h[steps], *run.after, dy[steps], *dafter),
            *(False, LSTM, size, 1, True, True, False, [], False, run.workspace),
        )
        dxs.append(dx)
        diffs.append([by_x, bias, by_h])
        dafter = [diff * cont[run.start] for diff in dbefore]
    return _joined(dxs[::-1]), [_reordered(reduce(torch.add, parts)) for parts in zip(*diffs, strict=True)]


def _is_there() -> bool:
    """Whether this build of PyTorch has it, and it is not switched off."""
    backend = torch.backends.mkldnn
    return bool(backend.enabled and backend.is_available() and hasattr(aten, "mkldnn_rnn_layer_backward"))  # type: ignore[no-untyped-call]


def _joined(runs: Tensors) -> Tensor:
    """Return values of all steps; those of a single run are not copied."""
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _as_torch_has(weights: Tensors) -> Tensors:
    """Return Caffe's blobs as PyTorch takes them: by x, by h, and two biases, of which one is zero."""
    by_x, bias, by_h = map(_reordered, weights)
    return [by_x, by_h, bias, torch.zeros_like(bias)]


def _reordered(gates: Tensor) -> Tensor:
    """Return rows i, f, o, g, as Caffe has them, as i, f, g, o, as PyTorch has them; or the other way round."""
    i, f, *others = gates.chunk(4)
    return torch.cat([i, f, *reversed(others)])
