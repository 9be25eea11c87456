"""Training on a GPU against PyTorch: the whole loop, the step alone, and replayed kernels against compiled ones.

    python -m benchmarks.gpu_train [--depth 20] [--batch 128] [--iterations 1000] [--precision tf32] [--rounds 7]

Compared are, on noise of CIFAR-10's form and size, in this order:

- the loop: our solver, data layer included, against the usual script: a DataLoader whose workers run torchvision's
  RandomCrop, RandomHorizontalFlip, ToTensor and Normalize, autograd and torch.optim.SGD, as they are;
- the step: forward, backward and update on one batch that is on the device, captured and replayed, against PyTorch's
  eager step and against torch.compile (mode reduce-overhead) of it;
- our step traced and under torch.compile, captured and replayed, against our step's own kernels.

The sides of a comparison take turns of `--iterations` iterations each; reported are medians per iteration and the
median of the ratios. A turn is long because the DataLoader's workers prepare up to two batches each while it is our
turn. First it is checked that captured training gives the same bits as eager training.
`--cpu` runs everything on the CPU, where nothing is captured: to see that it runs.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from benchmarks import imae_resnet, synthetic
from benchmarks.measuring import Benchmark, Row, Side, Turns, Unavailable, median_ratio, take_turns
from benchmarks.pytorch_resnet import resnet
from imae.layers.data.cifar10_data import load_cifar10
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import SolverParameter
from imae.solvers.capture import WARM_UP, CudaGraphs, Eager, Recorded, RecordedPass, Recorder
from imae.solvers.solver import Solver

SETTINGS = {"base_lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "lr_policy": "fixed", "random_seed": 1}
CHECKED = 20
"""Iterations after which captured and uncaptured training are compared."""
Work = Callable[[], object]


class Setup:
    """Where and how precisely both sides compute."""

    def __init__(self, options: argparse.Namespace, data: Path) -> None:
        self.depth, self.batch, self.iterations, self.workers = (
            int(getattr(options, name)) for name in ("depth", "batch", "iterations", "workers")
        )
        self.data = data
        self.device = torch.device("cpu" if options.cpu else "cuda")
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.tf32 = options.precision == "tf32"

    def solver(self, param: SolverParameter, *, capture: bool = True) -> Solver:
        """Return the solver of `param`."""
        return Solver(param, device=self.device, dtype=self.dtype, tf32=self.tf32, capture=capture)

    def recorder(self) -> Recorder:
        """Return what captures steps: graphs on a GPU."""
        return CudaGraphs(self.device) if self.device.type == "cuda" else Eager()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of PyTorch's forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == torch.bfloat16 else nullcontext()

    def turn(self, iterate: Work, *, usual: bool) -> Work:
        """Return as many iterations as a turn has, to the end of the last; `usual` is for `choose_algorithms`."""

        def run() -> None:
            choose_algorithms(usual=usual)
            for _ in range(self.iterations):
                iterate()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return run


def choose_algorithms(*, usual: bool) -> None:
    """Have cuDNN try what is fastest, as scripts do, or keep to algorithms that repeat their bits, as we do."""
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = usual, not usual


def loop_param(setup: Setup) -> SolverParameter:
    """Return the paper's solver, on the data of `setup`."""
    net = resnet_cifar(setup.depth, "cce")
    for layer in net.layer:
        if layer.type == "Cifar10Data":
            layer.cifar10_data_param.source = str(setup.data)
            layer.cifar10_data_param.batch_size = setup.batch
    return SolverParameter(net_param=net, **SETTINGS, max_iter=1 << 30, test_iter=[1], test_interval=1 << 30)


def our_loop(setup: Setup) -> Work:
    """Return a turn of `imae train`."""
    solver = setup.solver(loop_param(setup))
    solver.param.test_initialization = False

    def run() -> None:
        choose_algorithms(usual=False)
        solver.step(setup.iterations)
        float(solver.losses[-1])

    return run


class Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """CIFAR-10 as torchvision gives it: a PIL image at a time, through the transforms."""

    def __init__(self, images: NDArray[Any], labels: list[int]) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def their_loop(setup: Setup) -> Work:
    """Return a turn of the usual PyTorch script."""
    images, labels = load_cifar10(setup.data, True)
    loader = torch.utils.data.DataLoader(
        Images(images.permute(0, 2, 3, 1).numpy(), labels.tolist()),
        batch_size=setup.batch,
        shuffle=True,
        drop_last=True,
        num_workers=setup.workers,
        pin_memory=setup.device.type == "cuda",
        persistent_workers=setup.workers > 0,
    )
    batches: Iterator[list[Tensor]] = itertools.chain.from_iterable(itertools.repeat(loader))
    train = their_training(setup, lambda function: function)

    def iterate() -> None:
        data, label = next(batches)
        train(data.to(setup.device, non_blocking=True), label.to(setup.device, non_blocking=True))

    return setup.turn(iterate, usual=True)


