"""Iterations and test batches as functions of tensors at fixed addresses: captured as CUDA graphs, and replayed."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from imae.layers.data.image_set import ImageSetData
from imae.layers.layer import Shape, describe
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.solvers.divergence import unweighted_outputs, watched
from imae.solvers.update import Update

WARM_UP = 3  # runs before a function is recorded, in which libraries load their kernels and choose their algorithms
SHAPES = 4  # of a net's inputs that are recorded, at most; passes of further shapes run eagerly
PACE = 8
"""The host waits for the GPU every so many iterations: it is at most three times as many ahead, and can stop soon."""


class Recorder(Protocol):
    """Turns a function of tensors into one that repeats the same work on the same tensors, at the same addresses."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Return a function that does the work of `function`, which may be called here, but changes no tensor yet.

        Raises InputError if the function does what cannot be recorded, such as reading a tensor's value.
        """

    def pace(self) -> None:
        """Called after each iteration or test batch: wait if the device lies too far behind."""


class CudaGraphs:
    """Records CUDA graphs that share one memory pool: what a graph frees, the next may use."""

    def __init__(self, device: torch.device) -> None:
        if device.index is not None:
            torch.cuda.set_device(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._newest: torch.cuda.CUDAGraph | None = None  # kept, as the pool would end with its last graph
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._launched = 0
        self._events: deque[torch.cuda.Event] = deque()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Capture a graph; other threads, which may prepare data on the device, are left alone."""
        graph = torch.cuda.CUDAGraph()
        failure: Exception | None = None
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                try:
                    function()
                except Exception as error:
                    failure = error  # ending the capture fails in turn, and says less
                    raise
        except Exception as error:
            failure = failure or error
            if isinstance(failure, torch.OutOfMemoryError) or not isinstance(failure, RuntimeError):
                raise failure from None
            reason = str(failure).partition("\n")[0]
            raise InputError(f"cannot be captured as a CUDA graph, try --no-capture: {reason}") from failure
        self._newest = graph
        return graph.replay

    def pace(self) -> None:
        """Wait, every PACE calls, for what was launched 2 PACE calls ago."""
        self._launched += 1
        if self._launched % PACE == 0:
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
            self._events.append(event)
            if len(self._events) > 2:
                self._events.popleft().synchronize()


class Eager:
    """Records nothing: runs the same function each time. What graphs compute is compared with this."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """The function itself."""
        return function

    def pace(self) -> None:
        """Launching kernels keeps the host slow enough."""


class Recorded:
    """A function that runs eagerly WARM_UP times, then is recorded and replayed."""

    def __init__(self, function: Callable[[], None], recorder: Recorder) -> None:
        self._function, self._recorder = function, recorder
        self._runs = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        """Do the function's work once."""
        if self._runs < WARM_UP:
            self._runs += 1
            self._function()
            return
        if self._replay is None:
            self._replay = self._recorder.record(self._function)
        self._replay()


class RecordedPass:
    """A function that runs one pass of a net, which reads its number, and so finds its data, on the device.

    It is recorded for each of the first SHAPES shapes of the net's inputs; at any other it runs eagerly.
    """

    def __init__(self, net: Net, function: Callable[[], None], recorder: Recorder) -> None:
        self._net, self._function, self._recorder = net, function, recorder
        self._sources = [top for step in net.steps if not step.bottoms for top in step.tops]
        self._data = [step.layer for step in net.steps if isinstance(step.layer, ImageSetData)]
        self._number = torch.zeros((), dtype=torch.int64, device=net.context.device)
        self._seed: int | None = None
        self._recorded: dict[tuple[Shape, ...], Callable[[], None]] = {}

    def __call__(self) -> None:
        """Run the pass whose turn it is, and count it."""
        passes = self._net.context.passes
        if self._seed != passes.seed:  # which is part of what was recorded
            self._seed, self._recorded = passes.seed, {}
        number = passes.number
        for layer in self._data:
            layer.prepare(number)
        passes.on_device = self._number.fill_(number)
        try:
            self._at_these_shapes()()
        finally:
            passes.on_device = None
        passes.number = number + passes.stride

    def _at_these_shapes(self) -> Callable[[], None]:
        shapes = tuple(self._net.shapes[source] for source in self._sources)
        if shapes not in self._recorded and len(self._recorded) < SHAPES:
            self._recorded[shapes] = Recorded(self._function, self._recorder)
        return self._recorded.get(shapes, self._function)


