"""Captured training computes, bit for bit, what training without capture does; shown on the CPU by a tape."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from layer_cases import fed_from_outside
from tape import Tapes, Watch, pretend_on_gpu
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from imae.layers.layer import Blob, Diffs, Layer, Saved, Shapes, Tensors
from imae.layers.registry import register, registry
from imae.nets.resnet_cifar import resnet_cifar
from imae.nets.storage import Storage
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import SolverParameter
from imae.prototxt_like.text import parse_net, parse_solver, read_net, read_solver
from imae.solvers.capture import PACE, WARM_UP, CudaGraphs, Eager
from imae.solvers.class_accuracy import counting_layers
from imae.solvers.log import read_metrics
from imae.solvers.solver import Solver
from imae.solvers.update import UPDATES, create_update

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def solvers(make: Callable[[], Solver]) -> tuple[Solver, Solver, Tapes]:
    """The same solver without and with capture."""
    plain, captured, tapes = make(), make(), Tapes()
    captured.capture_with(tapes)
    return plain, captured, tapes


def assert_same(plain: Solver, captured: Solver) -> None:
    assert captured.iteration == plain.iteration
    assert torch.equal(captured.net.storage.data, plain.net.storage.data)
    assert torch.equal(captured.net.storage.diff, plain.net.storage.diff)
    for ours, theirs in zip(captured.update.histories, plain.update.histories, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip([captured.net, *captured.test_nets], [plain.net, *plain.test_nets], strict=True):
        assert ours.context.passes.number == theirs.context.passes.number
    assert captured.smoothed_loss() == plain.smoothed_loss()


def digits_param(prefix: Path, name: str, settings: str) -> SolverParameter:
    """A digits example, made small; rates of 2^-n make products exact, whichever way a rate comes in."""
    param, changes = read_solver(EXAMPLES / "digits" / f"{name}_solver.prototxt"), parse_solver(settings)
    for field, _ in changes.ListFields():
        param.ClearField(field.name)
    param.MergeFrom(changes)
    param.ClearField("net")
    param.net_param.CopyFrom(read_net(EXAMPLES / "digits" / "digits.prototxt"))
    for layer in param.net_param.layer[:2]:
        layer.digits_data_param.batch_size, layer.digits_data_param.subset = 16, 60
    param.snapshot_prefix = str(prefix)
    return param


def digits(tmp_path: Path, name: str, settings: str) -> Callable[[], Solver]:
    """What makes solvers of `digits_param`, each with a prefix of its own."""
    count = iter(range(9))
    return lambda: Solver(digits_param(tmp_path / f"run{next(count)}", name, settings))


SCHEDULE = """base_lr: 0.125 gamma: 0.5 stepvalue: 5 stepvalue: 9 max_iter: 14 test_iter: 3 test_interval: 4
  display: 3 average_loss: 4 snapshot: 8 """


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cce", ""),
        ("mae", ""),
        ("gce", ""),
        ("imae", ""),
        ("imae", "iter_size: 2 clip_gradients: 0.5"),
        ("cce", 'type: "Nesterov"'),
        ("cce", 'type: "AdaGrad" momentum: 0'),
        ("cce", 'type: "RMSProp" momentum: 0'),
        ("cce", 'type: "AdaDelta"'),
        ("cce", 'type: "Adam"'),
    ],
)
def test_digits_across_rates_tests_displays_snapshots_and_epochs(tmp_path: Path, name: str, settings: str) -> None:
    plain, captured, tapes = solvers(digits(tmp_path, name, SCHEDULE + settings))
    plain.solve()
    captured.solve()
    assert_same(plain, captured)
    ours, theirs = (read_metrics(tmp_path / f"run{i}.metrics.jsonl") for i in (1, 0))
    assert ours == theirs
    assert len(ours) == 9
    apart = "iter_size" in settings
    passes = 2 if apart else 1
    assert tapes.recorded == (3 if apart else 2)  # training, testing; with iter_size the update apart
    trained = 14 * passes - WARM_UP + (14 - WARM_UP if apart else 0)
    assert tapes.replayed == trained + 4 * 3 - WARM_UP


def test_a_captured_run_resumes_and_is_resumed(tmp_path: Path) -> None:
    make = digits(tmp_path, "imae", SCHEDULE)
    plain, captured, _ = solvers(make)
    plain.solve()
    captured.solve()
    for state, recorder in (("run1_iter_8.solverstate", None), ("run0_iter_8.solverstate", Tapes())):
        resumed = make()
        if recorder:
            resumed.capture_with(recorder)
        resumed.solve(tmp_path / state)
        assert_same(plain, resumed)


def test_restoring_another_seed_records_anew(tmp_path: Path) -> None:
    """Seeds are part of a recording; the weights' places, on which it works, stay."""
    plain, captured, tapes = solvers(digits(tmp_path, "gce", SCHEDULE))
    plain.solve()
    captured.step(WARM_UP + 2)
    recorded = tapes.recorded
    captured.net.reseed(77, 3)
    captured.step(WARM_UP + 2)
    assert tapes.recorded == recorded + 1
    captured.restore(tmp_path / "run0_iter_8.solverstate")
    captured.step(6)
    assert torch.equal(captured.net.storage.data, plain.net.storage.data)


