"""The options that several commands share, and what they stand for."""

import functools
import gc
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imae.prototxt_like.errors import InputError, counted

if TYPE_CHECKING:
    import torch

LARGEST = 2**31 - 1  # the largest int32, which iterations, levels and the sizes of Caffe's blobs are
LARGEST_SEED = 2**63 - 1  # the largest int64, which random_seed is


def argument(metavar: str, help: str, **more: Any) -> Any:
    """Return an argument that help calls `metavar`; `more` is as for typer.Argument."""
    return typer.Argument(metavar=metavar, help=help, **more)


def option(metavar: str, help: str, *names: str, panel: str | None = None, **more: Any) -> Any:
    """Return the option of a value that help calls `metavar`, in a `panel` of the help; else as typer.Option.

    An option whose own name is `metavar` says it in `names`: typer 0.27 takes one from the other, in capitals.
    """
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel, **more)


def flag(name: str, help: str, *, panel: str | None = None, **more: Any) -> Any:
    """Return an option that is given or not."""
    return typer.Option(name, help=help, rich_help_panel=panel, **more)


def choice(help: str, *names: str, panel: str | None = None) -> Any:
    """Return the option of a member of an enumeration, in upper or lower case."""
    return typer.Option(*names, case_sensitive=False, help=help, rich_help_panel=panel)


def number(help: str, least: int, most: int = LARGEST, **more: Any) -> Any:
    """Return the option of a whole number from `least` to `most`."""
    return option("N", help, min=least, max=most, **more)


Model = Annotated[Path, option("NET.prototxt", "The net.")]
Weights = Annotated[Path, option("FILE", "Its weights: .caffemodel, .h5, .npz or .safetensors.")]
Gpu = Annotated[
    str | None, option("N|all", "The GPU to use, by number. Without it: GPU 0 where there is one, else the CPU.")
]
Cpu = Annotated[bool, flag("--cpu", "Use the CPU even where there is a GPU.")]
AllowPython = Annotated[
    bool, flag("--allow-python", "Run the code of the net's Python layers: only of files that you trust.")
]
SkipBroken = Annotated[
    bool, flag("--skip-broken", "Leave out images that ImageData, WindowData or MarsData cannot read.")
]
Columns = Annotated[
    str, option("PATH,LABEL", "A table's columns, by name or number; else its header tells, or the first two.")
]
Iterations = Annotated[int, number("How many batches.", 1)]


class Loss(StrEnum):
    """A loss to train by."""

    IMAE = "IMAE"
    GCE = "GCE"
    CCE = "CCE"
    MAE = "MAE"


class Precision(StrEnum):
    """A floating-point type of the values in a net; its weights have it too, but for bf16, which keeps them in fp32."""

    fp32 = "fp32"
    tf32 = "tf32"
    fp64 = "fp64"
    bf16 = "bf16"

    @property
    def dtype(self) -> "torch.dtype":
        """The same for torch."""
        import torch

        return {"fp64": torch.float64, "bf16": torch.bfloat16}.get(self.value, torch.float32)


PrecisionOption = Annotated[
    Precision,
    choice(
        "The type of values and weights; bf16 is for values alone, weights stay fp32. tf32 is fp32 whose products "
        "a GPU forms from rounded factors.",
        "--precision",
    ),
]


class Plan(StrEnum):
    """How the layers of a net are run."""

    fused = "fused"
    plain = "plain"


PlanOption = Annotated[Plan, choice("Run chains of layers as one, which is faster, or each by itself, as Caffe does.")]


class Phase(StrEnum):
    """A net's phase."""

    train = "train"
    test = "test"


PhaseOption = Annotated[Phase, choice("The phase.")]
StageOption = Annotated[
    str, option("A,B,...", "The stages, by which include and exclude rules choose layers.", "--stage")
]
Threads = Annotated[int | None, number("CPU threads; all cores without it. Results depend on it in rounding.", 1, 1024)]


def load_torch(threads: int | None = None) -> None:
    """Import torch, and keep its many objects, which all live on, out of garbage collection: now and at exit.

    It computes with as many `threads`, else with as many as OMP_NUM_THREADS says or there are cores; while they wait
    for each other they leave the cores to other work.
    """
    if "torch" not in sys.modules:
        gc.disable()
        try:
            import imae.layers.layer  # which chooses how threads wait, then imports torch
        finally:
            gc.enable()
        gc.freeze()
        imae.layers.waiting.ask_for_short_slices()
    if threads:
        import torch

        torch.set_num_threads(threads)


