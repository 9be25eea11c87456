"""The training loop: learning-rate policies, regularisation, clipping, accumulation, tests, snapshots."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imae.layers.layer import Diffs, Layer, Saved, Shapes, Tensors
from imae.layers.registry import register, registry
from imae.nets.net import Net
from imae.prototxt_like.binary import read_caffemodel, read_solverstate, write_caffemodel, write_solverstate
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, NetParameter, SolverParameter
from imae.prototxt_like.text import parse_net, parse_solver
from imae.solvers.divergence import Diverged, LossWatch, first_not_finite
from imae.solvers.learning_rate import check_policy, current_step, learning_rate
from imae.solvers.log import Log, read_metrics
from imae.solvers.solver import Solver

NET = """
layer { name: "data" type: "DigitsData" top: "data" top: "label" include { phase: TRAIN }
  digits_data_param { batch_size: 32 noise_rate: 0.2 } }
layer { name: "data" type: "DigitsData" top: "data" top: "label" include { phase: TEST }
  digits_data_param { batch_size: 100 } }
layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "hidden" top: "hidden" }
layer { name: "drop" type: "Dropout" bottom: "hidden" top: "hidden" dropout_param { dropout_ratio: 0.1 } }
layer { name: "ip" type: "InnerProduct" bottom: "hidden" top: "ip"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
SETTINGS = 'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" random_seed: 5 '


def create_solver(tmp_path: Path, settings: str = "", **options: object) -> Solver:
    (tmp_path / "net.prototxt").write_text(NET)
    param = parse_solver(SETTINGS)
    if settings:
        param.MergeFrom(parse_solver(settings))
    param.net = "net.prototxt"
    if not param.HasField("snapshot_prefix"):
        param.snapshot_prefix = str(tmp_path / "run")
    return Solver(param, folder=tmp_path, **options)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('lr_policy: "fixed"', lambda t: 1.0),
        ('lr_policy: "step" gamma: 0.5 stepsize: 3', lambda t: 0.5 ** (t // 3)),
        ('lr_policy: "exp" gamma: 0.9', lambda t: 0.9**t),
        ('lr_policy: "inv" gamma: 0.1 power: 0.75', lambda t: (1 + 0.1 * t) ** -0.75),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: 2 stepvalue: 5', lambda t: 0.1 ** ((t >= 2) + (t >= 5))),
        # One step an iteration at most, and in their order.
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: [5, 2, 2]', lambda t: 0.1 ** ((t >= 5) + (t >= 6) + (t >= 7))),
        ('lr_policy: "poly" power: 2 max_iter: 10', lambda t: (1 - t / 10) ** 2),
        ('lr_policy: "sigmoid" gamma: 0.3 stepsize: 4', lambda t: 1 / (1 + math.exp(-0.3 * (t - 4)))),
    ],
    ids=lambda value: value.split('"')[1] if isinstance(value, str) else "",
)
def test_each_learning_rate_policy(settings: str, expected) -> None:  # type: ignore[no-untyped-def]
    param = parse_solver(f"base_lr: 0.2 {settings}")
    check_policy(param)
    for t in range(11):
        assert learning_rate(param, t) == pytest.approx(0.2 * expected(t), rel=1e-6)
    if param.lr_policy == "multistep":
        assert [current_step(param, t) for t in (0, 5, 9)] == ([0, 2, 2] if len(param.stepvalue) == 2 else [0, 1, 3])


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        # All 0 in float32: exp(2000) overflows there.
        ('lr_policy: "sigmoid" base_lr: 0.01 gamma: 0.5 stepsize: 4000', {0: 0.0, 9: 0.0, 4000: 0.005, 10**9: 0.01}),
        ('lr_policy: "sigmoid" base_lr: 0.01 gamma: -0.5 stepsize: 2', {0: 0.00731059, 1: 0.00622459, 2: 0.005}),
        ('lr_policy: "sigmoid" base_lr: 0.01 gamma: -0.5 stepsize: 4000', {0: 0.01, 10**9: 0.0}),
        ('lr_policy: "step" base_lr: 0.1 gamma: 10 stepsize: 1', {2: 10, 500: math.inf, 2**31 - 1: math.inf}),
        ('lr_policy: "exp" base_lr: 0.1 gamma: 2', {0: 0.1, 200: math.inf, 5000: math.inf}),
        ('lr_policy: "exp" base_lr: 0.1 gamma: 0.5', {5000: 0.0}),
        ('lr_policy: "multistep" base_lr: 0.1 gamma: 1e30 stepvalue: [1, 2]', {0: 0.1, 1: 1e29, 2: math.inf}),
        ('lr_policy: "inv" base_lr: 0.1 gamma: 1 power: -1000', {0: 0.1, 5: math.inf}),
        ('lr_policy: "inv" base_lr: 0.1 gamma: 1 power: 1000', {0: 0.1, 5: 0.0}),
        ('lr_policy: "poly" base_lr: 0.1 power: -1 max_iter: 10', {0: 0.1, 5: 0.2, 10: math.inf, 20: math.inf}),
        ('lr_policy: "poly" base_lr: 0.1 power: 0.5 max_iter: 10', {10: 0.0, 20: 0.0}),
        ('lr_policy: "poly" base_lr: 0.1 power: 2', {0: 0.0}),
        ('lr_policy: "exp" base_lr: 0 gamma: 2', {5000: 0.0}),
    ],
)
def test_rates_end_in_0_or_infinity_as_caffes_float32_does(settings: str, rates: dict[int, float]) -> None:
    param = parse_solver(settings)
    check_policy(param)
    assert {t: learning_rate(param, t) for t in rates} == pytest.approx(rates, rel=1e-6)


