"""`imae train`: train a net as a solver prototxt says."""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imae.cli.caffe_flags import Glog
from imae.cli.options import LARGEST_SEED, NetOptions, choice, describe_device, flag, number, option, taking, words_of
from imae.cli.progress import Display
from imae.cli.signals import Effect, exit_status, handle_signals
from imae.prototxt_like.errors import InputError, counted

if TYPE_CHECKING:
    from imae.solvers.solver import Solver, TrainingEnded


class Divergence(StrEnum):
    """What a loss that is NaN or infinite does: end the training with status 1, or be warned of."""

    stop = "stop"
    warn = "warn"


_START, _CHANGE = "Where to start", "What to change in the solver"
_OF_THE_START = ("weights", "snapshot", "resume", "overwrite", "seed")
"""Options that the command which resumes leaves out."""
_SHOWN = 20  # values of an output that the summary prints; where there are more it says where they are
_ECHO = 5.0  # seconds within which torchrun passes on a signal that each process may have got by itself


@taking(NetOptions)
def train(
    context: typer.Context,
    solver: Annotated[Path, option("SOLVER.prototxt", "The solver.")],
    *,
    weights: Annotated[
        str | None,
        option(
            "FILE,...",
            "Start from these weights, in any form, by the names of the layers; of several files the later win.",
            panel=_START,
        ),
    ] = None,
    snapshot: Annotated[
        Path | None, option("FILE.solverstate[.h5]", "Go on from this state, to the same end.", panel=_START)
    ] = None,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            "Go on from the newest snapshot at the prefix that is whole; start afresh if there is none.",
            panel=_START,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        flag(
            "--overwrite",
            "Start over where a training left results: its metrics and snapshots are removed.",
            panel=_START,
        ),
    ] = False,
    keep_best: Annotated[
        bool, flag("--keep-best", "Keep the weights of the best test accuracy in PREFIX_best.caffemodel[.h5].")
    ] = False,
    record_samples: Annotated[
        bool,
        flag(
            "--record-samples",
            "Keep p_y and the weight of each training sample at each test in PREFIX.samples.npz, which "
            "[bold]imae plot samples[/] draws.",
        ),
    ] = False,
    on_divergence: Annotated[
        Divergence, choice("What a loss, output or weight does that turns NaN or infinite.")
    ] = Divergence.stop,
    options: NetOptions,
    iterations: Annotated[int | None, number("Stop at this iteration (max_iter).", 0, panel=_CHANGE)] = None,
    seed: Annotated[
        int | None, number("The seed of weights, order and augmentation (random_seed).", 0, LARGEST_SEED, panel=_CHANGE)
    ] = None,
    prefix: Annotated[
        str | None,
        option("PATH", "How the names of log, metrics and snapshots begin (snapshot_prefix).", panel=_CHANGE),
    ] = None,
    settings: Annotated[
        list[str] | None,
        option(
            "FIELD=VALUE", "Any other field, as often as needed: [bold]--set base_lr=0.05[/].", "--set", panel=_CHANGE
        ),
    ] = None,
    no_capture: Annotated[
        bool,
        flag("--no-capture", "On a GPU, launch each kernel by itself instead of replaying a CUDA graph.", hidden=True),
    ] = False,
    sigint_effect: Annotated[Effect, choice("What Ctrl-C does; stopping takes a snapshot.")] = Effect.stop,
    sighup_effect: Annotated[Effect, choice("What a hang-up does.")] = Effect.snapshot,
) -> None:
    """Train a net as a solver prototxt says.

    Log and progress go to stderr, what came out to stdout; log, metrics and snapshots to files at the solver's
    snapshot_prefix. Ctrl-C finishes the iteration, takes a snapshot and prints the command that goes on from it.

    [bold]imae train --solver solver.prototxt --gpu 0[/]

    Several processes train one net by [bold]torchrun --nproc-per-node=2 -m imae train ...[/]
    """
    if snapshot and (weights or resume):
        raise typer.BadParameter("--snapshot holds the weights: give it alone, without --weights or --resume")
    if overwrite and (resume or snapshot):
        raise typer.BadParameter("--overwrite removes what --resume and --snapshot go on from: give one of them")
    param = _solver_param(solver, iterations, seed, prefix, settings or [])
    on_cpu = options.gpu is None and param.HasField("solver_mode") and param.solver_mode == param.CPU
    parallel = "WORLD_SIZE" in os.environ  # torchrun's
    first = not parallel or os.environ.get("RANK") == "0"
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if parallel else None
    device = options.start(cpu=on_cpu, default_gpu=param.device_id, local_rank=local_rank)
    from imae.solvers.divergence import Diverged
    from imae.solvers.parallel import ParallelSolver, Processes
    from imae.solvers.results import is_at, newest_snapshot, refuse_results, remove_results, sample_record
    from imae.solvers.run_lock import RunLock
    from imae.solvers.solver import Solver, TrainingEnded

    done = 0

    def advance(what: str, number: int, total: int) -> None:
        nonlocal done
        done += what == "train"
        display.advance(what, number, total)

    glog = context.find_object(Glog) or Glog()
    lock = RunLock(param.snapshot_prefix if first else "")
    with Display(shown=first and glog.shown_from <= 0) as display, contextlib.ExitStack() as held:
        processes = Processes(device) if parallel else None
        held.enter_context(lock)
        state = snapshot or (newest_snapshot(param.snapshot_prefix) if resume and first else None)
        if first and not (resume or overwrite or (state and is_at(param.snapshot_prefix, state))):
            refuse_results(param.snapshot_prefix)
        create: Callable[..., Solver] = partial(ParallelSolver, processes=processes) if processes else Solver
        trainer = create(
            param,
            folder=solver.parent,
            file=solver,
            device=device,
            capture=not no_capture,
            show=display.show,
            lock=lock,
            on_divergence=on_divergence.value,
            keep_best=keep_best,
            weights=[] if state or not first else [weights] if weights else None,
            log_folder=glog.log_dir,
            **options.state,
            **options.settings,
        )
        trainer.on_progress = advance
        if first and record_samples:
            from imae.solvers.training_samples import SampleRecord

            trainer.on_test = SampleRecord(trainer, sample_record(param.snapshot_prefix)).add
        size = sum(blob.data.numel() for blob in trainer.net.learnable if blob.lr_mult)
        each = f"{counted(processes.count, 'process')}, the first on " if processes else ""
        trainer.log.line(
            f"{trainer.net.name}: {counted(size, 'learnable parameter')}, on {each}{describe_device(device)}",
            "caffe.cpp:204",
        )
        if first and overwrite:
            remove_results(param.snapshot_prefix)
        since = time.perf_counter()
        on_stop = partial(display.rename, "train", "stopping")
        with handle_signals(
            trainer, sigint_effect, sighup_effect, on_stop, echo=_ECHO if processes else 0.0
        ) as stopped_by:
            try:
                trainer.solve(resume=state)
            except TrainingEnded as ended:
                if ended.speaks and (done or ended.state):
                    _report(ended, context, trainer)
                raise typer.Exit(1) from ended
            except Diverged as error:
                if first:
                    print(f"imae: error: {error}", file=sys.stderr, flush=True)
                if processes:
                    processes.from_first(None)  # a launcher that sees another process end may end the first
                raise typer.Exit(1) from error
            if trainer.stop_requested and not (param.snapshot_after_train and done):
                trainer.snapshot()
        trainer.finish()
        seconds = time.perf_counter() - since
    if first:
        _summarise(trainer, done, seconds)
    if first and trainer.stop_requested and trainer.state_path.exists():
        typer.echo(f"Resume with: {_resuming_command(context, trainer.state_path)}")
    if processes:
        # None leaves before the first is ready: a launcher that sees a process end may end the others.
        processes.from_first(None)
        processes.leave()
    if trainer.stop_requested:
        raise typer.Exit(exit_status(stopped_by[0] if stopped_by else signal.SIGTERM))