def their_training(setup: Setup, prepare: Callable[[Any], Any]) -> Callable[[Tensor, Tensor], None]:
    """Return PyTorch's iteration on a batch; `prepare` makes the loss, as a function, into what is run."""
    model = resnet(setup.depth).to(setup.device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def objective(data: Tensor, label: Tensor) -> Tensor:
        with setup.autocast():
            return F.cross_entropy(model(data), label)

    prepared = prepare(objective)

    def train(data: Tensor, label: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        prepared(data.contiguous(memory_format=torch.channels_last), label).backward()
        optimiser.step()

    return train


def their_step(setup: Setup, compile: bool = False) -> Work:
    """Return a turn of PyTorch's step, eager or compiled; raises Unavailable where it cannot be compiled."""
    data, label = noise(setup)
    train = their_training(setup, lambda f: torch.compile(f, mode="reduce-overhead") if compile else f)
    choose_algorithms(usual=True)
    attempt(lambda: train(data, label))
    return setup.turn(lambda: train(data, label), usual=True)


def our_step(setup: Setup, compile: bool = False) -> Work:
    """Return a turn of our step, captured; with its own kernels, or compiled ones. Raises Unavailable likewise."""
    solver = setup.solver(imae_resnet.solver(setup.depth, setup.batch, "fused").param)
    data, label = noise(setup)
    rate = torch.full((), 0.1, dtype=torch.float64, device=setup.device)

    def step() -> None:
        solver.net.clear_diffs()
        solver.net.forward(data=data, label=label)
        solver.net.backward()
        solver.update.apply(rate)

    if not compile:
        return setup.turn(RecordedPass(solver.net, step, setup.recorder()), usual=False)
    solver.net.context.passes.on_device = torch.zeros((), dtype=torch.int64, device=setup.device)
    compiled = attempt(lambda: torch.compile(make_fx(step)()))
    recorded = Recorded(compiled, setup.recorder())
    for _ in range(WARM_UP + 1):
        attempt(recorded)
    return setup.turn(recorded, usual=False)


def noise(setup: Setup) -> tuple[Tensor, Tensor]:
    """Return one batch, on the device."""
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(setup.batch, *imae_resnet.IMAGE, generator=generator)
    label = torch.randint(10, (setup.batch,), generator=generator)
    return data.to(setup.device, memory_format=torch.channels_last), label.to(setup.device)


def attempt(function: Callable[[], Any]) -> Any:
    """Return what `function` does; its failure as Unavailable."""
    try:
        return function()
    except (OSError, RuntimeError, InputError) as error:
        raise Unavailable(f"torch.compile: {str(error).strip().splitlines()[0]}") from error


def same_bits(setup: Setup) -> bool:
    """Whether captured training and eager training end with the same weights and momenta."""
    ends = []
    for capture in (True, False):
        solver = setup.solver(loop_param(setup), capture=capture)
        solver.param.test_initialization = False
        solver.step(WARM_UP + CHECKED)
        ends.append((solver.net.storage.data, solver.update.histories[0]))
    return all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def compare(setup: Setup, what: str, sides: Mapping[str, Side], rounds: int) -> tuple[list[Row], list[str]]:
    """Return a row for each side after the first, which is ours, and why rows are missing."""
    turns = take_turns(sides, rounds, label=what, warm_up=1)
    ours, *others = sides
    rows: list[Row] = [
        {
            "what": f"{what}: {other}",
            "ours_ms": per_iteration(turns[ours], setup),
            "theirs_ms": per_iteration(turns[other], setup),
            "speedup": median_ratio(turns[other], turns[ours]),
        }
        for other in others
    ]
    return rows, [f"{what}, {name}: {side.missing}." for name, side in turns.items() if side.missing]


def per_iteration(turns: Turns, setup: Setup) -> float | None:
    """Return the median milliseconds of an iteration."""
    return None if turns.ms is None else turns.ms / setup.iterations


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is trained, and how long a turn is."""
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=50000, help="Size of the training set.")
    parser.add_argument("--iterations", type=int, default=1000, help="Iterations of a turn.")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="Of the DataLoader.")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="tf32", help="Of both sides.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="Leave out what torch.compile makes.")
    parser.add_argument("--cpu", action="store_true", help="Run on the CPU, to see that it runs.")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each comparison."""
    if not options.cpu and not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu_train: this machine has no GPU that PyTorch can use; --cpu only tries it out")
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(options, synthetic.write_cifar10(Path(folder), options.images))
        notes = [f"Captured and eager: {'the same bits' if same_bits(setup) else 'DIFFERENT BITS'}."]
        comparisons = {
            "loop": {"ours": Side(our_loop, (setup,)), "DataLoader, eager": Side(their_loop, (setup,))},
            "step": {"ours": Side(our_step, (setup,)), "PyTorch eager": Side(their_step, (setup,))},
        }
        if not options.no_compile:
            comparisons["step"]["torch.compile, reduce-overhead"] = Side(their_step, (setup, True))
            comparisons["step"]["our step, compiled"] = Side(our_step, (setup, True))
        rows = []
        for what, sides in comparisons.items():
            compared, said = compare(setup, what, sides, options.rounds)
            rows += compared
            notes += said
    device = "CPU" if options.cpu else torch.cuda.get_device_name()
    return rows, [f"ResNet-{setup.depth}, batch {setup.batch}, {options.precision}, on {device}.", *notes]


BENCHMARK = Benchmark(
    "gpu_train",
    "Training on a GPU against PyTorch",
    {"what": "ours against", "ours_ms": "ours ms", "theirs_ms": "theirs ms", "speedup": "times faster"},
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