@pytest.mark.parametrize("policy", ["step", "exp", "inv", "multistep"])
def test_a_negative_gamma_is_refused_by_all_policies_but_sigmoid(policy: str) -> None:
    with pytest.raises(InputError, match="gamma must not be negative"):
        check_policy(parse_solver(f'lr_policy: "{policy}" gamma: -0.5 stepsize: 2'))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('lr_policy: "cosine"', "unknown lr_policy"),
        ('lr_policy: "step"', "stepsize"),
        ('lr_policy: "fixed" type: "Adamw"', "unknown type"),
        ('type: "AdaGrad"', "^solver: AdaGrad takes no momentum, found momentum: 0.9$"),
        ('type: "RMSProp"', "^solver: RMSProp takes no momentum, found momentum: 0.9$"),
        ('type: "RMSProp" momentum: 0 rms_decay: 1', r"^solver: rms_decay must lie in \[0, 1\), not 1$"),
        ('type: "Adam" momentum2: 1.5', r"^solver: momentum2 must lie in \[0, 1\), not 1.5$"),
        ('lr_policy: "fixed" regularization_type: "L3"', "regularization_type"),
        ('lr_policy: "fixed" test_iter: 1 test_interval: 0', "test_interval"),
        ('lr_policy: "fixed" iter_size: 0', "iter_size"),
        ('lr_policy: "fixed" train_net: "other"', "give one of"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        create_solver(tmp_path, settings)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_fails_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be"):
        create_solver(tmp_path, f'snapshot_prefix: "{tmp_path}/file/run"')


def one_update(tmp_path: Path, settings: str) -> tuple[Solver, torch.Tensor, torch.Tensor]:
    """A solver after one forward_backward, with the weights and the gradient before the update."""
    solver = create_solver(tmp_path, settings)
    solver.forward_backward(0.0)
    return solver, solver.net.storage.data.clone(), solver.net.storage.diff.clone()


@pytest.mark.parametrize(("kind", "term"), [("L2", lambda w: w), ("L1", torch.sign)])
def test_weight_decay_by_kind_and_multipliers(tmp_path: Path, kind: str, term) -> None:  # type: ignore[no-untyped-def]
    solver, weights, gradient = one_update(tmp_path, f'weight_decay: 0.01 regularization_type: "{kind}"')
    solver.update.apply(0.1)
    for group in solver.net.storage.groups:
        w, g = weights[group.span], gradient[group.span]
        expected = w - 0.1 * group.lr_mult * (g + 0.01 * group.decay_mult * term(w))
        torch.testing.assert_close(group.data, expected)
    assert {(group.lr_mult, group.decay_mult) for group in solver.net.storage.groups} == {(1, 1), (2, 0)}


def test_clipping_scales_the_gradient_to_the_norm(tmp_path: Path) -> None:
    solver, weights, gradient = one_update(tmp_path, "clip_gradients: 0.01")
    assert gradient.norm() > 0.01
    solver.update.apply(1.0)
    first = solver.net.storage.groups[0]
    expected = weights[first.span] - first.lr_mult * gradient[first.span] * (0.01 / gradient.norm())
    torch.testing.assert_close(first.data, expected)
    solver, weights, gradient = one_update(tmp_path, "clip_gradients: 1000")
    solver.update.apply(1.0)
    first = solver.net.storage.groups[0]
    torch.testing.assert_close(first.data, weights[first.span] - first.lr_mult * gradient[first.span])


def test_blobs_begin_at_whole_vectors_and_between_them_is_nothing(tmp_path: Path) -> None:
    """A GPU's kernels read 16 bytes at a time where addresses allow it."""
    solver, *_ = one_update(tmp_path, "weight_decay: 0.01 clip_gradients: 0.01")
    storage = solver.net.storage
    assert len(storage.spans) > 3
    assert all(span.start * storage.data.element_size() % 16 == 0 for span in storage.spans.values())
    between = torch.ones_like(storage.data, dtype=torch.bool)
    for span in storage.spans.values():
        between[span] = False
    assert between.any()
    solver.step(2)
    for flat in (storage.data, storage.diff, *solver.update.histories):
        assert flat.any() and not flat[between].any()


def test_iter_size_averages_passes(tmp_path: Path) -> None:
    single = create_solver(tmp_path, "")
    total = torch.zeros_like(single.net.storage.diff)
    losses = []
    for _ in range(3):
        losses.append(float(single.forward_backward(0.0)))
        total += single.net.storage.diff
    solver, weights, _ = one_update(tmp_path, "iter_size: 3")
    assert float(create_solver(tmp_path, "iter_size: 3").forward_backward(0.0)) == pytest.approx(np.mean(losses))
    solver.update.apply(0.3)
    first = solver.net.storage.groups[0]
    torch.testing.assert_close(first.data, weights[first.span] - 0.3 * first.lr_mult * total[first.span] / 3)


def test_momentum_keeps_the_rate_inside(tmp_path: Path) -> None:
    """After a change of rate the old step is not rescaled: h <- momentum h + rate dw."""
    solver, weights, g1 = one_update(tmp_path, "")
    solver.update.apply(0.1)
    solver.forward_backward(0.0)
    g2 = solver.net.storage.diff.clone()
    solver.update.apply(0.01)
    span, lr = solver.net.storage.groups[0].span, solver.net.storage.groups[0].lr_mult
    expected = weights[span] - 0.1 * lr * g1[span] - (0.9 * 0.1 * lr * g1[span] + 0.01 * lr * g2[span])
    torch.testing.assert_close(solver.net.storage.data[span], expected)


def test_the_log_has_caffes_lines_and_the_metrics_the_same_numbers(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = "max_iter: 10 display: 5 average_loss: 3 test_iter: 5 test_interval: 5 weight_decay: 0.001"
    create_solver(tmp_path, settings, show=lines.append).solve()
    text = "\n".join(lines)
    displays = re.findall(r"Iteration (\d+) \([\d.e+-]+ iter/s, [\d.e+-]+s/5 iters\), loss = ([\d.]+)", text)
    assert [iteration for iteration, _ in displays] == ["0", "5"]
    assert re.findall(r"Iteration (\d+), lr = 0.1", text) == ["0", "5"]
    assert re.findall(r"Iteration (\d+), Testing net \(#0\)", text) == ["0", "5", "10"]
    assert len(re.findall(r"    Test net output #0: accuracy = [\d.]+$", text, re.M)) == 3
    assert len(re.findall(r"    Test net output #1: loss = ([\d.]+) \(\* 1 = \1 loss\)$", text, re.M)) == 3
    assert all(re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \w+\.cpp:\d+\] ", line) for line in lines)
    assert "\n".join(lines) in (tmp_path / "run.log").read_text()
    metrics = read_metrics(tmp_path / "run.metrics.jsonl")
    assert [(m["iteration"], m["phase"]) for m in metrics] == [
        (0, "test"),
        (0, "train"),
        (5, "test"),
        (5, "train"),
        (10, "test"),
    ]
    assert metrics[3]["loss"] == pytest.approx(float(displays[1][1]), rel=1e-5)


def test_a_resumed_run_ends_bit_identical(tmp_path: Path) -> None:
    """Order of the data, augmentation, dropout and noise included; the random_seed may be any, even drawn."""
    settings = "max_iter: 60 snapshot: 25 display: 10 average_loss: 4 test_iter: 3 test_interval: 20 weight_decay: 0.01"
    whole = create_solver(tmp_path, settings)
    whole.solve()
    expected = read_metrics(tmp_path / "run.metrics.jsonl")
    resumed = create_solver(tmp_path, settings.replace("random_seed: 5", "random_seed: -1"))
    resumed.solve(tmp_path / "run_iter_25.solverstate")
    assert torch.equal(resumed.net.storage.data, whole.net.storage.data)
    assert torch.equal(resumed.update.histories[0], whole.update.histories[0])
    assert read_metrics(tmp_path / "run.metrics.jsonl") == expected


@pytest.mark.parametrize("rule", ["Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_a_run_of_any_rule_resumes_bit_identical(tmp_path: Path, rule: str) -> None:
    """All histories are in the state, and Adam's correction goes on where it was."""
    momentum = "momentum: 0" if rule in ("AdaGrad", "RMSProp") else ""
    settings = f'type: "{rule}" {momentum} base_lr: 0.01 max_iter: 9 snapshot: 4 weight_decay: 0.01'
    whole, resumed = create_solver(tmp_path, settings), create_solver(tmp_path, settings)
    before = whole.net.storage.data.clone()
    whole.solve()
    resumed.solve(tmp_path / "run_iter_4.solverstate")
    assert not torch.equal(whole.net.storage.data, before)
    assert torch.equal(resumed.net.storage.data, whole.net.storage.data)
    assert len(whole.update.histories) == (2 if rule in ("AdaDelta", "Adam") else 1)
    for ours, theirs in zip(resumed.update.histories, whole.update.histories, strict=True):
        assert torch.equal(ours, theirs)


def test_the_old_enum_names_the_rule(tmp_path: Path) -> None:
    assert type(create_solver(tmp_path, "solver_type: NESTEROV").update).__name__ == "Nesterov"


def test_weights_with_lr_mult_0_have_no_momentum_from_before(tmp_path: Path) -> None:
    solver = create_solver(tmp_path)
    solver.step(2)
    solver.net.storage.groups[0].lr_mult = 0
    fixed, learned = (group.data.clone() for group in solver.net.storage.groups)
    solver.step(1)
    assert torch.equal(solver.net.storage.groups[0].data, fixed)
    assert not torch.equal(solver.net.storage.groups[1].data, learned)


def test_an_infinite_rate_leaves_fixed_weights_alone(tmp_path: Path) -> None:
    solver = create_solver(tmp_path, 'type: "Adam" weight_decay: 0.01')
    fixed = solver.net.params["ip"][0]
    solver.net.storage.groups[0].lr_mult = 0
    before = fixed.data.clone()
    solver.step(1)
    solver.update.apply(torch.tensor(math.inf))
    assert torch.equal(fixed.data, before)


def test_a_stop_request_ends_after_the_iteration_with_a_snapshot(tmp_path: Path) -> None:
    solver = create_solver(tmp_path, "max_iter: 50 display: 0")

    def stop(what: str, done: int, total: int) -> None:
        solver.stop_requested = done == 7

    solver.on_progress = stop
    solver.solve()
    assert solver.iteration == 7
    assert (tmp_path / "run_iter_7.solverstate").exists()


def test_a_stop_during_a_test_repeats_the_test_after_resuming(tmp_path: Path) -> None:
    settings = "max_iter: 20 test_iter: 5 test_interval: 10 display: 1"
    create_solver(tmp_path, settings).solve()
    expected = read_metrics(tmp_path / "run.metrics.jsonl")
    solver = create_solver(tmp_path, settings)
    solver.on_progress = lambda what, done, total: setattr(
        solver, "stop_requested", what == "test" and done == 3 and solver.iteration == 10
    )
    solver.solve()
    create_solver(tmp_path, settings).solve(tmp_path / "run_iter_10.solverstate")
    assert read_metrics(tmp_path / "run.metrics.jsonl") == expected


# Accuracy of each class: the mean over batches is Caffe's, and counts those without the class as 0


def create_solver_by_class(folder: Path, settings: str, batch: int = 5) -> Solver:
    """Of 12 classes, of which the images have 10, tested in batches that lack some."""
    folder.mkdir(exist_ok=True)
    net = NET.replace("batch_size: 100", f"batch_size: {batch}").replace("num_output: 10", "num_output: 12")
    (folder / "net.prototxt").write_text(net.replace('top: "accuracy"', 'top: "accuracy" top: "by_class"'))
    return Solver(
        parse_solver(f'{SETTINGS} net: "net.prototxt" snapshot_prefix: "{folder}/run" {settings}'), folder=folder
    )


def recorded_tests(folder: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(folder / "run.metrics.jsonl") if record["phase"] == "test"]


def test_accuracy_of_each_class_over_all_images_stands_beside_the_mean_over_batches(tmp_path: Path) -> None:
    """What is true is what one batch of all images gives; a class that no image has has none."""
    create_solver_by_class(tmp_path / "parts", "max_iter: 20 test_iter: 20 test_interval: 20").solve()
    create_solver_by_class(tmp_path / "whole", "max_iter: 20 test_iter: 1 test_interval: 20", batch=100).solve()
    for parts, whole in zip(recorded_tests(tmp_path / "parts"), recorded_tests(tmp_path / "whole"), strict=True):
        true, means = parts["by_class_over_all_images"], parts["by_class"]
        assert true[:10] == pytest.approx(whole["by_class"][:10]) and true[10:] == [None, None]
        assert all(mean <= value for mean, value in zip(means[:10], true[:10], strict=True)) and means[10:] == [0, 0]
    assert max(value - mean for mean, value in zip(means[:10], true[:10], strict=True)) > 0.3
    log = (tmp_path / "parts" / "run.log").read_text()
    for place, more in ((3, f"over all images {true[3]:g}"), (11, "it has no image")):
        line = f"    Test net output #{place + 1}: by_class = {means[place]:g} "
        assert f"{line}(class {place}, mean over batches as in Caffe; {more})\n" in log
    # As Caffe's parse_log.py reads outputs.
    read = re.findall(r"Test net output #(\d+): (\S+) = ([\.\deE+-]+)", log)
    assert len(read) == 2 * (1 + 12 + 1) and {name for _, name, _ in read} == {"accuracy", "by_class", "loss"}


def test_a_test_that_was_interrupted_leaves_no_counts_to_the_one_after_resuming(tmp_path: Path) -> None:
    settings = "max_iter: 8 test_iter: 5 test_interval: 4"
    create_solver_by_class(tmp_path, settings).solve()
    expected = recorded_tests(tmp_path)
    solver = create_solver_by_class(tmp_path, settings)
    solver.on_progress = lambda what, done, total: setattr(
        solver, "stop_requested", what == "test" and done == 3 and solver.iteration == 4
    )
    solver.solve()
    solver.on_progress = lambda what, done, total: None
    solver.stop_requested = False
    solver.solve(tmp_path / "run_iter_4.solverstate")
    assert recorded_tests(tmp_path) == expected
    assert [len(record["by_class_over_all_images"]) for record in expected] == [12] * 3


def test_a_state_of_another_net_is_refused(tmp_path: Path) -> None:
    solver = create_solver(tmp_path, "max_iter: 2")
    solver.solve()
    other = create_solver(tmp_path, "")
    del other.net.learnable[0]
    with pytest.raises(InputError, match="history blobs"):
        other.restore(tmp_path / "run_iter_2.solverstate")


def test_metrics_of_a_killed_run_are_read_up_to_the_unfinished_line(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "run"))
    log.metrics(iteration=1, loss=2.0)
    path = tmp_path / "run.metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"iteration": 2})[:7])
    assert read_metrics(path) == [{"iteration": 1, "loss": 2.0}]
    path.write_text("{oops\n" + path.read_text())
    with pytest.raises(InputError, match=r"metrics\.jsonl:1"):
        read_metrics(path)


def test_metrics_stay_json_where_a_loss_is_not_finite(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "run"))
    log.metrics(iteration=1, loss=math.nan, outputs=[1.0, math.inf])
    assert read_metrics(tmp_path / "run.metrics.jsonl") == [{"iteration": 1, "loss": None, "outputs": [1.0, None]}]


def test_several_test_nets_and_states(tmp_path: Path) -> None:
    settings = "max_iter: 1 test_iter: 1 test_iter: 2 test_interval: 1 display: 0"
    solver = create_solver(tmp_path, settings)
    first, second = solver.test_all()
    assert set(first) == {"accuracy", "loss"} and first != second
    assert [net.context.passes.number for net in solver.test_nets] == [1, 2]


def test_solver_needs_the_prefix_for_snapshots() -> None:
    param = SolverParameter(base_lr=0.1, lr_policy="fixed", snapshot=10)
    with pytest.raises(InputError, match="snapshot_prefix"):
        Solver(param)


STAGED = f"""{NET}
layer {{ name: "exp" type: "ReLU" bottom: "ip" top: "relued" include {{ phase: TRAIN stage: "more" }} }}"""


@pytest.mark.parametrize("where", ["train_state", "test_state", "net", "option"])
def test_a_misspelt_stage_is_refused_wherever_it_is_given(tmp_path: Path, where: str) -> None:
    (tmp_path / "staged.prototxt").write_text(f'{"" if where != "net" else """state { stage: "mroe" }"""} {STAGED}')
    settings = f'{SETTINGS} net: "staged.prototxt" test_iter: 1 test_interval: 1 '
    if where.endswith("state"):
        settings += f'{where} {{ stage: "mroe" }}'
    with pytest.raises(InputError, match='no rule names the stage "mroe"; did you mean "more"'):
        Solver(parse_solver(settings), folder=tmp_path, stages=["mroe"] if where == "option" else [])


def test_a_stage_for_one_of_several_nets_is_no_mistake(tmp_path: Path) -> None:
    """Given by option it is for all nets: some rule, in some phase of one of the files, must name it."""
    (tmp_path / "staged.prototxt").write_text(STAGED)
    (tmp_path / "plain.prototxt").write_text(NET)
    for nets in ('net: "staged.prototxt"', 'train_net: "staged.prototxt" test_net: "plain.prototxt"'):
        param = parse_solver(f"{SETTINGS} {nets} test_iter: 1 test_interval: 1")
        solver = Solver(param, folder=tmp_path, stages=["more"])
        assert "relued" in solver.net.outputs
        assert "relued" not in solver.test_nets[0].outputs


def test_a_level_and_a_stage_that_are_given(tmp_path: Path) -> None:
    """The train net's level is what is given, as Caffe's; the test nets, which Caffe gives neither, have their own."""
    layer = 'layer {{ name: "{0}" type: "ReLU" bottom: "ip" top: "{0}" include {{ {1} }} }}'
    rules = {"first": "min_level: 1 max_level: 1", "second": "min_level: 2 max_level: 2", "more": 'stage: "more"'}
    (tmp_path / "staged.prototxt").write_text(NET + "\n".join(layer.format(*rule) for rule in rules.items()))

    def tops(settings: str = "", **given: Any) -> list[set[str]]:
        settings += f'{SETTINGS} net: "staged.prototxt" test_iter: 1 test_interval: 1'
        solver = Solver(parse_solver(settings), folder=tmp_path, **given)
        return [{*rules} & {*net.outputs} for net in (solver.net, *solver.test_nets)]

    states = "train_state { level: 1 } test_state { level: 2 }"
    assert tops(states) == [{"first"}, {"second"}]
    assert tops(states, level=0) == [set(), {"second"}]
    assert tops(states, level=2) == [{"second"}, {"second"}]
    assert tops(level=1, stages=["more"]) == [{"first", "more"}, {"first", "more"}]


def test_the_solvers_states_choose_the_phases_too(tmp_path: Path) -> None:
    states = "train_state { phase: TEST } test_state { phase: TRAIN } test_iter: 1 test_interval: 1"
    solver = create_solver(tmp_path, states)
    assert [net.context.phase for net in (solver.net, *solver.test_nets)] == [TEST, TRAIN]


def test_a_solver_begins_with_the_weights_that_it_names(tmp_path: Path) -> None:
    first = create_solver(tmp_path)
    for name in "hidden", "ip":
        first.net.params[name][1].data.fill_(7)
        model = first.net.to_proto()
        write_caffemodel(NetParameter(layer=[layer for layer in model.layer if layer.name == name]), tmp_path / name)
    solver = create_solver(tmp_path, 'weights: "hidden, ip"')
    assert torch.equal(solver.net.storage.data, first.net.storage.data)
    assert not create_solver(tmp_path, 'weights: "hidden, ip"', weights=[]).net.params["ip"][1].data.any()


def test_weights_that_lack_a_layer_are_not_resumed_from(tmp_path: Path) -> None:
    """A caffemodel cut between two layers is one that reads well: the rest would stay as initialised."""
    create_solver(tmp_path, "max_iter: 2").solve()
    path = tmp_path / "run_iter_2.caffemodel"
    model = read_caffemodel(path)
    kept = NetParameter(name=model.name, layer=[layer for layer in model.layer if layer.name != "ip"])
    write_caffemodel(kept, path)
    solver = create_solver(tmp_path)
    before = solver.net.storage.data.clone()
    with pytest.raises(InputError, match=r"run_iter_2\.caffemodel: lacks the weights of ip, which the net of .*state"):
        solver.solve(tmp_path / "run_iter_2.solverstate")
    assert torch.equal(solver.net.storage.data, before) and solver.iteration == 0


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{}", "no object with an iteration"),
        (b"[1]", "no object with an iteration"),
        (b'{"iteration": "3", "phase": "train"}', "no object with an iteration"),
        (b'{"iteration": 1, "phase": "\xff"}', "no UTF-8"),
        (b"[" * 100_000, "no JSON"),
        (b"\0\0\0", "no JSON"),
    ],
    ids=["empty", "list", "text", "no utf-8", "deep", "nul"],
)
def test_a_line_of_a_metrics_file_that_is_no_record_blocks_no_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes, what: str
) -> None:
    settings = "max_iter: 4 snapshot: 2 display: 1"
    create_solver(tmp_path, settings).solve()
    path = tmp_path / "run.metrics.jsonl"
    expected = read_metrics(path)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, line, b"\n", *rest]))
    with pytest.raises(InputError, match=rf"run\.metrics\.jsonl:2: is no record of metrics: {what}"):
        read_metrics(path)
    create_solver(tmp_path, settings).solve(tmp_path / "run_iter_2.solverstate")
    assert read_metrics(path) == expected
    assert caplog.messages == [f"{path}: left out what is no record of metrics: line 2 ({what})"]


