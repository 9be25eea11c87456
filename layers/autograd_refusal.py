"""Autograd through a layer's forward, which would give another gradient than the layer's own: refused."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Forward = Callable[[Any, list[Tensor], dict[str, Any]], list[Tensor]]


def refusing_autograd(forward: Forward) -> Forward:
    """Return a layer's `forward` whose tops, where autograd would go through it, raise InputError in `Tensor.backward`.

    Their values stay usable. Without tensors that require a gradient it is `forward` itself but for that look.
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
