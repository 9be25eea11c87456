"""Solver: the training loop, by iteration count, with test passes and snapshots, as Caffe's."""

import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from imae.layers.data.data_layer import DataError, DataLayer, data_lines
from imae.layers.layer import Layer, describe
from imae.layers.normalization.batch_norm import BatchNorm
from imae.nets.debug_info import DebugInfo
from imae.nets.loss_settings import loss_settings
from imae.nets.net import Net
from imae.nets.storage import as_array, copy_array
from imae.prototxt_like import provenance as provenances
from imae.prototxt_like.binary import array_to_blob, check_snapshot_size
from imae.prototxt_like.blobs import Stored
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.files import clear_leftovers, create_folder
from imae.prototxt_like.limits import check_message
from imae.prototxt_like.schema import (
    ImaeLayerState,
    ImaeProvenance,
    ImaeState,
    SolverParameter,
    SolverState,
)
from imae.prototxt_like.text import read_solver
from imae.prototxt_like.weights import open_state, open_weights, write_state
from imae.solvers.best import BestAccuracy
from imae.solvers.capture import CudaGraphs, Eager, Iteration, Recorder, TestBatches, obstacles
from imae.solvers.class_accuracy import SUFFIX, clear_counts, output_lines, over_all_images
from imae.solvers.divergence import (
    Diverged,
    LossWatch,
    OnDivergence,
    are_finite,
    first_not_finite,
    not_finite,
    stuck,
)
from imae.solvers.learning_rate import check_policy, current_step, learning_rate
from imae.solvers.log import Log
from imae.solvers.provenance import provenance_of
from imae.solvers.results import newest_snapshot, weights_beside
from imae.solvers.run_lock import RunLock
from imae.solvers.solver_nets import find_file, net_params
from imae.solvers.update import create_update

WITHOUT_STATISTICS = "test without statistics"
"""The phase, in the metrics, of a test before BatchNorm has seen a batch, which curves leave out."""
_log = logging.getLogger(__name__)


class TrainingEnded(InputError):
    """Training ended early, after a whole number of iterations, for a reason outside of it.

    `state` is the solverstate that was then written, if one was; `speaks`, whether this process is to report it.
    """

    state: Path | None = None
    speaks = True