def test_a_net_whose_loss_has_no_top_trains_and_tests_as_with_it(tmp_path: Path) -> None:
    runs = []
    for name, net in (("with", NET), ("without", NET.replace('top: "loss"', ""))):
        (folder := tmp_path / name).mkdir()
        settings = "max_iter: 4 display: 2 test_iter: 2 test_interval: 2"
        (folder / "net.prototxt").write_text(net)
        param = parse_solver(f'{SETTINGS} {settings} net: "net.prototxt" snapshot_prefix: "{folder}/run"')
        (solver := Solver(param, folder=folder)).solve()
        runs.append(
            (
                solver.net.storage.data,
                read_metrics(folder / "run.metrics.jsonl"),
                (folder / "run.log").read_text(),
            )
        )
    (with_top, expected, _), (without, actual, log) = runs
    assert torch.equal(without, with_top)
    assert [r["accuracy"] for r in actual if "accuracy" in r] == [r["accuracy"] for r in expected if "accuracy" in r]
    assert [r["loss"] for r in actual if r["phase"] == "train"] == [
        r["loss"] for r in expected if r["phase"] == "train"
    ]
    assert "Train net output" not in log and "automatic" not in log


@pytest.mark.parametrize("settings", ["", "snapshot_diff: true"])
def test_snapshots_beyond_protobufs_limit_are_noticed_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    size = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    monkeypatch.setattr("imae.prototxt_like.binary.LARGEST", size if settings else size - 1)
    with pytest.raises(
        InputError, match=r"run: the caffemodel of a snapshot would have .* but protobuf's files end at 2 GiB"
    ):
        create_solver(tmp_path, f"max_iter: 1 {settings}")
    assert [path.name for path in tmp_path.iterdir()] == ["net.prototxt"]
    create_solver(tmp_path, f"max_iter: 1 snapshot_after_train: false {settings}")