def _solver_param(path: Path, iterations: int | None, seed: int | None, prefix: str | None, settings: list[str]) -> Any:
    """The solver, with what the command line changes in it."""
    from imae.prototxt_like.schema import SolverParameter
    from imae.prototxt_like.text import did_you_mean_field, parse_solver, read_solver

    param, changes = read_solver(path), SolverParameter()
    fields = SolverParameter.DESCRIPTOR.fields_by_name
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or not value:
            raise typer.BadParameter(f"--set takes FIELD=VALUE, not {setting!r}")
        if name not in fields:
            hint = did_you_mean_field(name, SolverParameter.DESCRIPTOR)
            raise InputError(f'--set {setting}: "{name}" is no field of a solver{hint}')
        if fields[name].type == fields[name].TYPE_STRING and value[0] not in "\"'[":
            value = json.dumps(value)
        changes.MergeFrom(parse_solver(f"{name}: {value}", f"--set {setting}"))
    if prefix and (prefix.endswith("/") or Path(prefix).is_dir()):
        prefix = str(Path(prefix) / path.stem)
    options = {"max_iter": iterations, "random_seed": seed, "snapshot_prefix": prefix}
    for field, given in options.items():
        if given is not None:
            setattr(changes, field, given)
    for changed, _ in changes.ListFields():
        param.ClearField(changed.name)
    param.MergeFrom(changes)
    if not param.HasField("max_iter"):
        raise InputError(f"{path}: has no max_iter, the iteration at which to stop; --iterations gives it, too")
    return param