class Iteration:
    """A training iteration of `net` as two functions, the passes and the update, with a gap between them.

    With a `recorder` they are recorded and replayed: as one where nothing happens in the gap (`whole`) and one pass
    makes an iteration. Without, they run eagerly, and may read values on the host.
    """

    def __init__(
        self, net: Net, update: Update, iter_size: int, recorder: Recorder | None = None, *, whole: bool = False
    ) -> None:
        self._net, self._update, self._iter_size, self._recorder = net, update, iter_size, recorder
        self._whole = recorder is not None and whole and iter_size == 1
        self._unweighted = unweighted_outputs(net)
        self._loss = torch.zeros(())
        self.outputs: dict[str, Tensor] = {}  # the net's outputs in the last pass; the next one may overwrite them
        self._rate: float | Tensor = 0.0
        self._pass: Callable[[], None] = self._accumulate
        self._step: Callable[[], None] = self._apply
        if recorder:
            self._rate = torch.zeros((), dtype=torch.float64, device=net.context.device)
            self._pass = RecordedPass(net, self._iterate if self._whole else self._accumulate, recorder)
            self._step = Recorded(self._apply, recorder)

    @property
    def recorded(self) -> bool:
        """Whether it is recorded and replayed."""
        return self._recorder is not None

    def passes(self, rate: float) -> Tensor:
        """Run the passes of an iteration at learning rate `rate`, which leave the summed gradients in the blobs.

        Returns their mean loss, a scalar. Where the iteration is recorded as one, the update has followed.
        """
        if isinstance(self._rate, Tensor):
            self._rate.fill_(rate)
        else:
            self._rate = rate
        losses = []
        if not self._whole:
            self._net.clear_diffs()
        for _ in range(self._iter_size):
            self._pass()
            losses.append(self._loss.clone() if self._recorder else self._loss)
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def update(self) -> None:
        """Update the weights by the gradients, unless `passes` has."""
        if not self._whole:
            self._step()
        if self._recorder:
            self._recorder.pace()

    def _iterate(self) -> None:
        self._net.clear_diffs()
        self._accumulate()
        self._apply()

    def _accumulate(self) -> None:
        self.outputs = self._net.forward()
        self._loss = watched(self._net.loss, self.outputs, self._unweighted)
        self._net.backward()

    def _apply(self) -> None:
        self._update.apply(self._rate)


class TestBatches:
    """Test batches of `net`, each of which adds outputs and loss to their `sums`; recorded with a `recorder`."""

    __test__ = False  # no test of pytest's

    def __init__(self, net: Net, recorder: Recorder | None = None) -> None:
        self._net, self._recorder = net, recorder
        self._batch: Callable[[], None] = RecordedPass(net, self._add, recorder) if recorder else self._add
        options = {"dtype": torch.float64, "device": net.context.device}
        self.sums = {name: torch.zeros(net.shape(name), **options) for name in net.outputs}  # type: ignore[call-overload]
        self.loss = torch.zeros((), **options)  # type: ignore[call-overload]

    def clear(self) -> None:
        """Begin the sums at 0."""
        for total in (*self.sums.values(), self.loss):
            total.zero_()

    def __call__(self) -> None:
        """Run the next batch."""
        self._batch()
        if self._recorder:
            self._recorder.pace()

    def _add(self) -> None:
        for name, value in self._net.forward().items():
            if value.shape != self.sums[name].shape:
                sizes = f"{describe(self.sums[name].shape)}, then {describe(value.shape)}"
                raise InputError(f'net "{self._net.name}": output "{name}" changes its shape, {sizes}: no mean of it')
            self.sums[name].add_(value.double())
        self.loss.add_(self._net.loss)


def obstacles(net: Net) -> list[str]:
    """Return what keeps passes of `net` from being captured: the layers that are not capturable."""
    layers = (step.layer for step in net.steps if not step.layer.capturable)
    return [f'layer "{layer.name}" ({layer.param.type}) needs the host in each pass' for layer in layers]