def resnet20(tmp_path: Path) -> SolverParameter:
    """The paper's net on a miniature of CIFAR-10."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (26, 3073), np.uint8)
    images[:, 0] %= 10
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(images[4 * i : 4 * i + 4].tobytes())
    (folder / "test_batch.bin").write_bytes(images[20:].tobytes())
    net = resnet_cifar(20, "imae")
    for layer in net.layer:
        if layer.type == "Cifar10Data":
            layer.cifar10_data_param.source = str(tmp_path)
            layer.cifar10_data_param.batch_size = 3
    param = parse_solver(
        'base_lr: 0.125 momentum: 0.9 weight_decay: 0.0001 lr_policy: "step" gamma: 0.5 stepsize: 5 max_iter: 8'
        " random_seed: 3 test_iter: 2 test_interval: 4"
    )
    param.net_param.CopyFrom(net)
    return param


def test_resnet20_with_its_augmentation_over_the_ends_of_epochs(tmp_path: Path) -> None:
    param = resnet20(tmp_path)
    plain, captured, _ = solvers(lambda: Solver(param))
    plain.solve()
    captured.solve()
    assert_same(plain, captured)


def test_a_rate_that_changes_in_each_iteration(tmp_path: Path) -> None:
    """Any rate, against the same functions run without a recording, which is what --no-capture does on a GPU."""
    make = digits(tmp_path, "cce", 'base_lr: 0.1 lr_policy: "poly" power: 0.9 max_iter: 8 weight_decay: 0.01')
    by_kernel, captured = make(), make()
    by_kernel.capture_with(Eager())
    captured.capture_with(Tapes())
    by_kernel.solve()
    captured.solve()
    assert_same(by_kernel, captured)


EVERYTHING = """
layer { name: "data" type: "DigitsData" top: "data" top: "label"
  digits_data_param { batch_size: 6 subset: 20 noise_rate: 0.2 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "scale" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "scale" top: "relu" }
layer { name: "leaky" type: "ReLU" bottom: "conv" top: "leaky" relu_param { negative_slope: 0.1 } }
layer { name: "global" type: "BatchNorm" bottom: "leaky" top: "global" batch_norm_param { use_global_stats: true } }
layer { name: "sum" type: "Eltwise" bottom: "relu" bottom: "leaky" top: "sum" eltwise_param { coeff: 1 coeff: 0.5 } }
layer { name: "most" type: "Eltwise" bottom: "sum" bottom: "relu" top: "most" eltwise_param { operation: MAX } }
layer { name: "product" type: "Eltwise" bottom: "most" bottom: "relu" top: "product"
  eltwise_param { operation: PROD } }
layer { name: "shortcut" type: "Shortcut" bottom: "product" top: "shortcut"
  shortcut_param { num_output: 6 stride: 2 } }
layer { name: "average" type: "Pooling" bottom: "relu" top: "average"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "maximum" type: "Pooling" bottom: "shortcut" top: "maximum"
  pooling_param { pool: MAX kernel_size: 3 pad: 2 } }
layer { name: "drawn" type: "Pooling" bottom: "relu" top: "drawn"
  pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "maximum" top: "drop" }
layer { name: "both" type: "Concat" bottom: "drop" bottom: "maximum" top: "both" }
layer { name: "score" type: "InnerProduct" bottom: "both" top: "score"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "score2" type: "InnerProduct" bottom: "average" top: "score2"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "score3" type: "InnerProduct" bottom: "drawn" top: "score3"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "score4" type: "InnerProduct" bottom: "global" top: "score4"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "scores" type: "Eltwise" bottom: "score" bottom: "score2" bottom: "score3" bottom: "score4"
  top: "scores" eltwise_param { coeff: 1 coeff: 1 coeff: 1 coeff: 0.001 } }
layer { name: "p" type: "Softmax" bottom: "scores" top: "p" }
layer { name: "cce" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "cce"
  loss_param { ignore_label: 3 } }
layer { name: "mae" type: "SoftmaxWithMAELoss" bottom: "scores" bottom: "label" top: "mae" }
layer { name: "imae" type: "SoftmaxWithIMAELoss" bottom: "scores" bottom: "label" top: "imae" }
layer { name: "gce" type: "SoftmaxWithGCELoss" bottom: "scores" bottom: "label" top: "gce"
  gce_param { k: 0.1 start_iter: 6 } }
layer { name: "cce_p" type: "MultinomialLogisticLoss" bottom: "p" bottom: "label" top: "cce_p" }
layer { name: "mae_p" type: "MAELoss" bottom: "p" bottom: "label" top: "mae_p" }
layer { name: "imae_p" type: "IMAELoss" bottom: "p" bottom: "label" top: "imae_p" }
layer { name: "gce_p" type: "GCELoss" bottom: "p" bottom: "label" top: "gce_p" gce_param { k: 0.1 start_iter: 6 } }
layer { name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "accuracy" top: "by_class"
  accuracy_param { top_k: 2 } }
"""
SETTINGS = 'base_lr: 0.0001220703125 momentum: 0.9 lr_policy: "fixed" random_seed: 5 max_iter: 9 display: 1 '


def everything(net: str = EVERYTHING, settings: str = "", **options: Any) -> Solver:
    param = parse_solver(SETTINGS)
    param.MergeFrom(parse_solver(settings) if settings else SolverParameter())
    param.net_param.CopyFrom(parse_net(net))
    return Solver(param, **options)


@pytest.mark.parametrize("plan", ["plain", "fused"])
def test_every_capturable_layer(plan: str) -> None:
    lines: list[list[str]] = [[], []]
    plain, captured = (everything(plan=plan, show=shown.append) for shown in lines)
    captured.capture_with(Tapes())
    plain.solve()
    captured.solve()
    assert_same(plain, captured)
    ours, theirs = ([line.partition("] ")[2] for line in shown if " net output" in line] for shown in lines)
    assert len(ours) == 9 * (8 + 10 + 1)
    assert ours == theirs


def test_counts_of_each_class_go_on_in_replayed_tests_and_begin_anew_in_each() -> None:
    plain, captured = (everything(settings="test_iter: 6 test_interval: 4") for _ in range(2))
    captured.capture_with(Tapes())
    for _ in range(2):
        expected, again = [], []
        for solver, tests in ((plain, expected), (captured, again)):
            solver.step(2)
            tests += solver.test_all()
        assert again[0]["by_class_over_all_images"] == pytest.approx(
            expected[0]["by_class_over_all_images"], nan_ok=True
        )
    (layer,) = counting_layers(captured.test_nets[0]).values()
    assert layer.state[0][1].sum() == 6 * 6


def test_what_is_capturable_shows_it() -> None:
    """Layers with bottoms each alone too, in tests/layers/test_captured.py; data layers here, and in ResNets."""
    assert all(registry[layer.type].capturable for layer in parse_net(EVERYTHING).layer)
    fed = {name for name in fed_from_outside() if registry[name].capturable}
    assert fed == {"Input", "DigitsData", "Cifar10Data"}, "a new one joins these tests"


@pytest.mark.parametrize("which", ["plain", "fused", "resnet"])
def test_on_a_gpu_nothing_passes_between_host_and_device(tmp_path: Path, which: str) -> None:
    """PyTorch knows where operands and results would be even where there is no GPU to compute them."""
    clipped = "clip_gradients: 1 weight_decay: 0.01"
    solver = Solver(resnet20(tmp_path)) if which == "resnet" else everything(settings=clipped, plan=which)
    solver.capture_with(Eager())
    assert solver.training.recorded
    with FakeTensorMode():
        pretend_on_gpu(solver, {})
        for net in (solver.net, *solver.test_nets):
            net.context.device = net.context.passes.device = torch.device("cuda")
            net.context.passes.on_device = torch.zeros((), dtype=torch.int64, device="cuda")
        with Watch() as watch:
            solver.training._iterate()
            for test in solver.testing:
                test._add()
            captured = watch.operations
            solver.net.context.passes.on_device = None
            solver.net.forward()
            solver.net.backward()
    assert captured > 400 and watch.operations - captured > 400


@pytest.mark.parametrize("rule", UPDATES)
def test_an_update_by_any_rule_stays_on_the_gpu(rule: str) -> None:
    momentum = "momentum: 0.9" if UPDATES[rule].takes_momentum else ""
    rest = 'lr_policy: "fixed" weight_decay: 0.01 regularization_type: "L1" clip_gradients: 1 iter_size: 2'
    param = parse_solver(f'type: "{rule}" base_lr: 0.1 {momentum} {rest}')
    storage = Storage([Blob(torch.ones(3, 4)), Blob(torch.ones(3), lr_mult=0)])
    update, rate = create_update(param, storage), torch.zeros((), dtype=torch.float64)
    with FakeTensorMode():
        pretend_on_gpu(update, {})
        rate = pretend_on_gpu(rate, {})
        update.at(3)
        with Watch() as watch:
            update.apply(rate)
    assert watch.operations > 5


def test_a_number_that_the_host_counts_up_shows_as_a_difference(tmp_path: Path) -> None:
    """The tape is as unforgiving as a graph."""

    @register
    class Counting(Layer):
        type = "TestCounting"
        capturable = True

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            return [bottoms[0] + self.context.passes.number]

        def backward(
            self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
        ) -> Diffs:
            return list(top_diffs)

    try:
        net = EVERYTHING.replace('type: "Dropout"', 'type: "TestCounting"')
        plain, captured, tapes = solvers(lambda: everything(net))
    finally:
        del registry["TestCounting"]
    plain.step(WARM_UP + 2)
    captured.step(WARM_UP + 2)
    assert tapes.replayed == 2
    assert plain.smoothed_loss() != captured.smoothed_loss()


def test_what_is_not_capturable_is_said_once_and_runs_as_ever(tmp_path: Path) -> None:
    """A layer from elsewhere has to say that it is capturable."""

    @register
    class Elsewhere(Layer):
        type = "TestElsewhere"

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            return [bottoms[0] * float(bottoms[0].amax())]

        def backward(
            self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
        ) -> Diffs:
            return list(top_diffs)

    lines: list[str] = []
    net = EVERYTHING.replace('type: "Dropout"', 'type: "TestElsewhere"')
    try:
        plain, captured = everything(net), everything(net, show=lines.append)
    finally:
        del registry["TestElsewhere"]
    tapes = Tapes()
    captured.capture_with(tapes)
    said = [line for line in lines if "Not captured" in line]
    assert len(said) == 1
    assert 'training: layer "drop" (TestElsewhere) needs the host' in said[0]
    plain.solve()
    captured.solve()
    assert_same(plain, captured)
    assert tapes.recorded == 0


def test_a_label_that_is_no_class_is_told_at_the_next_display() -> None:
    """A replayed pass cannot raise; until then it takes the nearest class."""
    net = EVERYTHING.replace('name: "scores" type', 'name: "nine" type').replace(
        'top: "scores" }', 'top: "scores" }', 1
    )
    solver = everything(net, "display: 6")
    solver.capture_with(Tapes())
    solver.step(5)
    data = solver.net.steps[0].layer
    data.labels.fill_(10)
    solver.step(1)
    with pytest.raises(InputError, match="label 10 is out of range: there are 10 classes, 0 to 9"):
        solver.step(2)


class PretendedCuda:
    """Stands for `torch.cuda` where there is none: notes what is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waited: list[int] = []
        self.events = 0
        for name in ("set_device", "graph_pool_handle", "Stream", "CUDAGraph", "graph", "Event"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def set_device(self, device: torch.device) -> None: ...

    def graph_pool_handle(self) -> str:
        return "pool"

    def Stream(self) -> str:
        return "stream"

    def CUDAGraph(self) -> Any:
        return SimpleNamespace(replay=lambda: None)

    @contextmanager
    def graph(self, graph: Any, *, pool: str, stream: str, capture_error_mode: str) -> Iterator[None]:
        assert (pool, stream, capture_error_mode) == ("pool", "stream", "thread_local")
        try:
            yield
        except Exception:
            raise RuntimeError("operation failed due to a previous error during capture") from None

    def Event(self, *, blocking: bool) -> Any:
        number, self.events = self.events, self.events + 1
        return SimpleNamespace(record=lambda: None, synchronize=lambda: self.waited.append(number))


def test_the_host_does_not_run_far_ahead_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = PretendedCuda(monkeypatch)
    graphs = CudaGraphs(torch.device("cuda", 0))
    for launched in range(1, 10 * PACE):
        graphs.pace()
        finished = (cuda.waited[-1] + 1) * PACE if cuda.waited else 0
        assert launched - finished < 3 * PACE
    assert cuda.waited == list(range(9 - 2))


def failing(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_what_cannot_be_captured_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    PretendedCuda(monkeypatch)
    function = failing(RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore\n"))
    with pytest.raises(InputError, match="CUDA graph, try --no-capture: CUDA error: operation not permitted") as caught:
        CudaGraphs(torch.device("cuda", 0)).record(function)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), InputError("a label"), KeyError(1)])
def test_what_else_goes_wrong_while_capturing_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    PretendedCuda(monkeypatch)
    with pytest.raises(type(error)) as caught:
        CudaGraphs(torch.device("cuda", 0)).record(failing(error))
    assert caught.value is error


def test_only_a_gpu_captures(tmp_path: Path) -> None:
    assert not everything().training.recorded
