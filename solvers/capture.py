"""Iterations and test batches as functions of tensors that keep their places: captured as CUDA graphs, and replayed."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from imae.layers.data.image_set import ImageSetData
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.solvers.divergence import unweighted_outputs, watched
from imae.solvers.update import Update

WARM_UP = 3
"""Runs before a function is recorded, in which libraries load their kernels and choose their algorithms."""
PACE = 8
"""The host runs at most three times as many iterations ahead of the GPU, and so ends soon after it was asked to."""


class Recorder(Protocol):
    """Turns a function of tensors into one that does the same work again, on the same tensors in the same places."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Return what does the work of `function`, which is called but has no effect yet on any tensor from before.

        Raises InputError if the function does what cannot be recorded, such as reading a tensor's value.
        """

    def pace(self) -> None:
        """Called after each iteration or test batch: wait if the device lies too far behind."""


class CudaGraphs:
    """Records CUDA graphs, which share their memory: nothing but what lives on is kept between two replays."""

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


class KernelByKernel:
    """Records nothing: runs the same function each time. What graphs compute is compared with this."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """The function itself."""
        return function

    def pace(self) -> None:
        """Launching kernels keeps the host slow enough."""


class Recorded:
    """A function that runs as it is WARM_UP times, then is recorded and replayed."""

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
    """A function that runs one pass of a net, which finds its number, and by it its data, on the device."""

    def __init__(self, net: Net, function: Callable[[], None], recorder: Recorder) -> None:
        self._net, self._function, self._recorder = net, function, recorder
        self._data = [step.layer for step in net.steps if isinstance(step.layer, ImageSetData)]
        self._number = torch.zeros((), dtype=torch.int64, device=net.context.device)
        self._seed: int | None = None

    def __call__(self) -> None:
        """Run pass `context.forwards` of the net, and count it."""
        context = self._net.context
        if self._seed != context.seed:  # which is part of what was recorded
            self._seed, self._run = context.seed, Recorded(self._function, self._recorder)
        number = context.forwards
        for layer in self._data:
            layer.prepare(number)
        context.number = self._number.fill_(number)
        try:
            self._run()
        finally:
            context.number = None
        context.forwards = number + context.stride


class CapturedIteration:
    """A training iteration of `net`: data, forward, backward and update, as one recorded function.

    With an `iter_size` above 1 they are two: a pass, which is replayed as often, and the update.
    """

    def __init__(self, net: Net, update: Update, iter_size: int, recorder: Recorder) -> None:
        self._net, self._update, self._iter_size, self._recorder = net, update, iter_size, recorder
        self._rate = torch.zeros((), dtype=torch.float64, device=net.context.device)
        self._pass = RecordedPass(net, self._iterate if iter_size == 1 else self._accumulate, recorder)
        self._step = Recorded(self._apply, recorder)
        self._loss = torch.zeros(())
        self._unweighted = unweighted_outputs(net)
        self.outputs: dict[str, Tensor] = {}
        """The net's outputs in the last pass; the next one overwrites them."""

    def __call__(self, rate: float) -> Tensor:
        """Train for one iteration at learning rate `rate`; return the mean loss of its passes, a scalar."""
        self._rate.fill_(rate)
        losses = []
        if self._iter_size > 1:
            self._net.clear_diffs()
        for _ in range(self._iter_size):
            self._pass()
            losses.append(self._loss.clone())
        if self._iter_size > 1:
            self._step()
        self._recorder.pace()
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

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


class CapturedTest:
    """Test batches of `net`, each one run of a recorded function, which adds outputs and loss to their `sums`."""

    def __init__(self, net: Net, recorder: Recorder) -> None:
        self._net, self._recorder = net, recorder
        self._batch = RecordedPass(net, self._add, recorder)
        options = {"dtype": torch.float64, "device": net.context.device}
        self.sums = {name: torch.zeros(net.shapes[net.newest[name]], **options) for name in net.outputs}  # type: ignore[call-overload]
        self.loss = torch.zeros((), **options)  # type: ignore[call-overload]

    def clear(self) -> None:
        """Begin the sums at 0."""
        for total in (*self.sums.values(), self.loss):
            total.zero_()

    def __call__(self) -> None:
        """Run the next batch."""
        self._batch()
        self._recorder.pace()

    def _add(self) -> None:
        for name, value in self._net.forward().items():
            self.sums[name].add_(value.double())
        self.loss.add_(self._net.loss)


def obstacles(net: Net) -> list[str]:
    """Return what keeps passes of `net` from being captured: the layers that are not capturable."""
    layers = (step.layer for step in net.steps if not step.layer.capturable)
    return [f'layer "{layer.name}" ({layer.param.type}) needs the host in each pass' for layer in layers]
