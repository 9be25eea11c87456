"""Witness: every layer keeps the contract of `Layer`, beside computing what it should.

That `backward` reads only what `keeps` names is seen throughout: `gradient_check.backward` gives NaN for all else.
"""

import pytest
import torch
from layer_cases import (
    Case,
    all_cases,
    every_case,
    fed_from_outside,
    file_of_tests,
    load,
    ours,
    run,
    weights,
    witnesses,
)
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Layer, Shape


def given(values: object) -> list[Tensor]:
    return [value for value in values if value is not None]  # type: ignore[attr-defined]


def test_no_layer_type_is_left_out() -> None:
    """A new layer's cases stand in the test file that mirrors its own."""
    for name, layer in ours().items():
        path = file_of_tests(layer)
        if name not in fed_from_outside() | {"Python", "HDF5Output"}:  # run the user's code, write a file
            assert path.exists(), f"{name} has no tests: {path} is missing"
            assert any(case.type == name for case in getattr(load(path), "CASES", [])), f"{path} has no case of {name}"


def test_what_a_witness_leaves_out_has_its_reason() -> None:
    assert {"test_gradient_agrees_with_finite_differences", "test_reshaped_is_as_built"} <= witnesses()
    for case in all_cases():
        assert set(case.without) <= witnesses() and all(case.without.values()), case
    with pytest.raises(AssertionError, match="reason"):
        every_case(ReLU="")
    with pytest.raises(AssertionError, match=r"no such layers: \{'Relu'\}"):
        every_case(Relu="has no derivative")
    with pytest.raises(AssertionError, match="reason"):
        every_case(lambda case: case.type == "ReLU")


def at_most(shapes: list[Shape], others: list[Shape] | None) -> bool:
    """Whether these shapes have the axes of the others, and no size above theirs."""
    return all(
        a <= b for shape, other in zip(shapes, others or [], strict=True) for a, b in zip(shape, other, strict=True)
    )


@every_case()
def test_reshape_announces_the_shapes_of_the_tops(case: Case) -> None:
    layer = build_layer(case.param, case.shapes, phase=case.phase)
    announced = layer.reshape(case.shapes)
    made = [tuple(top.shape) for top in case.build().forward(case.draw(), {})]
    assert announced == made or (layer.tops_vary and at_most(made, announced))


@every_case()
def test_a_pass_changes_neither_bottoms_nor_top_diffs(case: Case) -> None:
    bottoms, layer = case.draw(), case.build()
    diffs = weights(case.build().forward(case.draw(), {}))
    run(layer, bottoms, diffs)
    for before, after in zip(case.draw(), bottoms, strict=True):
        assert torch.equal(before, after)
    for diff in diffs:
        assert torch.equal(diff, weights([diff])[0])


@every_case()
def test_what_backward_reads_are_bottoms_and_tops(case: Case) -> None:
    kept, tops = case.build().keeps(), case.build().forward(case.draw(), {})
    assert set(kept.bottoms) <= set(range(len(case.bottoms))) and set(kept.tops) <= set(range(len(tops)))


@every_case(lambda case: bool(case.build().blobs), "it has no blobs")
def test_gradients_add_up_in_the_blobs_that_are_learned(case: Case) -> None:
    layer = case.build()
    run(layer, case.draw())
    once = [blob.diff.clone() for blob in layer.blobs]
    layer.reset()
    run(layer, case.draw())
    for blob, diff in zip(layer.blobs, once, strict=True):
        torch.testing.assert_close(blob.diff, 2 * diff)
    for fixed in range(len(layer.blobs)):
        layer = case.build()
        layer.blobs[fixed].lr_mult = 0.0
        run(layer, case.draw())
        assert not layer.blobs[fixed].diff.any()
        for i, blob in enumerate(layer.blobs):
            assert i == fixed or torch.equal(blob.diff, once[i])


@every_case(lambda case: len(case.shapes) > 0 and len(case.shapes[0]) == 4, "its bottom is no image")
def test_images_may_lie_channels_last(case: Case) -> None:
    images = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in case.draw()]
    layer, other = case.build(), case.build()
    expected, actual = run(layer, case.draw()), run(other, images)
    torch.testing.assert_close(given(actual[1]), given(expected[1]))
    torch.testing.assert_close(actual[0], expected[0])
    torch.testing.assert_close([blob.diff for blob in other.blobs], [blob.diff for blob in layer.blobs])


@every_case()
def test_bottoms_and_top_diffs_may_lie_anyhow_in_memory(case: Case) -> None:
    """Other layers give parts of a tensor, and one number for all elements."""
    layer, other = case.build(), case.build()
    ones = [torch.ones_like(top) for top in case.build().forward(case.draw(), {})]
    expected = run(layer, case.draw(), ones)
    parts = [torch.stack([x, x], -1)[..., 0] for x in case.draw()]
    actual = run(other, parts, [torch.ones((), dtype=one.dtype).expand(one.shape) for one in ones])
    torch.testing.assert_close(actual[0], expected[0])
    torch.testing.assert_close(given(actual[1]), given(expected[1]))
    torch.testing.assert_close([blob.diff for blob in other.blobs], [blob.diff for blob in layer.blobs])