def test_a_test_pass_of_no_batches_is_none(tmp_path: Path) -> None:
    solver = create_solver(tmp_path, "max_iter: 1 test_iter: 0 test_interval: 1 test_compute_loss: true")
    solver.solve()
    assert solver.iteration == 1
    assert "Test loss" not in (tmp_path / "run.log").read_text()


def test_a_setting_that_is_not_finite_is_refused_however_it_is_given(tmp_path: Path) -> None:
    param = SolverParameter(base_lr=math.inf, net="net.prototxt")
    with pytest.raises(InputError, match=r"^solver: base_lr is inf, expected a finite number"):
        Solver(param, folder=tmp_path)


def test_solving_holds_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.solvers.run_lock._PATIENCE", 0.0)
    solver, other = (create_solver(tmp_path, "max_iter: 2") for _ in range(2))
    refusals = []

    def solve_too(what: str, done: int, total: int) -> None:
        with pytest.raises(InputError, match="another training writes") as caught:
            other.solve()
        refusals.append(caught.value)

    solver.on_progress = solve_too
    solver.solve()
    assert len(refusals) == 2
    other.solve()


def test_what_a_killed_training_left_of_a_snapshot_goes_with_the_next_training(tmp_path: Path) -> None:
    left = tmp_path / f"run_iter_7.caffemodel.{2**22 + 1}.tmp"
    left.write_bytes(b"half")
    create_solver(tmp_path, "max_iter: 1")
    assert not left.exists()


