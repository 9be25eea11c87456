"""`debug_info: true`: Caffe's lines of each layer in each displayed iteration, on a net computed by hand."""

from typing import Any

import torch

from imae.prototxt_like.text import parse_solver
from imae.solvers.capture import Eager
from imae.solvers.solver import Solver

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 2 dim: 2 } shape { dim: 2 dim: 1 } data_filler { value: 2 } data_filler { value: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { name: "w" }
  inner_product_param { num_output: 1 weight_filler { value: 0.5 } bias_filler { value: -1 } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
layer { name: "half" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "half" loss_weight: 0.5 }
"""
# x = 2, y = 3: ip = 2 * 0.5 * 2 - 1 = 1; each loss is (2 * (1 - 3)^2) / (2 * 2) = 2, its gradient (1 - 3) / 2 = -1,
# halved for the second; the weight's is -1.5 * 2 + -1.5 * 2, the bias's -1.5 - 1.5.
FORWARD = """
[Forward] Layer data, top blob x data: 2
[Forward] Layer data, top blob y data: 3
[Forward] Layer y_data_1_split, top blob y_data_1_split_0 data: 3
[Forward] Layer y_data_1_split, top blob y_data_1_split_1 data: 3
[Forward] Layer ip, top blob ip data: 1
[Forward] Layer ip, param blob w data: 0.5
[Forward] Layer ip, param blob 1 data: 1
[Forward] Layer relu, top blob ip data: 1
[Forward] Layer ip_relu_0_split, top blob ip_relu_0_split_0 data: 1
[Forward] Layer ip_relu_0_split, top blob ip_relu_0_split_1 data: 1
[Forward] Layer loss, top blob loss data: 2
[Forward] Layer half, top blob half data: 2
"""
BACKWARD = """
[Backward] Layer half, bottom blob ip_relu_0_split_1 diff: 0.5
[Backward] Layer loss, bottom blob ip_relu_0_split_0 diff: 1
[Backward] Layer ip_relu_0_split, bottom blob ip diff: 1.5
[Backward] Layer relu, bottom blob ip diff: 1.5
[Backward] Layer ip, param blob 0 diff: 6
[Backward] Layer ip, param blob 1 diff: 3
[Backward] All net params (data, diff): L1 norm = (2, 15); L2 norm = (1.22474, 9)
"""
UPDATE = """
[Update] Layer ip, param w data: 0.5; diff: 0.6
[Update] Layer ip, param 1 data: 1; diff: 0.3
"""
ITERATION = [*FORWARD.splitlines()[1:], *BACKWARD.splitlines()[1:]]
SETTINGS = 'base_lr: 0.1 lr_policy: "fixed" display: 2 debug_info: true snapshot_after_train: false random_seed: 1'


def solver(settings: str = SETTINGS, net: str = NET, **options: Any) -> tuple[Solver, list[str]]:
    """A solver, and the lines that it logs, without their head."""
    lines: list[str] = []
    text = f"net_param {{ {net} }} {settings}"
    made = Solver(parse_solver(text), show=lambda line: lines.append(line.partition("] ")[2].strip()), **options)
    return made, lines


def about(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("[") or "lr =" in line]


def test_the_lines_are_caffes_in_its_order() -> None:
    training, lines = solver()
    training.step(1)
    assert about(lines) == [*ITERATION, "Iteration 0, lr = 0.1", *UPDATE.splitlines()[1:]]
    del lines[:]
    training.step(1)
    assert about(lines) == []  # not displayed
    training.step(1)
    assert len(about(lines)) == len(ITERATION) + 3


def test_each_pass_of_an_iteration_is_told_and_gradients_add_up() -> None:
    training, lines = solver(f"{SETTINGS} iter_size: 2")
    training.step(1)
    told = about(lines)
    assert told[: len(ITERATION)] == ITERATION
    assert told[len(ITERATION) : len(ITERATION) + 12] == FORWARD.splitlines()[1:]
    assert "[Backward] Layer ip, param blob 0 diff: 12" in told
    assert told[-2:] == UPDATE.splitlines()[1:]


def test_what_backward_leaves_out_is_left_out() -> None:
    net = NET.replace('param { name: "w" }', "param { lr_mult: 0 } param {}").replace(
        'bottom: "ip" bottom: "y" top: "half"', 'bottom: "ip" bottom: "y" propagate_down: [false, false] top: "half"'
    )
    training, lines = solver(net=net)
    training.step(1)
    assert [line for line in about(lines) if line.startswith("[B")][:-1] == [
        "[Backward] Layer loss, bottom blob ip_relu_0_split_0 diff: 1",
        "[Backward] Layer ip_relu_0_split, bottom blob ip diff: 1",
        "[Backward] Layer relu, bottom blob ip diff: 1",
        "[Backward] Layer ip, param blob 1 diff: 2",
    ]


def test_a_blob_that_is_a_loss_and_is_read_has_a_split_whose_first_top_is_the_loss() -> None:
    net = NET.replace('bottom: "ip" top: "ip" }', 'bottom: "ip" top: "ip" loss_weight: 2 }')
    training, lines = solver(net=net)
    training.step(1)
    told = about(lines)
    assert told[8:11] == [f"[Forward] Layer ip_relu_0_split, top blob ip_relu_0_split_{k} data: 1" for k in range(3)]
    assert "[Backward] Layer loss, bottom blob ip_relu_0_split_1 diff: 1" in told
    assert "[Backward] Layer ip_relu_0_split, bottom blob ip diff: 0.5" in told  # 2 - 1 - 0.5


def test_a_test_net_tells_of_every_batch_forward_alone() -> None:
    training, lines = solver(f"{SETTINGS} test_iter: 2 test_interval: 5")
    training.test_all()
    assert about(lines) == FORWARD.splitlines()[1:] * 2


def test_training_has_the_bits_that_it_has_without_and_is_not_captured() -> None:
    settings = f"{SETTINGS} momentum: 0.9 weight_decay: 0.01"
    told, lines = solver(settings)
    told.capture_with(Eager())
    assert "Not captured as a CUDA graph, training: debug_info: true reads values in each pass" in lines
    told.step(5)
    silent, others = solver(settings.replace("debug_info: true", ""), plan="plain")
    silent.capture_with(Eager())
    silent.step(5)
    assert not any("[" in line or "debug_info" in line for line in others)
    assert torch.equal(told.net.storage.data, silent.net.storage.data)
    assert torch.equal(told.update.histories[0], silent.update.histories[0])