def assert_same_in(dtype: torch.dtype, tolerance: float, case: Case) -> None:
    """The blobs stay float32, as a net keeps them; gradients come in the bottoms' precision."""
    rounded = [x.to(dtype) if x.is_floating_point() else x for x in case.draw()]
    layer, exact = case.build(torch.float32), case.build()
    tops, diffs = run(layer, rounded)
    wanted_tops, wanted_diffs = run(exact, [x.double() if x.is_floating_point() else x for x in rounded])

    def assert_near(actual: Tensor, wanted: Tensor) -> None:
        largest = max([1.0, *wanted.abs().flatten().tolist()])
        torch.testing.assert_close(actual.double(), wanted.double(), rtol=tolerance, atol=tolerance * largest)

    for top, wanted in zip(tops, wanted_tops, strict=True):
        assert_near(top, wanted)
    for x, diff, wanted_diff in zip(rounded, diffs, wanted_diffs, strict=True):
        if wanted_diff is not None:
            assert diff is not None and diff.dtype == x.dtype
            assert_near(diff, wanted_diff)
    for blob, reference in zip(layer.blobs, exact.blobs, strict=True):
        assert blob.diff.dtype == torch.float32
        assert_near(blob.diff, reference.diff)


@every_case()
def test_float32_gives_the_same_within_its_own_precision(case: Case) -> None:
    assert_same_in(torch.float32, 1e-3, case)


@every_case()
def test_bfloat16_gives_the_same_within_its_own_precision(case: Case) -> None:
    assert_same_in(torch.bfloat16, 0.05, case)


def other_shapes(case: Case) -> list[Shape] | None:
    """Bottoms of another size, from which a layer of this case may be reshaped: twice the batch, or what fits."""
    for shapes in (
        [(2 * shape[0], *shape[1:]) if shape else () for shape in case.shapes],
        [(*shape[:2], *(size + 3 for size in shape[2:])) for shape in case.shapes],
    ):
        if shapes != case.shapes and fits(case, shapes):
            return shapes
    return None


def fits(case: Case, shapes: list[Shape]) -> bool:
    try:
        layer: Layer = build_layer(case.param, shapes, phase=case.phase)
        layer.reshape(case.shapes)
    except Exception:
        return False
    return True


@every_case(lambda case: other_shapes(case) is not None, "its blobs' shape is that of all its bottom")
def test_reshaped_is_as_built(case: Case) -> None:
    """Built for another shape and run on it, then reshaped to this one: nothing of the other is left."""
    shapes = other_shapes(case)
    assert shapes is not None
    layer, built = build_layer(case.param, shapes, phase=case.phase, forwards=case.forwards), case.build()
    elsewhere = [torch.zeros(shape, dtype=x.dtype) for shape, x in zip(shapes, case.draw(), strict=True)]
    run(layer, [elsewhere[0] + 0.5, *elsewhere[1:]])
    assert layer.reshape(case.shapes) == built.reshape(case.shapes)
    assert layer.geometry == built.geometry
    layer.reset()
    for blob, other in zip(layer.blobs, built.blobs, strict=True):
        assert blob.shape == other.shape
        blob.data.copy_(other.data)
        blob.diff.zero_()
    expected, actual = run(built, case.draw()), run(layer, case.draw())
    assert all(torch.equal(a, b) for a, b in zip(actual[0], expected[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given(actual[1]), given(expected[1]), strict=True))
    for blob, other in zip(layer.blobs, built.blobs, strict=True):
        assert torch.equal(blob.data, other.data) and torch.equal(blob.diff, other.diff)


@every_case()
def test_what_outlives_a_pass_is_in_blobs_and_state(case: Case) -> None:
    """With these as they were, the same pass gives the same, bit for bit; `reset` begins anew, in the same memory."""
    layer = case.build()
    before = [*(blob.data.clone() for blob in layer.blobs), *(tensor.clone() for tensor in layer.state)]
    places = [tensor.data_ptr() for tensor in layer.state]
    first = run(layer, case.draw())
    layer.reset()
    assert all(not tensor.any() for tensor in layer.state)
    for tensor, value in zip([*(blob.data for blob in layer.blobs), *layer.state], before, strict=True):
        tensor.copy_(value)
    second = run(layer, case.draw())
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given(first[1]), given(second[1]), strict=True))
    assert [tensor.data_ptr() for tensor in layer.state] == places


@every_case(lambda case: ours()[case.type].recomputes, "its tops are kept, not recomputed")
def test_recomputed_tops_are_those_of_forward(case: Case) -> None:
    layer, saved = case.build(), {}
    tops = layer.forward(case.draw(), saved)
    moved = [blob.data.clone() for blob in layer.blobs]
    for top, again in zip(tops, layer.recompute(case.draw(), saved), strict=True):
        assert torch.equal(top, again)
    assert all(torch.equal(blob.data, data) for blob, data in zip(layer.blobs, moved, strict=True))
