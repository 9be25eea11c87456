"""What single layers do beyond their gradient: Caffe's numbers at the corners, randomness, state, and their errors."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from imae.layers.gradient_check import backward, build_layer
from imae.layers.layer import Context, Layer, Saved, Shapes, describe
from imae.layers.registry import create_layer, register, registry
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN, LayerParameter
from imae.prototxt_like.text import parse_net


def top(text: str, *bottoms: Tensor, phase: int = TRAIN, forwards: int = 0, seed: int = 0) -> Tensor:
    """The first top of a layer with the blobs its fillers gave it."""
    shapes = [tuple(x.shape) for x in bottoms]
    layer = build_layer(text, shapes, phase=phase, forwards=forwards, seed=seed, dtype=bottoms[0].dtype)
    return layer.forward(list(bottoms), {})[0]


# Errors: one line that names the layer, what was found and what was expected


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        ('type: "Relu"', [(2, 3)], 'layer "mine": unknown layer type "Relu"; did you mean "ReLU"?'),
        ('type: "Quux"', [(2, 3)], 'layer "mine": unknown layer type "Quux"; known are Accuracy, '),
        ('type: "ReLU"', [(2, 3), (2, 3)], "takes 1 bottom blob, the prototxt gives 2"),
        ('type: "ReLU" top: "a" top: "b"', [(2, 3)], "takes 1 top blob, the prototxt gives 2"),
        ('type: "Eltwise"', [(2, 3)], "takes 2 or more bottom blobs, the prototxt gives 1"),
        ('type: "Scale"', [(2, 3)] * 3, "takes 1 to 2 bottom blobs, the prototxt gives 3"),
        ('type: "Eltwise"', [(2, 3), (3, 2)], "its bottoms differ in shape: 2x3, 3x2"),
        (
            'type: "Eltwise" eltwise_param { coeff: 1 }',
            [(2,), (2,)],
            "needs a coeff for each of its 2 bottoms, or none, not 1",
        ),
        (
            'type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 2 }',
            [(2,), (2,)],
            "coeff goes with SUM only",
        ),
        ('type: "Concat"', [(2, 3, 4), (2, 3, 5)], "its bottoms differ in more than axis 1: 2x3x4, 2x3x5"),
        ('type: "Concat"', [(2, 3), (2, 3, 1)], "its bottoms differ in more than axis 1: 2x3, 2x3x1"),
        ('type: "Concat" concat_param { axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
        ('type: "Concat" concat_param { axis: 1 concat_dim: 1 }', [(2, 3)], "both axis and concat_dim"),
        ('type: "InnerProduct"', [(2, 3)], "num_output is missing or 0"),
        (
            'type: "InnerProduct" inner_product_param { num_output: 2 axis: 3 }',
            [(2, 3)],
            "axis 3 is out of range for a bottom of shape 2x3",
        ),
        (
            'type: "InnerProduct" inner_product_param { num_output: 2 weight_filler { type: "xavir" } }',
            [(2, 3)],
            'unknown filler "xavir"',
        ),
        ('type: "Convolution" convolution_param { kernel_size: 3 }', [(1, 2, 5, 5)], "num_output is missing or 0"),
        ('type: "Convolution" convolution_param { num_output: 4 }', [(1, 2, 5, 5)], "kernel_size is missing"),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 0 }',
            [(1, 2, 5, 5)],
            "kernel, stride and dilation must be at least 1",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 6 }',
            [(1, 2, 5, 5)],
            "a 6x6 kernel does not fit into the bottom of 1x2x5x5",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 group: 3 }',
            [(1, 2, 5, 5)],
            "group 3 must divide the 2 input and the 4 output channels",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 kernel_h: 3 }',
            [(1, 2, 5, 5)],
            "give either kernel_size or kernel_h and kernel_w",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 pad: 1 pad: 1 }',
            [(1, 2, 5, 5)],
            "pad must be given once or once for each of 2 spatial axes, not 3 times",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
            [(4, 5)],
            "needs N x C and 1 to 3 spatial axes",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
            [(1, 2, 5, 5)] * 2,
            "needs a top for each bottom, has 1 for 2",
        ),
        ('type: "Pooling" pooling_param { kernel_size: 2 }', [(2, 3)], "needs a bottom of 4 axes, found 2x3"),
        ('type: "Pooling"', [(1, 2, 5, 5)], "kernel and stride must be at least 1"),
        (
            'type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }',
            [(1, 2, 5, 5)],
            "pad 2x2 must be smaller than the kernel 2x2",
        ),
        (
            'type: "Pooling" pooling_param { kernel_h: 2 }',
            [(1, 2, 5, 5)],
            "give either kernel_size or both kernel_h and kernel_w",
        ),
        (
            'type: "Pooling" pooling_param { global_pooling: true kernel_size: 2 }',
            [(1, 2, 5, 5)],
            "takes no kernel size",
        ),
        (
            'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 pad: 1 }',
            [(1, 2, 5, 5)],
            "takes no padding",
        ),
        (
            'type: "Pooling" top: "a" top: "b" pooling_param { pool: AVE kernel_size: 3 }',
            [(1, 2, 5, 5)],
            "only MAX pooling has a second top",
        ),
        (
            'type: "Pooling" pooling_param { kernel_size: 1 stride: 2 }',
            [(1, 2, 8, 8)],
            "set round_mode: FLOOR or a pad",
        ),
        (
            'type: "Dropout" dropout_param { dropout_ratio: 1 }',
            [(2, 3)],
            "dropout_ratio must lie between 0 and 1, not 1",
        ),
        ('type: "BatchNorm" param { lr_mult: 1 }', [(2, 3)], "its statistics cannot be learned"),
        ('type: "Scale" scale_param { num_axes: 3 }', [(2, 3)], "num_axes 3 from axis 1 reaches past a bottom of 2x3"),
        ('type: "Scale"', [(2, 3), (2,)], "a scale of 2 does not fit a bottom of 2x3 from axis 1 on"),
        ('type: "Softmax" softmax_param { axis: -3 }', [(2, 3)], "axis -3 is out of range for a bottom of shape 2x3"),
        (
            'type: "Accuracy" accuracy_param { top_k: 4 }',
            [(2, 3), (2,)],
            "top_k must be 1 to the number of classes, 3, not 4",
        ),
        (
            'type: "Input" top: "a" top: "b" top: "c" input_param { shape { dim: 1 } shape { dim: 2 } }',
            [],
            "input_param gives 2 shapes for 3 tops",
        ),
    ],
)
def test_a_mistake_in_the_prototxt_is_one_line_that_names_the_layer(text: str, shapes: Shapes, message: str) -> None:
    with pytest.raises(InputError) as error:
        build_layer(f'name: "mine" {text}', shapes)
    assert str(error.value).startswith('layer "mine"')
    assert message in str(error.value) and "\n" not in str(error.value)


def test_shapes_are_described_as_caffe_prints_them() -> None:
    assert describe((128, 3, 32, 32)) == "128x3x32x32"
    assert describe(()) == "scalar"


def test_files_are_found_in_the_first_folder_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mean.binaryproto").touch()
    context = Context(folders=(tmp_path / "a", tmp_path / "b"))
    assert context.find("mean.binaryproto") == tmp_path / "b" / "mean.binaryproto"
    assert context.find("other") == Path("other")


def test_a_users_own_layer_joins_by_decorator() -> None:
    @register
    class Double(Layer):
        type = "Double"

        def reshape(self, bottoms: Shapes) -> Shapes:
            return bottoms

        def forward(self, bottoms: list[Tensor], saved: Saved) -> list[Tensor]:
            return [2 * bottoms[0]]

    try:
        net = Net(parse_net("""
            layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
            layer { name: "double" type: "Double" bottom: "x" top: "y" }
        """))  # fmt: skip
        assert net.forward(x=torch.tensor([1.0, 2.0]))["y"].tolist() == [2, 4]
    finally:
        del registry["Double"]
    with pytest.raises(InputError, match='unknown layer type "Double"'):
        create_layer(LayerParameter(name="double", type="Double"))


# Pooling


def test_pooling_rounds_up_and_clips() -> None:
    """Caffe's output is 3 where rounding down gives 2; the last windows reach past the border."""
    x = torch.arange(36.0).view(1, 1, 6, 6)
    y = top('type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }', x)
    assert y[0, 0].tolist() == [[14, 16, 17], [26, 28, 29], [32, 34, 35]]
    mean = top('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }', x)
    assert mean[0, 0, 2].tolist() == [28, 30, 31.5]  # of two rows only


