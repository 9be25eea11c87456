"""Witness: every layer computes what its formula gives in PyTorch's terms, and the derivative that autograd finds."""

import pytest
import torch
from layer_cases import Case, Draw, every_case, has_derivative, run, weights

from imae.layers.gradient_check import backward
from imae.layers.layer import Saved
from imae.prototxt_like.errors import InputError


@every_case()
def test_tops_and_gradients_agree_with_autograd(case: Case) -> None:
    layer, bottoms = case.build(), case.draw()
    xs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in bottoms]
    blobs = [blob.data.clone().requires_grad_() for blob in layer.blobs]
    expected = case.reference(xs, blobs)
    saved: Saved = {}
    tops = layer.forward(bottoms, saved)
    assert len(tops) == len(expected)
    for top, wanted in zip(tops, expected, strict=True):
        torch.testing.assert_close(top, wanted.detach(), check_dtype=top.dtype == torch.float64)
    draw = Draw(case.seed + 3)
    diffs = [draw.normal(*top.shape) for top in tops]
    needs = [x.requires_grad and i not in layer.no_gradient_to for i, x in enumerate(xs)]
    bottom_diffs = backward(layer, bottoms, tops, diffs, saved, needs)
    terms = [(diffs[i] * y).sum() for i, y in enumerate(expected) if i not in layer.no_gradient_from]
    if any(term.requires_grad for term in terms):
        sum(terms).backward()  # type: ignore[union-attr]
    for x, diff, need in zip(xs, bottom_diffs, needs, strict=True):
        if need:
            torch.testing.assert_close(diff, x.grad)
    for blob, wanted in zip(layer.blobs, blobs, strict=True):
        if blob.lr_mult:
            torch.testing.assert_close(blob.diff, wanted.grad)


@every_case(has_derivative, "has no derivative that autograd could give", Silence="has no tops")
def test_autograd_through_forward_is_refused_with_what_to_call(case: Case) -> None:
    layer = case.build()
    bottoms = [x.requires_grad_(i not in layer.no_gradient_to) for i, x in enumerate(case.draw())]
    saved: Saved = {}
    tops = layer.forward(bottoms, saved)
    with pytest.raises(InputError, match=rf'^layer ".*" \({case.type}\): autograd .* the layer.s backward'):
        tops[0].sum().backward()
    assert all(x.grad is None for x in bottoms)
    expected, wanted = run(case.build(), case.draw())
    for top, value in zip(tops, expected, strict=True):
        assert torch.equal(top.detach(), value)
    with torch.no_grad():
        assert not layer.forward(bottoms, {})[0].grad_fn
    actual = backward(layer, bottoms, tops, weights(expected), saved, [x.requires_grad for x in bottoms])
    torch.testing.assert_close([x for x in actual if x is not None], [x for x in wanted if x is not None])
    assert not any(blob.diff.requires_grad for blob in layer.blobs)