def _report(ended: "TrainingEnded", context: typer.Context, trainer: "Solver") -> None:
    """Say why this process ends, at once (torchrun may end it first), and what to do."""
    from imae.solvers.results import newest_snapshot

    state = ended.state or newest_snapshot(trainer.prefix)
    advice = f"resume with: {_resuming_command(context, state)}" if state else "there is no snapshot to resume from"
    print(f"imae: error: iteration {trainer.iteration}: {ended}; {advice}", file=sys.stderr, flush=True)


def _summarise(trainer: "Solver", iterations: int, seconds: float) -> None:
    """Print what was done, the last test's outputs, and where the results are."""
    from imae.solvers.log import read_metrics
    from imae.solvers.results import sample_record, weights_beside

    rate = f" ({iterations / seconds:.4g} it/s)" if iterations else ""
    verb = "Stopped" if trainer.stop_requested else "Done"
    typer.echo(f"{verb} at iteration {trainer.iteration}: {counted(iterations, 'iteration')} in {seconds:.1f} s{rate}")
    metrics, state = trainer.log.metrics_path, trainer.state_path
    if metrics and metrics.exists():
        tests = {record.get("net"): record for record in read_metrics(metrics) if record.get("phase") == "test"}
        for record in tests.values():
            values = {name: value for name, value in record.items() if name not in ("iteration", "phase", "net")}
            vectors = {name: values.pop(name) for name in record if isinstance(record[name], list)}
            outputs = ", ".join(
                f"{name} = {'not finite' if value is None else format(value, 'g')}"
                for name, value in values.items()
                if value is None or isinstance(value, float)
            )
            at = f"Test net #{record['net']} at iteration {record['iteration']}"
            typer.echo(f"{at}: {outputs or ('no scalar outputs' if vectors else 'no outputs')}")
            for name, vector in vectors.items():
                shown = f"{len(vector)} values, in {metrics}"
                if len(vector) <= _SHOWN:
                    shown = " ".join(format(x, "g") if isinstance(x, float) else "nan" for x in vector)
                typer.echo(f"{at}: {name}: {shown}")
    for line in trainer.best.lines():
        typer.echo(line)
    files = [trainer.log.log_path, metrics, weights_beside(state), state]
    files += [*trainer.best.files, sample_record(trainer.prefix)]
    typer.echo("Wrote " + ", ".join(str(file) for file in files if file and file.exists()))


def _resuming_command(context: typer.Context, state: Path) -> str:
    """The command that goes on from `state` with the same options."""
    words = ["imae", "train"]
    if "WORLD_SIZE" in os.environ:
        processes = int(os.environ["WORLD_SIZE"])
        here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        hosts = [f"--nnodes={processes // here}"] if processes > here else []
        words = ["torchrun", *hosts, f"--nproc-per-node={here}", "-m", "imae", "train"]
    glog = context.find_object(Glog) or Glog()
    return shlex.join([*words, *words_of(context, *_OF_THE_START), *glog.words, "--snapshot", str(state)])