def test_average_pooling_divides_by_the_padded_window() -> None:
    y = top('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 pad: 1 }', torch.full((1, 1, 3, 3), 2.0))
    expected = torch.tensor([[8 / 9, 4 / 3, 8 / 9], [4 / 3, 2, 4 / 3], [8 / 9, 4 / 3, 8 / 9]])
    torch.testing.assert_close(y[0, 0], expected)


def test_the_last_window_does_not_start_in_the_padding() -> None:
    layer = build_layer('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 pad: 1 }', [(1, 1, 3, 3)])
    assert layer.reshape([(1, 1, 3, 3)]) == [(1, 1, 2, 2)]  # (3 + 2 - 2) / 2 rounded up + 1 = 3, the third at row 3


def test_max_pooling_tells_where_and_takes_the_first_of_equals() -> None:
    x = torch.tensor([[5.0, 5.0, 1.0], [5.0, 2.0, 7.0], [0.0, 7.0, 7.0]]).view(1, 1, 3, 3)
    text = 'type: "Pooling" top: "y" top: "index" pooling_param { kernel_size: 2 stride: 1 }'
    layer = build_layer(text, [(1, 1, 3, 3)])
    saved: Saved = {}
    y, index = layer.forward([x], saved)
    assert y[0, 0].tolist() == [[5, 7], [7, 7]] and index[0, 0].tolist() == [[0, 5], [7, 5]]
    (dx,) = backward(layer, [x], [y, index], [torch.ones_like(y), torch.full_like(y, 9)], saved, [True])
    assert dx is not None and dx[0, 0].tolist() == [[1, 0, 0], [0, 0, 2], [0, 1, 0]]