def diverging(tmp_path: Path, settings: str = "", **options: object) -> Solver:
    """A solver whose weights overflow at iteration 5."""
    steps = 'lr_policy: "multistep" gamma: 1e35 stepvalue: 5 max_iter: 12 snapshot: 2'
    return create_solver(tmp_path, f"{steps} {settings}", **options)


@pytest.mark.parametrize("display", [0, 1, 100])
def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path, display: int) -> None:
    """At once, whatever is displayed; no snapshot is written after, and one that gives such a loss is not sound."""
    solver = diverging(tmp_path, f"display: {display}")
    with pytest.raises(Diverged) as caught:
        solver.solve()
    message = str(caught.value)
    assert re.match(
        r'iteration 6: output "loss" is (nan|inf), first seen in blob "ip" of layer "ip", at learning rate 1e\+34: the '
        "training diverged; ",
        message,
    )
    assert message.endswith(f"the last sound snapshot is {tmp_path}/run_iter_4.solverstate")
    assert message in (tmp_path / "run.log").read_text()
    assert {path.stem for path in tmp_path.glob("*.solverstate")} == {"run_iter_2", "run_iter_4", "run_iter_6"}
    create_solver(tmp_path, "max_iter: 6").solve(tmp_path / "run_iter_4.solverstate")