class Solver:
    """Trains `net` as a solver prototxt says, testing `test_nets` now and then on the same weights.

    A run is a function of the prototxts and the seed: resumed from any snapshot it ends with the same weights as
    uninterrupted.
    """

    exchanges: ClassVar[bool] = False
    """Whether something happens between an iteration's passes and its update, so that they are recorded apart."""

    def __init__(
        self,
        param: SolverParameter | str | Path,
        *,
        folder: Path | None = None,
        file: Path | None = None,
        device: str | torch.device = "cpu",
        level: int | None = None,
        stages: Sequence[str] = (),
        capture: bool = True,
        show: Callable[[str], None] = lambda line: None,
        log_folder: str | Path = "",
        lock: RunLock | None = None,
        on_divergence: OnDivergence = "stop",
        keep_best: bool = False,
        weights: Sequence[str] | None = None,
        **net_options: Any,
    ) -> None:
        """Build the nets of a solver prototxt (read, or its path).

        One that was read is of `file`, whose hash its snapshots then carry. Paths in it are looked up in the working
        directory, then in `folder` (its own, by default); log, metrics and
        snapshots are written at `snapshot_prefix`, relative to the working directory, but for a log that has a
        `log_folder` of its own. `show` gets the log's lines. While it solves it holds `lock`, by default one on the
        prefix. With `on_divergence` "warn" it goes on with losses that are not finite, but writes no snapshot of such
        weights. With `keep_best` the weights of the best test accuracy are kept beside the snapshots. On a GPU an
        iteration is captured once and replayed, which `capture` can switch off. It begins with `weights`, which are as
        for `copy_weights`, by default with the solver's own. `net_options`, such as `dtype` and
        `tf32`, are as for `Net`, but that the plan is "fused" unless they say otherwise.
        Raises InputError for what is wrong in the files, or if the prefix's folder cannot be written.
        """
        if not isinstance(param, SolverParameter):
            file, folder = Path(param), folder or Path(param).parent
            param = read_solver(param)
        self.param, self.folder = param, folder or Path()
        _check(param)
        self.device = torch.device(device)
        self.seed = param.random_seed if param.random_seed >= 0 else secrets.randbits(31)
        self.provenance = provenance_of(param, self.folder, file, self.seed)
        options: dict[str, Any] = {"plan": "fused", **net_options, "device": device, "seed": self.seed}
        if param.debug_info:  # whose blobs a fused plan has not
            options["plan"] = "plain"
        (train_param, train_folder), *test_params = net_params(param, self.folder, level, stages)
        self.net = Net(train_param, train_param.state.phase, folder=train_folder, **options)
        self.net.keep_blobs = False
        self.test_nets: list[Net] = []
        for test_param, test_folder in test_params:
            net = Net(test_param, test_param.state.phase, folder=test_folder, backward=False, **options)
            net.keep_blobs = False
            net.share_weights(self.net)
            self.test_nets.append(net)
        self.update = create_update(param, self.net.storage)
        self._running = [group.data for group in self.net.storage.groups if not group.lr_mult]
        self._check_snapshots()
        self.iteration = 0
        self.stop_requested = self.snapshot_requested = False
        self.losses: deque[Tensor] = deque(maxlen=param.average_loss)
        self.on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
        """Called after each training iteration ("train") and test batch ("test"): how many are done, of how many."""
        self.on_test: Callable[[], None] = lambda: None  # called after each test of the test nets
        self._open_log(show, log_folder)
        self.lock = lock or RunLock(self.prefix if self.log.log_path else "")
        kept = self.prefix if keep_best and self.log.metrics_path else ""
        self.best = BestAccuracy(self.test_nets, kept, self._ending)
        self._debug = DebugInfo(self.net, self.log.line) if param.debug_info else None
        if param.debug_info:
            for net in self.test_nets:
                net.observer = DebugInfo(net, self.log.line)
        self._watch = LossWatch(self.device)
        self._on_divergence, self._said = on_divergence, set[str]()
        self._warned = False  # whether it went on with what is not finite, of which nothing more is said
        on_gpu = self.device.type == "cuda"
        self.capture_with((CudaGraphs(self.device) if capture else Eager()) if on_gpu else None)
        self.copy_weights(param.weights if weights is None else weights)

    def capture_with(self, recorder: Recorder | None) -> None:
        """Have iterations and test batches recorded and replayed, once they have run; log what cannot be, and why."""

        def usable(net: Net, more: Sequence[str] = ()) -> Recorder | None:
            told = ["debug_info: true reads values in each pass"] if self.param.debug_info else []
            hindering = [*told, *obstacles(net), *more] if recorder else []
            if hindering:
                phase = "training" if net is self.net else "testing"
                self.log.line(f"Not captured as a CUDA graph, {phase}: {hindering[0]}", "solver.cpp:73")
            return None if hindering else recorder

        for_training = usable(self.net, self._obstacles())
        self.training = Iteration(self.net, self.update, self.param.iter_size, for_training, whole=not self.exchanges)
        self.testing = [TestBatches(net, usable(net)) for net in self.test_nets]

    def _obstacles(self) -> list[str]:
        """What keeps an iteration from being captured beside the net's layers."""
        return []

    @property
    def iteration(self) -> int:
        """The number of updates so far."""
        return self._iteration

    @iteration.setter
    def iteration(self, updates: int) -> None:
        self._iteration = updates
        self.update.at(updates)

    @property
    def outputs(self) -> dict[str, Tensor]:
        """The train net's outputs in the last pass."""
        return self.training.outputs

    def copy_weights(self, sources: Iterable[str]) -> None:
        """Copy the weights of files, each of `sources` one or several as `A, B`, and log which layers got them.

        Paths are looked up in the working directory, then in the solver's folder. Raises InputError as
        `Net.copy_weights`.
        """
        for name in (name.strip() for source in sources for name in source.split(",")):
            path = find_file(name, self.folder)
            report = self.net.copy_weights(path)
            self.log.line(f"Copied the weights of {counted(len(report.copied), 'layer')} from {path}", "net.cpp:744")
            if report.provenance:
                self.log.line(f"{path} is of {provenances.describe(report.provenance)}", "net.cpp:744")
            if report.kept:
                self.log.line(f"Layers that keep theirs: {', '.join(report.kept)}", "net.cpp:744")
            if report.unused:
                self.log.line(f"Ignoring source layers {', '.join(report.unused)}", "net.cpp:744")
            if not report.copied:
                _log.warning("%s: none of its layers has the name of one of the net's: nothing was copied", path)

    # Training

    def solve(self, resume: str | Path | None = None) -> None:
        """Train to `max_iter`, from a solverstate by option, with the displays, tests and snapshots on the way.

        Raises InputError if another training writes at the prefix, and as `step`.
        """
        with self.lock:
            self._solve(resume)

    def _solve(self, resume: str | Path | None) -> None:
        self.log.line(f"Solving {self.net.name}", "solver.cpp:294")
        for line in loss_settings(self.net):
            self.log.line(line, "net.cpp:122")
        for line in data_lines(*((step.layer for step in net.steps) for net in (self.net, *self.test_nets))):
            self.log.line(line, "data_layer.cpp:41")
        self.log.line(f"Learning Rate Policy: {self.param.lr_policy}", "solver.cpp:295")
        if resume:
            self.log.line(f"Restoring previous solver status from {resume}", "solver.cpp:302")
            self.restore(resume)
        self.best.begin(self.iteration, self.log.start_metrics(self.iteration))
        self.step(self.param.max_iter - self.iteration)
        sound = self._is_sound()
        if sound and self.prefix and self.param.snapshot_after_train and not self._due(self.param.snapshot):
            self.snapshot()
        if self.stop_requested:
            self.log.line("Optimization stopped early.", "solver.cpp:320")
            return
        if self._due(self.param.display):
            self.net.forward()
            self.losses.append(self._mean_loss(self.net.loss))
            self._watch.note(self.iteration, learning_rate(self.param, self.iteration), self.losses[-1])
            self._check_losses()
            self.log.line(f"Iteration {self.iteration}, loss = {self.smoothed_loss():g}", "solver.cpp:332")
        if self._due(self.param.test_interval):
            self.test_all()
        for line in self.best.lines():
            self.log.line(line, "solver.cpp:335")
        self.log.line("Optimization Done.", "solver.cpp:337")

    def step(self, iterations: int) -> None:
        """Train for `iterations` updates, or until a stop is requested.

        Raises TrainingEnded, after a snapshot of the last whole iteration where there is a prefix, if data can no
        longer be read; DataError if it never could; Diverged, naming the last sound snapshot, for a loss, output or
        weight that is not finite.
        """
        begun = self.iteration
        try:
            self._iterate(iterations)
        except DataError as error:
            if self.iteration == begun:
                raise
            ended = TrainingEnded(str(error))
            self._take_last_snapshot(ended)
            raise ended from error

    def _take_last_snapshot(self, ended: TrainingEnded) -> None:
        """Write a snapshot, if that can be done, and note it in `ended`."""
        if self.prefix:
            with contextlib.suppress(InputError):
                ended.state = self.snapshot()

    def _iterate(self, iterations: int) -> None:
        param, stop = self.param, self.iteration + iterations
        displayed, since = self.iteration, time.perf_counter()
        while self.iteration < stop:
            if self._due(param.test_interval) and (self.iteration > 0 or param.test_initialization):
                self.test_all()
                if self.stop_requested:
                    break
            rate = learning_rate(param, self.iteration)
            self.net.observer = self._debug if self._due(param.display) else None
            with contextlib.nullcontext() if self.training.recorded else self._whole_or_undone():
                loss = self.forward_backward(rate)
            self.losses.append(loss)
            if self._watch.note(self.iteration, rate, self.losses[-1]) or self._due(param.display):
                self._check_losses()
            if self._due(param.display):
                now = time.perf_counter()
                self._display(rate, self.iteration - displayed, now - since)
                displayed, since = self.iteration, now
            self._update()
            self.iteration += 1
            self.on_progress("train", self.iteration, param.max_iter)
            if self._due(param.snapshot) or self.snapshot_requested:
                self.snapshot()
                self.snapshot_requested = False
            if self.stop_requested:
                break
        self._check_losses()

    def _update(self) -> None:
        """Update the weights; where `debug_info` is due, say by how much."""
        debug = self._debug if self.net.observer else None
        before = self.net.storage.data.clone() if debug else None
        self.training.update()
        if debug and before is not None:
            debug.update(before)

    @contextlib.contextmanager
    def _whole_or_undone(self) -> Iterator[None]:
        """Inside, if an iteration's passes fail, all that they have changed but gradients is put back."""
        passes = self.net.context.passes
        number, moving = passes.number, [*self._running, *self._states()]
        before = [tensor.clone() for tensor in moving]
        try:
            yield
        except InputError:
            passes.number = number
            for tensor, value in zip(moving, before, strict=True):
                tensor.copy_(value)
            raise

    def finish(self) -> None:
        """Wait until the GPU has done all work that was launched on it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forward_backward(self, rate: float) -> Tensor:
        """Run the passes of an iteration at learning rate `rate`; return their mean loss, a scalar.

        The summed gradients are left in the blobs for `training.update`, which on a GPU may have followed already.
        """
        return self.training.passes(rate)

    def _mean_loss(self, loss: Tensor) -> Tensor:
        """The loss over all that trains together, here this process alone."""
        return loss

    def smoothed_loss(self) -> float:
        """Return the mean of the last `average_loss` losses."""
        return float(torch.stack(list(self.losses)).mean())

    # Testing

    def test_all(self) -> list[dict[str, float]]:
        """Run each test net for its `test_iter` batches, log its mean outputs, and return them by output name.

        Beside the mean of a class's accuracy over batches, under the name NAME_over_all_images, is the one over all
        images.
        """
        tested = [self._test(number) for number in range(len(self.test_nets)) if not self.stop_requested]
        if not self.stop_requested:
            self.on_test()
        return tested

    def _test(self, number: int) -> dict[str, float]:
        self._check_losses()
        net, batches = self.test_nets[number], self.param.test_iter[number]
        self.log.line(f"Iteration {self.iteration}, Testing net (#{number})", "solver.cpp:347")
        first = net.context.passes.number
        try:
            sums, losses = self._sum_outputs(number, batches)
        except DataError:
            net.context.passes.number = first
            raise
        if self.stop_requested:
            net.context.passes.number = first
            self.log.line("Test interrupted.", "solver.cpp:388")
            return {}
        net.check()
        means = {name: total / batches for name, total in sums.items()} if batches else {}
        if self.param.test_compute_loss and batches:
            self.log.line(f"Test loss: {float(losses) / batches:g}", "solver.cpp:393")
        self._log_outputs("Test", net, means, over_all=True)
        values = {name: float(mean) if mean.numel() == 1 else mean.flatten().tolist() for name, mean in means.items()}
        values |= {f"{name}{SUFFIX}": accuracies for name, accuracies in over_all_images(net).items()}
        empty = without_statistics(net)
        self.log.metrics(iteration=self.iteration, phase=WITHOUT_STATISTICS if empty else "test", net=number, **values)
        if empty:
            more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
            self.log.line(
                f'This test means nothing: the running statistics of layer "{empty[0]}"{more} hold nothing yet, '
                "no batch was trained on",
                "solver.cpp:401",
            )
        else:
            self._check_outputs(f"test net #{number}'s", means)
            self.best.note(number, self.iteration, values, self.net, self.provenance)
        return values

    def _sum_outputs(self, number: int, batches: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return the sums, over the next `batches` or until a stop is requested, of a test net's outputs and loss."""
        testing = self.testing[number]
        testing.clear()
        clear_counts(self.test_nets[number])
        for done in range(batches):
            if self._interrupts_test():
                break
            testing()
            self.on_progress("test", done + 1, batches)
        return testing.sums, testing.loss

    def _interrupts_test(self) -> bool:
        return self.stop_requested

    # Snapshots

    @property
    def state_path(self) -> Path:
        """Where a snapshot of this iteration is, or would be: its solverstate."""
        return Path(f"{self.prefix}_iter_{self.iteration}.solverstate{self._ending}")

    @property
    def _ending(self) -> str:
        """What the names of snapshots end with."""
        return ".h5" if self.param.snapshot_format == SolverParameter.HDF5 else ""

    def _check_snapshots(self) -> None:
        """Raise InputError if a snapshot would be too large for its files, or has names that these cannot hold."""
        param, size = self.param, self.net.storage.data.element_size()
        if not param.snapshot_prefix or not (param.snapshot or param.snapshot_after_train):
            return
        if self._ending:
            from imae.prototxt_like.hdf5 import check_names

            check_names(self.net.params, "solver: snapshot_format HDF5")
        else:
            written = sum(blob.data.numel() for blobs in self.net.params.values() for blob in blobs) * size
            trained = sum(blob.data.numel() for blob in self.net.learnable) * size
            check_snapshot_size(
                param.snapshot_prefix,
                weights=written * (2 if param.snapshot_diff else 1),
                histories=trained * len(self.update.histories),
            )

    def snapshot(self) -> Path:
        """Write `PREFIX_iter_N.caffemodel` and `.solverstate`, or in HDF5 these with .h5; return the latter's path.

        Weights that are not finite are not written: Diverged is raised, or by `on_divergence` a warning given.
        """
        return self._write_snapshot() if self._is_sound() else self.state_path

    def _write_snapshot(self) -> Path:
        self.net.check()
        state_path = self.state_path
        model, kind = weights_beside(state_path), "HDF5" if self._ending else "binary proto"
        self.log.line(f"Snapshotting to {kind} file {model}", "solver.cpp:464")
        self.net.write_weights(model, diffs=self.param.snapshot_diff, provenance=self.provenance)
        state = SolverState(
            iter=self.iteration,
            learned_net=str(model),
            current_step=current_step(self.param, self.iteration - 1) if self.iteration else 0,
            imae_state=ImaeState(
                random_seed=self.seed,
                train_forwards=self.net.context.passes.number,
                batch_size=self._batch_size,
                test_forwards=[net.context.passes.number for net in self.test_nets],
                recent_losses=[float(loss) for loss in self.losses],
                layer_state=[
                    ImaeLayerState(layer=layer.name, state=[array_to_blob(as_array(tensor)) for tensor in layer.state])
                    for layer in self._stateful()
                ],
                provenance=self.provenance,
            ),
        )
        views = [self.net.storage.view(h, blob) for h in self.update.histories for blob in self.net.learnable]
        self.log.line(f"Snapshotting solver state to {kind} file {state_path}", "sgd_solver.cpp:284")
        write_state(state_path, state, views, as_array)
        return state_path

    def restore(self, path: str | Path) -> None:
        """Continue from a solverstate: weights, history, iteration and, where imae wrote it, all that is random.

        After a state that Caffe wrote, the data layers go on as if every iteration so far had read one batch.
        Raises InputError if the state does not fit the net, or its weights lack layers of it.
        """
        stored = open_state(path)
        state = stored.message
        views = [self.net.storage.view(h, blob) for h in self.update.histories for blob in self.net.learnable]
        if len(state.history) != len(views):
            found = counted(len(state.history), "history blob")
            raise InputError(f"{path}: has {found}, this solver needs {len(views)}")
        arrays = [stored.array(history, f"{path}: history blob {i}") for i, history in enumerate(state.history)]
        for i, (view, array) in enumerate(zip(views, arrays, strict=True)):
            if view.numel() != array.size:
                raise InputError(
                    f"{path}: history blob {i} has {counted(array.size, 'value')}, this net's has {view.numel()}"
                )
        if state.learned_net:
            self._restore_weights(path, state.learned_net)
        for view, array in zip(views, arrays, strict=True):
            copy_array(view, array.reshape(tuple(view.shape)))
        self.iteration = state.iter
        ours = state.imae_state
        if ours.HasField("provenance"):
            self._compare(path, ours.provenance)
        if state.HasField("imae_state"):
            self.seed = self.provenance.random_seed = ours.random_seed
            self.losses.extend(torch.tensor(loss, device=self.device) for loss in ours.recent_losses)
        forwards = ours.train_forwards if state.HasField("imae_state") else state.iter * self.param.iter_size
        if ours.batch_size:
            forwards = forwards * ours.batch_size // self._batch_size
        self.net.reseed(self.seed, forwards)
        for i, net in enumerate(self.test_nets):
            net.reseed(self.seed, ours.test_forwards[i] if i < len(ours.test_forwards) else 0)
        self._restore_states(path, stored)

    def _compare(self, path: str | Path, theirs: ImaeProvenance) -> None:
        """Log where a state is from, and what is another now."""
        self.log.line(f"{path} is of {provenances.describe(theirs)}", "solver.cpp:302")
        for what in "net", "solver":
            then, now = (getattr(provenance, f"{what}_sha256") for provenance in (theirs, self.provenance))
            if then != now:
                self.log.line(
                    f"The {what}'s prototxt has changed since {path} was written: its sha256 was {then[:12]}, "
                    f"and is {now[:12]}",
                    "solver.cpp:302",
                )

    def _stateful(self) -> list[Layer]:
        """The layers of the train net in which something outlives a pass."""
        return [step.layer for step in self.net.steps if step.layer.state]

    def _states(self) -> list[Tensor]:
        """What outlives a pass in these layers."""
        return [tensor for layer in self._stateful() for tensor in layer.state]

    def _restore_states(self, path: str | Path, stored: Stored) -> None:
        """Set what outlives a pass in the train net's layers; zero where a state, such as Caffe's, has none of it."""
        given = {layer.layer: layer.state for layer in stored.message.imae_state.layer_state}
        for layer in self._stateful():
            layer.reset()
            for i, (tensor, blob) in enumerate(zip(layer.state, given.get(layer.name, ()), strict=False)):
                array = stored.array(blob, f'{path}: state {i} of layer "{layer.name}"')
                if array.shape != tuple(tensor.shape):
                    raise InputError(
                        f'{path}: state {i} of layer "{layer.name}" is {describe(array.shape)}, this net\'s is '
                        f"{describe(tensor.shape)}"
                    )
                copy_array(tensor, array)

    def _restore_weights(self, state_path: str | Path, name: str) -> None:
        """Copy the weights of the net that a state names, from where they were written or else from beside it."""
        written = Path(name)
        beside = Path(state_path).parent / written.name
        path = written if written.exists() or not beside.exists() else beside
        model = open_weights(path)
        held = {layer.name for layer in model.message.layer if layer.blobs}
        if missing := [layer for layer in self.net.owners if layer not in held]:
            raise InputError(
                f"{path}: lacks the weights of {', '.join(missing)}, which the net of {state_path} needs: it is of "
                "another net or cut short"
            )
        self.net.copy_weights(model)

    @property
    def _batch_size(self) -> int:
        """How many images a pass of the train net reads."""
        shapes = [self.net.shapes[step.tops[0]] for step in self.net.steps if isinstance(step.layer, DataLayer)]
        return shapes[0][0] if shapes else 1

    # Divergence

    def _check_losses(self) -> None:
        """Stop, or warn, if a loss since the last look was not finite."""
        if found := self._watch.first_bad():
            iteration, rate, loss = found
            names = [f'output "{name}"' for name in not_finite(self.outputs)]
            where = "" if self._warned else first_not_finite(self.net, self.param.iter_size)
            first = f", first seen in {where}" if where else ""
            self._diverged(iteration, rate, f"{' and '.join(names) or 'the loss'} is {loss:g}{first}")

    def _check_outputs(self, whose: str, outputs: dict[str, Tensor]) -> None:
        """Stop, or warn, if an output of a test is not finite."""
        if names := not_finite(outputs):
            rate = learning_rate(self.param, self.iteration)
            values = ", ".join(f'"{name}"' for name in names)
            self._diverged(self.iteration, rate, f"{whose} output {values} is not finite")

    def _is_sound(self) -> bool:
        """Whether weights and histories are finite; if not, stop or warn."""
        self._check_losses()
        sound = self._are_finite()
        if not sound:
            rate = learning_rate(self.param, max(0, self.iteration - 1))
            self._diverged(self.iteration, rate, "weights or their histories are not finite, no snapshot is written")
        return sound

    def _are_finite(self) -> bool:
        return are_finite([self.net.storage.data, *self.update.histories])

    def _diverged(self, iteration: int, rate: float, what: str) -> None:
        # One of this very iteration holds the weights that gave what is not finite.
        state = newest_snapshot(self.prefix, before=iteration) if self.log.metrics_path else None
        last = f"the last sound snapshot is {state}" if state else "there is no sound snapshot"
        message = f"iteration {iteration}: {what}, at learning rate {rate:g}: the training diverged; {last}"
        if self._on_divergence == "stop":
            self.log.line(message)
            raise Diverged(message)
        self._warned = True
        self._say_once("diverged", message)

    def _name_stuck(self, net: Net, outputs: dict[str, Tensor]) -> None:
        """Warn of a loss that sticks at 87.3365."""
        for name in stuck(net, outputs):
            self._say_once(
                "stuck",
                f'iteration {self.iteration}: "{name}" sticks at 87.3365, -log of the smallest float: the net gives '
                "the labels no probability any more; a lower base_lr or smaller inputs may help",
            )

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said and self.log.speaks:
            self._said.add(what)
            self.log.line(message)
            _log.warning("%s", message)

    # Building

    def _open_log(self, show: Callable[[str], None], folder: str | Path) -> None:
        """Create the prefix's folder and the log in it: a folder that cannot be written fails before training."""
        self.prefix = self.param.snapshot_prefix
        if not self.prefix:
            self.log = Log(None, show)
            return
        create_folder(Path(self.prefix).parent)
        clear_leftovers(Path(self.prefix).parent, f"{Path(self.prefix).name}_iter_")
        self.log = Log(self.prefix, show, folder=folder)

    # Displays

    def _due(self, interval: int) -> bool:
        return bool(interval) and self.iteration % interval == 0

    def _display(self, rate: float, iterations: int, seconds: float) -> None:
        self.net.check()
        loss, every = self.smoothed_loss(), self.param.display
        speed = f"{iterations / seconds:g} iter/s, {seconds:g}s/{every} iters"
        self.log.line(f"Iteration {self.iteration} ({speed}), loss = {loss:g}")
        self._log_outputs("Train", self.net, self.outputs)
        self.log.line(f"Iteration {self.iteration}, lr = {rate:g}", "sgd_solver.cpp:112")
        self.log.metrics(iteration=self.iteration, phase="train", loss=loss, lr=rate)

    def _log_outputs(self, phase: str, net: Net, outputs: dict[str, Tensor], *, over_all: bool = False) -> None:
        """Log a line for each element of each output, as `output_lines`."""
        self._name_stuck(net, outputs)
        values = {name: value.flatten().tolist() for name, value in outputs.items()}
        for number, line in enumerate(output_lines(net, values, over_all=over_all)):
            self.log.line(f"    {phase} net output #{number}: {line}", "solver.cpp:258")


def without_statistics(net: Net) -> list[str]:
    """Return the BatchNorm layers of a net that normalise by running statistics which hold nothing yet."""
    layers = [step.layer for step in net.steps if isinstance(step.layer, BatchNorm) and step.layer.use_global]
    weights = torch.stack([layer.blobs[2].data[0] for layer in layers]).tolist() if layers else []
    return [layer.name for layer, weight in zip(layers, weights, strict=True) if weight == 0]


def _check(param: SolverParameter) -> None:
    check_message(param, "solver")
    check_policy(param)
    if param.momentum >= 1:
        raise InputError(f"solver: momentum must lie in [0, 1), not {param.momentum:g}: steps would grow without end")
    if param.snapshot and not param.snapshot_prefix:
        raise InputError("solver: snapshot is given, but no snapshot_prefix")