def test_stochastic_pooling_draws_in_proportion_and_averages_in_the_test_phase() -> None:
    """Zeiler and Fergus 2013, section 3."""
    text = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }'
    x = torch.tensor([[1.0, 2.0], [0.0, 5.0]]).repeat(100, 100).view(1, 1, 200, 200)
    drawn = top(text, x)
    for value, share in ((1, 1 / 8), (2, 2 / 8), (5, 5 / 8)):
        assert float((drawn == value).float().mean()) == pytest.approx(share, abs=0.025)  # 5 standard errors
    assert top(text, x, phase=TEST).unique().tolist() == [(1 + 4 + 25) / 8]
    layer = build_layer(text, [(1, 1, 4, 4)], phase=TEST)
    saved: Saved = {}
    zeros = torch.zeros(1, 1, 4, 4)
    (y,) = layer.forward([zeros], saved)
    assert not y.any()
    (dx,) = backward(layer, [zeros], [y], [torch.ones(1, 1, 2, 2)], saved, [True])
    assert dx is not None and dx.isfinite().all()


# Dropout


def test_dropout_keeps_the_expectation_and_is_off_in_the_test_phase() -> None:
    text = 'type: "Dropout" dropout_param { dropout_ratio: 0.3 }'
    x = torch.ones(200, 100)
    y = top(text, x)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.017)  # 5 standard errors
    assert torch.equal(top(text, x, phase=TEST), x)


def test_a_dropout_mask_is_a_function_of_seed_layer_and_pass() -> None:
    x = torch.ones(20, 20)
    first = top('name: "a" type: "Dropout"', x)
    assert torch.equal(first, top('name: "a" type: "Dropout"', x))
    assert not torch.equal(first, top('name: "b" type: "Dropout"', x))
    assert not torch.equal(first, top('name: "a" type: "Dropout"', x, forwards=1))
    assert not torch.equal(first, top('name: "a" type: "Dropout"', x, seed=1))
    layer = build_layer('type: "Dropout"', [(20, 20)])
    assert torch.equal(layer.forward([x], {})[0], layer.forward([x], {})[0])  # the net counts passes, not the layer


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_dropout_of_nothing_is_the_identity(phase: int) -> None:
    x = torch.randn(4, 3)
    layer, saved = build_layer('type: "Dropout" dropout_param { dropout_ratio: 0 }', [(4, 3)], phase=phase), {}
    assert torch.equal(layer.forward([x], saved)[0], x)
    assert torch.equal(backward(layer, [x], [x], [x], saved, [True])[0], x)


# The phase: a layer's own wins over the net's


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize(
    "text",
    [
        'type: "Dropout"',
        'type: "BatchNorm"',
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
    ],
)
def test_the_phase_inside_a_layer_wins_over_the_nets(text: str, phase: str) -> None:
    own, other = (TRAIN, TEST) if phase == "TRAIN" else (TEST, TRAIN)
    x = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = top(text, x, phase=own)
    assert torch.equal(top(f"{text} phase: {phase}", x, phase=other), expected)
    assert not torch.equal(top(text, x, phase=other), expected)


# BatchNorm