@pytest.mark.parametrize(
    ("place", "found"),
    [("top", 'blob "a" of layer "a"'), ("gradient", 'the gradient by blob "a" of layer "b"'), ("", "")],
)
def test_what_first_holds_what_is_not_finite_is_found_forward_or_backward(place: str, found: str) -> None:
    """In the last pass, run once more, which changes nothing but gradients."""
    net = Net(parse_net("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "a"
          inner_product_param { num_output: 1 bias_term: false weight_filler { value: 1e30 } } }
        layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" loss_weight: 1
          inner_product_param { num_output: 1 bias_term: false weight_filler { value: 1e-20 } } }
    """), TRAIN)  # fmt: skip
    net.blobs["x"].fill_({"top": 1e10, "gradient": 1e-30, "": 1.0}[place])
    if place == "gradient":
        net.params["b"][0].data.fill_(1e38)
        net.steps[-1].loss_weights[0] = 1e10
    net.forward()
    assert first_not_finite(net) == found
    assert net.context.passes.number == 1 and net.observer is None


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    """Even where no loss has shown it yet, and the file exists from an earlier training."""
    solver = create_solver(tmp_path, "max_iter: 1")
    solver.solve()
    before = (tmp_path / "run_iter_1.caffemodel").read_bytes()
    solver = create_solver(tmp_path, "max_iter: 1")
    solver.update.histories[0][0] = math.inf
    with pytest.raises(
        Diverged, match="iteration 1: weights or their histories are not finite, no snapshot is written"
    ):
        solver.solve()
    assert (tmp_path / "run_iter_1.caffemodel").read_bytes() == before


def test_divergence_may_be_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """But for snapshots; warned of once."""
    solver = diverging(tmp_path, "display: 1 test_iter: 1 test_interval: 3", on_divergence="warn")
    solver.solve()
    assert solver.iteration == 12
    (message,) = caplog.messages
    assert message.startswith("iteration 6:")
    assert {path.stem for path in tmp_path.glob("*.solverstate")} == {"run_iter_2", "run_iter_4", "run_iter_6"}


def test_an_output_beside_the_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    more = 'layer { name: "odd" type: "Scale" bottom: "ip" top: "odd" param { lr_mult: 0 } '
    more += 'scale_param { filler { type: "constant" value: 3e38 } } propagate_down: false }'
    (tmp_path / "odd.prototxt").write_text(NET + more)
    solver = Solver(parse_solver(f'{SETTINGS} net: "odd.prototxt" max_iter: 9'), folder=tmp_path)
    with pytest.raises(Diverged, match=r'iteration \d: output "odd" is nan'):
        solver.solve()


def test_a_test_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    solver = create_solver(tmp_path, "max_iter: 3 test_iter: 1 test_interval: 1")
    solver.net.params["ip"][0].data[0, 0] = math.nan
    with pytest.raises(Diverged, match=r"""iteration 0: test net #0's output "loss" is not finite"""):
        solver.solve()


