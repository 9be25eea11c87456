"""Witness: a pass of a layer that says it is capturable can be recorded once and replayed, and stays on a GPU."""

import torch
from layer_cases import Case, every_case, ours, run
from tape import Tapes, Watch, pretend_on_gpu
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


def capturable(case: Case) -> bool:
    return ours()[case.type].capturable


@every_case(capturable, "a net that has it is not captured")
def test_a_replayed_pass_is_the_pass_itself(case: Case) -> None:
    """For other bottoms and other numbers of the pass than those it was recorded with, bit for bit."""
    plain, captured = case.build(), case.build()
    number = captured.context.passes.on_device = torch.zeros((), dtype=torch.int64)
    bottoms, made = case.draw(), []

    def once() -> None:
        made[:] = run(captured, bottoms)

    replay = Tapes().record(once)
    for passes in (0, 1, 5):
        given = case.draw(again=passes)
        number.fill_(passes)
        for x, value in zip(bottoms, given, strict=True):
            x.copy_(value)
        replay()
        plain.context.passes.number = passes
        for actual, expected in zip(made, run(plain, given), strict=True):
            assert_equal(actual, expected)
        for mine, theirs in zip(captured.blobs, plain.blobs, strict=True):
            assert_equal([mine.data, mine.diff], [theirs.data, theirs.diff])
        assert_equal(captured.state, plain.state)


def assert_equal(actual: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@every_case(capturable, "a net that has it is not captured")
def test_on_a_gpu_a_pass_leaves_it_nowhere(case: Case) -> None:
    """PyTorch knows where operands and results would be even where there is no GPU to compute them."""
    layer, bottoms, saved = case.build(torch.float32), case.draw(), {}
    needs = [i not in layer.no_gradient_to for i in range(len(bottoms))]
    with FakeTensorMode():
        bottoms = [x.float() if x.is_floating_point() else x for x in pretend_on_gpu(bottoms, {})]
        pretend_on_gpu(layer, {})
        layer.context.device = layer.context.passes.device = torch.device("cuda")
        layer.context.passes.on_device = torch.zeros((), dtype=torch.int64, device="cuda")
        with Watch():
            tops = layer.forward(bottoms, saved)
            diffs = layer.backward(bottoms, tops, [torch.ones_like(top) for top in tops], saved, needs)
    assert {top.device.type for top in tops} | {diff.device.type for diff in diffs if diff is not None} <= {"cuda"}