@settings(max_examples=20, deadline=None)
@given(passes=st.integers(0, 4), shape=st.sampled_from([(5, 2), (3, 2, 4, 4), (1, 2, 3), (1, 2, 1, 1)]))
def test_batch_norm_sums_and_global_statistics(passes: int, shape: tuple[int, ...]) -> None:
    """sum <- 0.9 sum + new, the variance with m / (m - 1); the TEST phase divides both by the sum of the weights."""
    text = 'type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 }'
    train, test = (build_layer(text, [shape], phase=phase) for phase in (TRAIN, TEST))
    m = torch.Size(shape).numel() // 2
    mean, var, weight = torch.zeros(2).double(), torch.zeros(2).double(), 0.0
    generator = torch.Generator().manual_seed(passes)
    for _ in range(passes):
        x = torch.randn(shape, generator=generator).double() + 3
        train.forward([x], {})
        columns = x.movedim(1, 0).flatten(1)
        unbiased = columns.var(1, unbiased=False) * (m / (m - 1) if m > 1 else 1)
        mean, var, weight = 0.9 * mean + columns.mean(1), 0.9 * var + unbiased, 0.9 * weight + 1
    for blob, expected in zip(train.blobs, (mean, var, torch.tensor([weight]).double()), strict=True):
        torch.testing.assert_close(blob.data, expected, rtol=1e-6, atol=1e-12)
    for mine, theirs in zip(test.blobs, train.blobs, strict=True):
        mine.data.copy_(theirs.data)
    x = torch.randn(shape, generator=generator).double()
    spread = (1, 2, *[1] * (len(shape) - 2))
    scale = weight or 1  # no pass yet: mean and variance 0
    expected = (x - (mean / scale).view(spread)) / ((var / scale).view(spread) + 1e-5).sqrt()
    torch.testing.assert_close(test.forward([x], {})[0], expected, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(test.blobs, train.blobs, strict=True):
        assert torch.equal(mine.data, theirs.data)  # the TEST phase moves nothing


def test_batch_norm_of_one_sample_a_channel_is_exactly_zero() -> None:
    assert not top('type: "BatchNorm"', torch.randn(1, 4, 1, 1) * 100).any()


def test_batch_norm_is_accurate_far_from_zero() -> None:
    """Mean 1,000 and standard deviation 1 in float32: the variance is not computed as E[x^2] - mean^2."""
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) + 1000
    exact = (x.double() - x.double().mean(0)) / (x.double().var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(top('type: "BatchNorm"', x).double(), exact, rtol=0, atol=1e-3)


# Eltwise, Scale, InnerProduct, ReLU


def test_eltwise_max_gives_a_tie_to_the_second_of_two_then_to_the_earlier() -> None:
    layer = build_layer('type: "Eltwise" eltwise_param { operation: MAX }', [(1, 3)] * 3)
    saved: Saved = {}
    x = [torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 3.0]])]
    (y,) = layer.forward(x, saved)
    assert y.tolist() == [[1, 2, 3]]
    diffs = backward(layer, x, [y], [torch.ones(1, 3)], saved, [True, True, True])
    assert [diff.tolist() for diff in diffs if diff is not None] == [[[0, 1, 0]], [[1, 0, 0]], [[0, 0, 1]]]


def test_scale_starts_at_one_and_its_bias_at_zero() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(top('type: "Scale" scale_param { bias_term: true }', x), x)
    y = top('type: "Scale" scale_param { filler { value: 3 } bias_filler { value: 1 } bias_term: true }', x)
    torch.testing.assert_close(y, 3 * x + 1)


def test_relu_gives_no_gradient_at_zero() -> None:
    for slope, expected in ((0, [[0, 0, 1]]), (0.5, [[0.5, 0.5, 1]])):
        layer = build_layer(f'type: "ReLU" relu_param {{ negative_slope: {slope} }}', [(1, 3)])
        saved: Saved = {}
        x = torch.tensor([[-1.0, 0.0, 2.0]])
        (dx,) = backward(layer, [x], layer.forward([x], saved), [torch.ones(1, 3)], saved, [True])
        assert dx is not None and dx.tolist() == expected


def test_blobs_take_their_multipliers_from_param_in_order() -> None:
    text = 'type: "InnerProduct" param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 3 }'
    weight, bias = build_layer(text, [(2, 4)]).blobs
    assert (weight.shape, weight.lr_mult, weight.decay_mult) == ((3, 4), 2, 0)
    assert (bias.shape, bias.lr_mult, bias.decay_mult) == ((3,), 1, 1)


def test_weights_are_drawn_in_float32_whatever_the_precision_of_the_pass() -> None:
    text = 'type: "InnerProduct" inner_product_param { num_output: 3 weight_filler { type: "xavier" } }'
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2):
        assert build_layer(text, [(2, 4)], dtype=dtype).blobs[0].data.dtype == expected