def test_losses_on_a_gpu_are_looked_at_together(tmp_path: Path) -> None:
    """A look waits for the device; the first that was not finite is told."""
    watch = LossWatch(torch.device("cuda"))
    assert not any(watch.note(i, 0.1 * i, torch.tensor(math.nan if i > 3 else 1.0)) for i in range(6))
    found = watch.first_bad()
    assert found and found[:2] == (4, pytest.approx(0.4))
    assert watch.first_bad() is None


def test_a_loss_that_sticks_at_the_smallest_floats_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    solver = create_solver(tmp_path, "max_iter: 3 display: 1 base_lr: 0")
    solver._name_stuck(solver.net, {"loss": torch.tensor(87.0)})
    assert not caplog.messages
    solver._name_stuck(solver.net, {"loss": torch.tensor(87.33655)})
    solver._name_stuck(solver.net, {"loss": torch.tensor(87.33655)})
    (message,) = caplog.messages
    assert message.startswith('iteration 0: "loss" sticks at 87.3365')


@pytest.mark.parametrize("setting", ["base_lr: -0.1", "momentum: 1", "momentum: -0.5", "weight_decay: -1"])
def test_rates_that_are_nonsense_are_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(InputError, match=setting.split(":")[0]):
        create_solver(tmp_path, setting)


