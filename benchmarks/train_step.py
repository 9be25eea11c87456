"""Time and memory of a training iteration on the CPU: imae's plan against PyTorch eager, side by side.

    python -m benchmarks.train_step [--depth 20 32 56] [--batch 128] [--rounds 7] [--output train_step.json]

Each side is a process of its own (ours keeps freed memory, as `imae train` does), and they take turns, one iteration
each, so that a noisy machine disturbs both alike. Reported are medians, the median of the ratios of a turn, and each
process's peak memory beyond what it held before the first iteration.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

WARM_UP = 3


def ours(depth: int, batch: int) -> Callable[[], None]:
    """Return one iteration of the fused plan: forward, backward and update."""
    import torch

    from imae.nets.memory import keep_freed_memory
    from imae.nets.resnet_cifar import resnet_cifar
    from imae.prototxt_like.net_spec import L, NetSpec
    from imae.prototxt_like.schema import SolverParameter
    from imae.solvers.solver import Solver

    keep_freed_memory()
    net = resnet_cifar(depth, "cce")
    body = [layer for layer in net.layer if layer.type not in ("Cifar10Data", "Accuracy")]
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 3, 32, 32]})
    n.label = L.Input(shape={"dim": [batch]})
    fed = n.to_proto(net.name)
    fed.layer.extend(body)
    param = SolverParameter(base_lr=0.1, momentum=0.9, weight_decay=1e-4, lr_policy="fixed", net_param=fed)
    solver = Solver(param)
    data, label = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))

    def iterate() -> None:
        solver.net.clear_diffs()
        solver.net.forward(data=data, label=label)
        solver.net.backward()
        solver.update.apply(0.1)

    return iterate


def pytorch(depth: int, batch: int) -> Callable[[], None]:
    """Return one iteration of the usual nn.Module ResNet: autograd, channels_last, torch.optim.SGD."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.stride, self.zeros = stride, width - before

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.bn1(self.conv1(x)), inplace=True)
            y = self.bn2(self.conv2(y))
            if self.stride > 1:
                x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.zeros))
            return F.relu(y + x, inplace=True)

    blocks: list[nn.Module] = []
    before = 16
    for stage, width in enumerate((16, 32, 64)):
        for i in range((depth - 2) // 6):
            blocks.append(Block(before, width, 2 if stage and not i else 1))
            before = width
    head = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    model = nn.Sequential(*head, *blocks, *tail).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    data = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    label = torch.randint(10, (batch,))

    def iterate() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(data), label).backward()
        optimiser.step()

    return iterate


def serve(build: Callable[[int, int], Callable[[], None]], depth: int, batch: int, pipe: Connection) -> None:
    """Run an iteration for each message, answering with its seconds and the process's peak growth in bytes."""
    iterate = build(depth, batch)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while pipe.recv():
        start = time.perf_counter()
        iterate()
        seconds = time.perf_counter() - start
        pipe.send((seconds, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))


def measure(depth: int, batch: int, rounds: int) -> dict[str, float]:
    """Return the medians of `rounds` turns of both sides."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name, build in (("ours", ours), ("pytorch", pytorch)):
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(build, depth, batch, theirs), daemon=True))
        processes[-1].start()
    turns: dict[str, list[tuple[float, int]]] = {name: [] for name in pipes}
    for _ in range(WARM_UP + rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            turns[name].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    seconds = {name: [turn[0] for turn in turns[name][WARM_UP:]] for name in turns}
    memory = {name: turns[name][-1][1] for name in turns}
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["pytorch"], strict=True)]
    return {
        "depth": depth,
        "batch": batch,
        "ours_ms": 1e3 * statistics.median(seconds["ours"]),
        "pytorch_ms": 1e3 * statistics.median(seconds["pytorch"]),
        "time_ratio": statistics.median(ratios),
        "ours_peak_mib": memory["ours"] / 2**20,
        "pytorch_peak_mib": memory["pytorch"] / 2**20,
        "memory_ratio": memory["ours"] / memory["pytorch"],
    }


def main() -> None:
    """Print a table, and write it as JSON by option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, nargs="+", default=[20])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = [measure(depth, options.batch, options.rounds) for depth in options.depth]
    print("net        batch   ours ms  PyTorch ms  ratio   ours MiB  PyTorch MiB  ratio")
    for row in rows:
        print(
            "ResNet-{depth:<3.0f} {batch:6.0f} {ours_ms:9.1f} {pytorch_ms:11.1f} {time_ratio:6.2f} "
            "{ours_peak_mib:10.0f} {pytorch_peak_mib:12.0f} {memory_ratio:6.2f}".format(**row)
        )
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