@dataclass(frozen=True)
class NetOptions:
    """How a command builds and runs its net; each field is an option."""

    gpu: Gpu = None
    cpu: Cpu = False
    threads: Threads = None
    precision: PrecisionOption = Precision.fp32
    plan: PlanOption = Plan.fused
    level: Annotated[int, number("The level, by which include and exclude rules choose layers.", -LARGEST - 1)] = 0
    stage: StageOption = ""
    allow_python: AllowPython = False
    skip_broken: SkipBroken = False

    def start(self, *, cpu: bool = False, **choice: Any) -> "torch.device":
        """Load torch for the threads asked for; return the device asked for, or the CPU, as `choose_device` does."""
        load_torch(self.threads)
        from imae.nets.memory import keep_freed_memory

        keep_freed_memory()
        return choose_device(self.gpu, self.cpu or cpu, **choice)

    @property
    def state(self) -> dict[str, Any]:
        """The level and the stages, as a `Net` takes them."""
        return {"level": self.level, "stages": stages_in(self.stage)}

    @property
    def settings(self) -> dict[str, Any]:
        """What else a `Net` takes, but for the device."""
        return {
            "dtype": self.precision.dtype,
            "tf32": self.precision is Precision.tf32,
            "plan": self.plan.value,
            "allow_python": self.allow_python,
            "skip_broken": self.skip_broken,
        }


def stages_in(stage: str) -> list[str]:
    """Return the names that --stage gives."""
    return [name for part in stage.split(",") if (name := part.strip())]


def column_pair(columns: str) -> tuple[str, str] | None:
    """Return the two names that --columns gives, None for an empty one."""
    pair = [name.strip() for name in columns.split(",")]
    if columns and len(pair) != 2:
        raise typer.BadParameter(f'--columns takes PATH,LABEL, not "{columns}"')
    return (pair[0], pair[1]) if columns else None


def words_of(context: typer.Context, *without: str, always: str = "") -> list[str]:
    """Return the options of a command line as words, but those `without` and, save for `always`, those at defaults."""
    words = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        unset = (
            value is None or value is False or value in ([], ()) or (value == option.default and option.name != always)
        )
        if option.param_type_name == "option" and option.name not in without and not unset:
            for item in value if isinstance(value, list | tuple) else [value]:
                words += [option.opts[0]] if item is True else [option.opts[0], str(item)]
    return words


def taking(kind: type, *without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a command take the fields of a dataclass, but those `without`, as options, in place of its own `options`."""
    shared = {name: field for name, field in inspect.signature(kind).parameters.items() if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            command(options=kind(**{name: values.pop(name) for name in shared}), **values)

        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for own in inspect.signature(command).parameters.values()
            for parameter in (shared.values() if own.name == "options" else [own])
        ]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_options

    return decorate


def choose_device(
    gpu: str | None, cpu: bool, *, default_gpu: int = 0, local_rank: int | None = None, first_of_several: bool = False
) -> "torch.device":
    """Return the device that --gpu and --cpu ask for, else the GPU where there is one, else the CPU.

    Process `local_rank` of several on this machine gets the GPU of that place among those asked for, by default all.
    With `first_of_several` a process that is alone gets the first of them, as with Caffe's test and time. Raises
    InputError if the GPU asked for does not exist, or one process is to use more than one.
    """
    load_torch()
    import torch

    gpu = gpu or None
    if cpu and gpu is not None:
        raise typer.BadParameter("give --gpu or --cpu, not both")
    if gpu not in (None, "all") and not gpu.replace(",", "").isdecimal():
        raise typer.BadParameter(f'--gpu takes the number of a GPU, or "all", not "{gpu}"')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if cpu or (gpu is None and not count):
        return torch.device("cpu")
    asked = f"the solver's device_id {default_gpu}" if gpu is None else f"--gpu {gpu}"
    found = f"this machine has {counted(count, 'GPU') if count else 'no GPU'} that PyTorch can use"
    if not count:
        raise InputError(f"{asked}: {found}; leave it out to use the CPU")
    every = gpu == "all" or (gpu is None and local_rank is not None)
    numbers = range(count) if every else [int(n) for n in (gpu or str(default_gpu)).split(",") if n]
    if local_rank is None and len(numbers) > 1 and first_of_several:
        numbers = numbers[:1]
    if local_rank is None and len(numbers) != 1:
        raise InputError(f"{asked}: imae runs on one GPU; give its number ({found}), or start it by torchrun")
    place = local_rank or 0
    if place >= len(numbers):
        raise InputError(
            f"more processes were started here than the {counted(len(numbers), 'GPU')} they may use: {found}"
        )
    if numbers[place] >= count:
        raise InputError(f"{asked}: {found}, numbered from 0")
    return torch.device("cuda", numbers[place])


def describe_device(device: "torch.device") -> str:
    """Return a device as a few words."""
    import torch

    if device.type == "cuda":
        return f"GPU {device.index}, {torch.cuda.get_device_name(device)}"
    from imae.layers.waiting import describe_waiting

    threads = torch.get_num_threads()
    return f"CPU, {counted(threads, 'thread')}" + (f" {describe_waiting()}" if threads > 1 else "")