# Accuracy

SCORES = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.5, 0.1], [0.2, 0.3, 0.5], [0.4, 0.1, 0.2]])


def accuracy(settings_text: str, y: list[int], scores: Tensor = SCORES, tops: str = "") -> list[Tensor]:
    layer = build_layer(f'type: "Accuracy" {tops} {settings_text}', [tuple(scores.shape), (len(y),)], phase=TEST)
    return layer.forward([scores, torch.tensor(y)], {})


def test_accuracy_counts_labels_with_the_highest_score_and_no_tie() -> None:
    """Caffe: correct if fewer than top_k others score at least as much, so a tie for the first place is wrong."""
    assert float(accuracy("", [1, 0, 2, 0])[0]) == 0.75
    assert float(accuracy("", [1, 1, 2, 1])[0]) == 0.5
    assert float(accuracy("accuracy_param { top_k: 2 }", [0, 0, 1, 1])[0]) == 0.75
    assert float(accuracy("accuracy_param { top_k: 3 }", [0, 0, 1, 1])[0]) == 1


def test_accuracy_calls_nan_wrong() -> None:
    """A net that has diverged, or has no statistics yet, must not have the best accuracy of a run."""
    scores = torch.tensor([[float("nan")] * 3, [float("nan"), 1.0, 0.0], [0.0, 1.0, 0.5]])
    assert float(top('type: "Accuracy"', scores, torch.tensor([1, 1, 1]))) == pytest.approx(1 / 3)


def test_accuracy_leaves_out_the_ignored_label() -> None:
    assert float(accuracy("accuracy_param { ignore_label: 0 }", [1, 0, 2, 0])[0]) == 1
    assert float(accuracy("accuracy_param { ignore_label: 255 }", [255, 255, 2, 1])[0]) == 0.5
    assert float(accuracy("accuracy_param { ignore_label: 1 }", [1, 1, 1, 1])[0]) == 0


def test_accuracy_of_each_class() -> None:
    overall, classes = accuracy("", [1, 1, 1, 0], tops='top: "a" top: "c"')
    assert float(overall) == 0.5
    torch.testing.assert_close(classes, torch.tensor([1, 1 / 3, 0]))


def test_accuracy_of_each_class_over_several_passes_counts_all_labels_alike() -> None:
    """Class 1 is right in 1 of 3 and in 0 of 2, class 2 is in the second alone, class 0 in none."""
    layer = build_layer('type: "Accuracy" top: "a" top: "c"', [(3, 3), (3,)], phase=TEST)
    scores = torch.eye(3)
    for labels in ([1.0, 1.0, 1.0], [1.0, 1.0, 2.0]):
        layer.forward([scores[[1, 0, 0] if labels[2] == 1 else [0, 0, 2]], torch.tensor(labels)], {})
    place = layer.state[0].data_ptr()
    torch.testing.assert_close(layer.of_each_class(), torch.tensor([math.nan, 1 / 5, 1]).double(), equal_nan=True)
    layer.reset()
    assert layer.of_each_class().isnan().all() and layer.state[0].data_ptr() == place
    training = build_layer('type: "Accuracy" top: "a" top: "c"', [(3, 3), (3,)], phase=TRAIN)
    assert not training.state


def test_accuracy_of_spatial_predictions() -> None:
    z = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    y = torch.randint(5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    layer = build_layer('type: "Accuracy"', [(2, 5, 3, 4), (2, 3, 4)], phase=TEST)
    torch.testing.assert_close(layer.forward([z, y], {})[0], (z.argmax(1) == y).float().mean())


def test_accuracy_names_a_label_that_is_no_class() -> None:
    with pytest.raises(InputError, match=r'layer "Accuracy".*label 3 is out of range: there are 3 classes, 0 to 2'):
        accuracy("", [1, 0, 2, 3])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), n=st.integers(1, 6), c=st.integers(1, 5))
def test_accuracy_is_the_fraction_with_fewer_than_k_others_at_or_above(data: st.DataObject, n: int, c: int) -> None:
    scores = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=c, max_size=c), min_size=n, max_size=n))
    y = data.draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n))
    k = data.draw(st.integers(1, c))
    right = [sum(s >= row[label] for s in row) - 1 < k for row, label in zip(scores, y, strict=True)]
    actual = accuracy(f"accuracy_param {{ top_k: {k} }}", y, torch.tensor(scores).float())[0]
    assert float(actual) == pytest.approx(sum(right) / n)
