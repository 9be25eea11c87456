"""The other side: ResNet for CIFAR-10 as one usually writes it in PyTorch, trained by autograd and torch.optim.SGD."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring import Unavailable
from imae.nets.memory import keep_freed_memory
from imae.nets.resnet_cifar import WIDTHS

Objective = Callable[[Tensor, Tensor], Tensor]


class Block(nn.Module):
    """Two normalised convolutions and their shortcut: the identity, subsampled and padded with zero channels."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.zeros = stride, width - before

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.zeros))
        return F.relu(y + x, inplace=True)


def resnet(depth: int) -> nn.Module:
    """Return the ResNet of `depth` 6n + 2 (He et al. 2016, section 4.2), channels last."""
    blocks: list[nn.Module] = []
    before = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        for i in range((depth - 2) // 6):
            blocks.append(Block(before, width, 2 if stage and not i else 1))
            before = width
    head = [nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]
    return nn.Sequential(*head, *blocks, *tail).to(memory_format=torch.channels_last)


def eager(depth: int, batch: int) -> Callable[[], None]:
    """Return one training iteration, run by PyTorch as it is written, but keeping freed memory as imae does."""
    keep_freed_memory()
    return as_it_comes(depth, batch)


def as_it_comes(depth: int, batch: int) -> Callable[[], None]:
    """Return one training iteration, run by PyTorch as it is written."""
    return _iteration(depth, batch, lambda function: function)


def compiled(depth: int, batch: int) -> Callable[[], None]:
    """Return the same with net and loss under torch.compile; raises Unavailable where that fails."""
    keep_freed_memory()
    try:
        iterate = _iteration(depth, batch, torch.compile)
        iterate()
    except (OSError, RuntimeError) as error:
        raise Unavailable(f"torch.compile: {str(error).strip().splitlines()[0]}") from error
    return iterate


def convolutions(depth: int, batch: int) -> Callable[[], None]:
    """Return the convolutions of one training iteration and nothing else: what both sides leave to the same kernels."""
    keep_freed_memory()
    calls: list[tuple[nn.Conv2d, Tensor, Tensor]] = []
    model = resnet(depth)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, y: calls.append((layer, inputs[0], torch.randn_like(y))))
    with torch.no_grad():
        model(torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def iterate() -> None:
        for layer, x, dy in calls:
            geometry = layer.stride, (1, 1), (1, 1), False, (0, 0), 1
            torch.convolution(x, layer.weight, None, *geometry)
            needs = [layer is not calls[0][0], True, False]  # the image gets no gradient
            torch.ops.aten.convolution_backward(dy, x, layer.weight, None, *geometry, needs)

    return iterate


def _iteration(depth: int, batch: int, prepare: Callable[[Objective], Objective]) -> Callable[[], None]:
    """Forward and backward of what `prepare` makes of the loss as a function, then the update."""
    model = resnet(depth)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    data = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    label = torch.randint(10, (batch,))

    def objective(data: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(model(data), label)

    prepared = prepare(objective)

    def iterate() -> None:
        optimiser.zero_grad(set_to_none=True)
        prepared(data, label).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return iterate
