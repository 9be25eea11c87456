"""Refuses autograd through a layer's forward, as it would give another gradient than the layer's own."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Forward = Callable[[Any, list[Tensor], dict[str, Any]], list[Tensor]]


def refusing_autograd(forward: Forward) -> Forward:
    """Wrap a layer's `forward`, so that `Tensor.backward` through its tops raises InputError.

    The tops' values can be used. Where no tensor requires a gradient, the wrapper does nothing but check that.
    """

    @wraps(forward)
    def guarded(layer: Any, bottoms: list[Tensor], saved: dict[str, Any]) -> list[Tensor]:
        for x in bottoms:
            if x.requires_grad:
                break
        else:
            for blob in layer.blobs:
                if blob.data.requires_grad:
                    break
            else:  # by far the most frequent case, and the one that is to cost nothing
                return forward(layer, bottoms, saved)
        if not torch.is_grad_enabled():
            return forward(layer, bottoms, saved)
        followed = [x for x in (*bottoms, *(blob.data for blob in layer.blobs)) if x.requires_grad]
        with torch.no_grad():
            tops = forward(layer, [x.detach() for x in bottoms], saved)
        return [_Refusal.apply(layer, top, *followed) if top.is_floating_point() else top for top in tops]

    return guarded


class _Refusal(torch.autograd.Function):
    """The identity, with an error for a derivative."""

    @staticmethod
    def forward(ctx: Any, layer: Any, top: Tensor, *followed: Tensor) -> Tensor:
        ctx.layer = layer
        return top.view_as(top)

    @staticmethod
    def backward(ctx: Any, *diffs: Tensor) -> Any:
        raise ctx.layer.error(
            "autograd does not give its gradient: call the layer's backward with what its forward saved, or the net's "
            "backward(); to use the value alone, detach it"
        )