def test_a_test_before_batch_norm_has_statistics_is_named_and_no_point_of_a_curve(tmp_path: Path) -> None:
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "hidden" top: "hidden" }\n'
    (tmp_path / "norm.prototxt").write_text(NET.replace('layer { name: "relu"', norm + 'layer { name: "relu"'))
    settings = f'net: "norm.prototxt" max_iter: 4 test_iter: 1 test_interval: 2 snapshot_prefix: "{tmp_path}/run"'
    solver = Solver(parse_solver(SETTINGS + settings), folder=tmp_path)
    solver.solve()
    records = read_metrics(tmp_path / "run.metrics.jsonl")
    assert [r["iteration"] for r in records if r["phase"] == "test"] == [2, 4]
    assert [r["iteration"] for r in records if r["phase"] == "test without statistics"] == [0]
    line = 'This test means nothing: the running statistics of layer "norm" hold nothing yet, no batch was trained on'
    assert (tmp_path / "run.log").read_text().count(line) == 1


def test_what_outlives_a_pass_in_a_layer_is_resumed_with_it(tmp_path: Path) -> None:
    """As a recurrent layer's hidden values; a snapshot of Caffe's has none of it, and starts at zero."""

    @register
    class Recalling(Layer):
        type = "TestRecalling"

        def setup(self, bottoms: Shapes) -> None:
            self.state = [torch.zeros(bottoms[0])]

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
            y = bottoms[0] + 0.5 * self.state[0]
            self.state[0].copy_(y)
            return [y]

        def backward(
            self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]
        ) -> Diffs:
            return top_diffs

    net = parse_net("""
        layer { name: "data" type: "DigitsData" top: "data" top: "label" digits_data_param { batch_size: 4 } }
        layer { name: "recalling" type: "TestRecalling" bottom: "data" top: "recalled" }
        layer { name: "ip" type: "InnerProduct" bottom: "recalled" top: "ip"
          inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    """)
    settings = 'base_lr: 0.01 lr_policy: "fixed" max_iter: 6 snapshot: 3 random_seed: 2 snapshot_prefix: "%s"'

    def solver(name: str) -> Solver:
        param = parse_solver(settings % (tmp_path / name))
        param.net_param.CopyFrom(net)
        return Solver(param)

    try:
        whole, resumed = solver("whole"), solver("resumed")
        whole.solve()
        resumed.solve(tmp_path / "whole_iter_3.solverstate")
        assert torch.equal(resumed.net.storage.data, whole.net.storage.data)
        assert torch.equal(resumed.net.steps[1].layer.state[0], whole.net.steps[1].layer.state[0])
        state = read_solverstate(tmp_path / "whole_iter_3.solverstate")
        del state.imae_state.layer_state[:]
        write_solverstate(state, tmp_path / "stripped.solverstate")
        resumed.restore(tmp_path / "stripped.solverstate")
        assert not resumed.net.steps[1].layer.state[0].any()
        state.imae_state.layer_state.add(layer="recalling").state.add(shape={"dim": [3]}, data=[1, 2, 3])
        write_solverstate(state, tmp_path / "other.solverstate")
        with pytest.raises(
            InputError, match=r'other.solverstate: state 0 of layer "recalling" is 3, this net.s is 4x1x8x8'
        ):
            resumed.restore(tmp_path / "other.solverstate")
    finally:
        del registry["TestRecalling"]


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_recurrent_layer_goes_on_after_a_kill_with_the_hidden_values_that_it_had(tmp_path: Path, kind: str) -> None:
    """Two sequences, of one number a digit, with cont 1 at each step of all passes."""
    net = parse_net(f"""
        layer {{ name: "data" type: "DigitsData" top: "data" top: "label" digits_data_param {{ batch_size: 4 }} }}
        layer {{ name: "images" type: "Convolution" bottom: "data" top: "images"
          convolution_param {{ num_output: 2 kernel_size: 8 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "ones" type: "InnerProduct" bottom: "images" top: "cont"
          param {{ lr_mult: 0 }} param {{ lr_mult: 0 }}
          inner_product_param {{ num_output: 2 bias_filler {{ value: 1 }} }} }}
        layer {{ name: "recurrent" type: "{kind}" bottom: "images" bottom: "cont" top: "h"
          propagate_down: true propagate_down: false
          recurrent_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "h" top: "ip"
          inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
    """)
    settings = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 6 snapshot: 3 random_seed: 2 snapshot_prefix: "%s"'

    def solver(name: str) -> Solver:
        param = parse_solver(settings % (tmp_path / name))
        param.net_param.CopyFrom(net)
        return Solver(param)

    whole, resumed, forgetful = solver("whole"), solver("resumed"), solver("forgetful")
    whole.solve()
    resumed.solve(tmp_path / "whole_iter_3.solverstate")
    assert torch.equal(resumed.net.storage.data, whole.net.storage.data)
    states = [next(step.layer for step in each.net.steps if step.layer.state).state for each in (whole, resumed)]
    assert all(torch.equal(a, b) and a.any() for a, b in zip(*states, strict=True))
    state = read_solverstate(tmp_path / "whole_iter_3.solverstate")
    del state.imae_state.layer_state[:]
    write_solverstate(state, tmp_path / "stripped.solverstate")
    forgetful.solve(tmp_path / "stripped.solverstate")
    assert not torch.equal(forgetful.net.storage.data, whole.net.storage.data)
