"""ONNX Runtime computes what the exported net computes: each layer, and the real ResNet-20, at any batch size."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from imae.layers.layer import Layer
from imae.layers.registry import registry
from imae.nets.deploy import deploy
from imae.nets.digits_net import digits_net
from imae.nets.net import Net
from imae.nets.onnx_export import compare_with_onnxruntime, export_onnx
from imae.nets.onnx_model import newest_opset
from imae.nets.onnx_preprocess import ImageOptions
from imae.nets.onnx_verify import verify
from imae.nets.resnet_cifar import resnet_cifar
from imae.prototxt_like.binary import array_to_blob
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import parse_net

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "nets" / "resnet20.npz"
BATCHES = (1, 3, 32)

# One layer each: its settings, and the shapes of its bottoms but for the batch. Every layer with an ONNX form is here.
LAYERS = {
    "batch_norm": ('type: "BatchNorm"', [(4, 5, 6)]),
    "batch_norm_of_vectors": ('type: "BatchNorm"', [(4,)]),
    "batch_norm_by_the_batch": ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', [(4, 5, 6)]),
    "batch_norm_in_phase_train": ('type: "BatchNorm" phase: TRAIN', [(4,)]),
    "batch_norm_of_one_axis_by_the_batch": ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', [()]),
    "concat": ('type: "Concat"', [(4, 5), (1, 5), (2, 5)]),
    "concat_along_the_last_axis": ('type: "Concat" concat_param { axis: -1 }', [(4, 5), (4, 1)]),
    "convolution": (
        'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 }',
        [(4, 7, 8)],
    ),
    "convolution_uneven": (
        'type: "Convolution" convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 0 stride_h: 1 '
        "stride_w: 2 dilation: 2 group: 2 bias_term: false }",
        [(4, 7, 8)],
    ),
    "crop": ('type: "Crop" crop_param { offset: 1 offset: 2 }', [(4, 7, 8), (4, 5, 4)]),
    "deconvolution": (
        'type: "Deconvolution" convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2 }',
        [(4, 5, 6)],
    ),
    "convolution_without_axes": ('type: "Convolution" convolution_param { num_output: 6 group: 2 }', [(4,)]),
    "convolution_of_later_channels": (
        'type: "Convolution" convolution_param { num_output: 6 kernel_size: 2 axis: 2 }',
        [(3, 4, 5)],
    ),
    "dropout": ('type: "Dropout"', [(4, 5)]),
    "dropout_scaled": ('type: "Dropout" dropout_param { scale_train: false }', [(4, 5)]),
    "eltwise_sum": ('type: "Eltwise" eltwise_param { coeff: 1 coeff: -0.5 coeff: 2 }', [(4, 5)] * 3),
    "eltwise_product": ('type: "Eltwise" eltwise_param { operation: PROD }', [(4, 5)] * 3),
    "eltwise_maximum": ('type: "Eltwise" eltwise_param { operation: MAX }', [(4, 5)] * 3),
    "im2col": ('type: "Im2col" convolution_param { kernel_size: 3 pad: 1 stride: 2 dilation: 2 }', [(2, 7, 8)]),
    "im2col_of_later_channels": ('type: "Im2col" convolution_param { kernel_size: 2 axis: 2 }', [(3, 2, 5)]),
    "inner_product": ('type: "InnerProduct" inner_product_param { num_output: 6 }', [(4, 2, 3)]),
    "inner_product_transposed": (
        'type: "InnerProduct" inner_product_param { num_output: 6 bias_term: false transpose: true }',
        [(4, 2, 3)],
    ),
    "inner_product_of_rows": ('type: "InnerProduct" inner_product_param { num_output: 6 axis: 2 }', [(4, 2, 3)]),
    "arg_max": ('type: "ArgMax"', [(4, 2, 3)]),
    "arg_max_of_several": ('type: "ArgMax" argmax_param { top_k: 3 }', [(4, 2, 3)]),
    "maxima_with_indices": ('type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }', [(4, 2)]),
    "several_maxima_along_an_axis": ('type: "ArgMax" argmax_param { top_k: 2 axis: 1 out_max_val: true }', [(4, 2)]),
    "arg_max_along_an_axis": ('type: "ArgMax" argmax_param { axis: 1 }', [(4, 2, 3)]),
    "maximum_along_an_axis": ('type: "ArgMax" argmax_param { axis: -1 out_max_val: true }', [(4, 2, 3)]),
    "batch_reindex": ('type: "BatchReindex"', [(4, 2), ()]),
    "embed": ('type: "Embed" embed_param { num_output: 3 input_dim: 2 }', [(4,)]),
    "embed_without_bias": ('type: "Embed" embed_param { num_output: 3 input_dim: 2 bias_term: false }', [(4,)]),
    "filter": ('type: "Filter" top: "z"', [(4, 2), (3,), (1,)]),
    "flatten": ('type: "Flatten"', [(4, 2, 3)]),
    "flatten_of_some_axes": ('type: "Flatten" flatten_param { axis: 2 end_axis: 3 }', [(4, 2, 3, 2)]),
    "flatten_of_all_axes": ('type: "Flatten" flatten_param { axis: 0 end_axis: 1 }', [(4, 2, 3)]),
    "parameter": ('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', []),
    "reshape": ('type: "Reshape" reshape_param { shape { dim: 0 dim: 3 dim: -1 } }', [(4, 2, 3)]),
    "reshape_of_some_axes": ('type: "Reshape" reshape_param { shape { dim: 8 } axis: 1 num_axes: 2 }', [(4, 2, 3)]),
    "reshape_of_all_axes": ('type: "Reshape" reshape_param { shape { dim: -1 dim: 2 } }', [(4, 3)]),
    "slice": ('type: "Slice" top: "z" slice_param { slice_point: 1 }', [(4, 2, 3)]),
    "slice_of_one": ('type: "Slice"', [(4, 2)]),
    "split": ('type: "Split" top: "z"', [(4, 2)]),
    "spp": ('type: "SPP" spp_param { pyramid_height: 2 }', [(4, 7, 8)]),
    "tile": ('type: "Tile" tile_param { tiles: 3 }', [(4, 2)]),
    "relu": ('type: "ReLU"', [(4, 5)]),
    "relu_leaky": ('type: "ReLU" relu_param { negative_slope: 0.1 }', [(4, 5)]),
    "scale": ('type: "Scale" scale_param { bias_term: true }', [(4, 2, 3)]),
    "scale_of_two_axes": ('type: "Scale" scale_param { num_axes: 2 }', [(4, 2, 3)]),
    "bias": ('type: "Bias" bias_param { num_axes: 2 }', [(4, 2, 3)]),
    "bias_by_a_bottom": ('type: "Bias" bias_param { axis: 0 }', [(4, 2, 3), (4,)]),
    "scale_by_a_bottom": ('type: "Scale" scale_param { axis: 0 }', [(4, 2, 3), (4,)]),
    "shortcut": ('type: "Shortcut" shortcut_param { num_output: 6 stride: 2 }', [(4, 7, 8)]),
    "softmax": ('type: "Softmax"', [(10,)]),
    "softmax_along_an_axis": ('type: "Softmax" softmax_param { axis: 2 }', [(4, 5, 6)]),
    "global_average": ('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', [(4, 7, 8)]),
    "global_maximum": ('type: "Pooling" pooling_param { global_pooling: true }', [(4, 7, 8)]),
}
LAYERS |= {
    settings: (settings, [(4, 5)])
    for settings in (
        'type: "AbsVal"',
        'type: "BNLL"',
        'type: "Clip" clip_param { min: -0.5 max: 0.75 }',
        'type: "Clip" clip_param { min: 1 max: -1 }',
        'type: "ELU" elu_param { alpha: 0.5 }',
        'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }',
        'type: "Log" log_param { base: 2 scale: 0.125 shift: 2 }',
        'type: "Power" power_param { scale: -2 shift: 1 }',
        'type: "Power" power_param { power: 1.5 scale: 0.125 shift: 2 }',
        'type: "Power" power_param { power: 3 scale: 0 shift: 2 }',
        'type: "PReLU"',
        'type: "PReLU" prelu_param { channel_shared: true }',
        'type: "Sigmoid"',
        'type: "Swish" swish_param { beta: 1.5 }',
        'type: "TanH"',
        'type: "Threshold" threshold_param { threshold: 0.25 }',
    )
}
LAYERS |= {
    settings: (settings, [(5, 4, 3)])
    for settings in (
        'type: "LRN" lrn_param { alpha: 0.5 k: 1.5 local_size: 3 }',
        'type: "LRN" lrn_param { alpha: 0.5 local_size: 3 norm_region: WITHIN_CHANNEL }',
        'type: "LRN" lrn_param { alpha: 2 beta: 0.5 local_size: 7 norm_region: WITHIN_CHANNEL }',
        'type: "MVN" mvn_param { eps: 0.01 }',
        'type: "MVN" mvn_param { across_channels: true }',
        'type: "MVN" mvn_param { across_channels: true normalize_variance: false }',
    )
}
LAYERS["mvn_of_fewer_axes"] = ('type: "MVN" mvn_param { across_channels: true }', [(5, 4)])
for operation in ("SUM", "ASUM", "SUMSQ", "MEAN"):
    for axis in (0, 2):
        LAYERS[f"reduction_{operation}_{axis}"] = (
            f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: -0.5 }}',
            [(4, 2, 3)],
        )
LAYERS |= {
    settings: (settings, [(6, 4, 5)])
    for settings in (
        'type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }',
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
        'type: "ReLU6"',
        'type: "CReLU"',
        'type: "Normalize"',
        'type: "Normalize" norm_param { across_spatial: false channel_shared: false eps: 0.5 }',
        'type: "Interp" interp_param { shrink_factor: 2 zoom_factor: 3 }',
        'type: "Interp" interp_param { height: 7 width: 9 pad_beg: -1 pad_end: -1 }',
        'type: "Upsample" upsample_param { scale_h: 2 scale_w: 3 }',
        'type: "DepthwiseConvolution" convolution_param { num_output: 6 kernel_size: 3 group: 6 }',
        'type: "ConvolutionDepthwise" convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 }',
    )
}
LAYERS["axpy"] = ('type: "Axpy"', [(3,), (3, 4, 5), (3, 4, 5)])
LAYERS["prior_box"] = ('type: "PriorBox" prior_box_param { min_size: 2 aspect_ratio: 2 }', [(3, 2, 4), (3, 8, 16)])
LAYERS["batch_norm_affine"] = ('type: "BatchNorm" batch_norm_param { scale_bias: true }', [(3, 4, 5)])
LAYERS["batch_norm_affine_by_batch"] = (
    'type: "BatchNorm" batch_norm_param { use_global_stats: false scale_bias: true }',
    [(3, 4, 5)],
)
LAYERS["bn"] = ('type: "BN" bn_param { bn_mode: INFERENCE }', [(3, 4, 5)])
LAYERS["bn_by_batch"] = ('type: "BN" bn_param { bn_mode: LEARN }', [(3, 4, 5)])
LAYERS["bn_of_averages"] = ('type: "BN"', [(3, 4, 5)])
LAYERS["roi_pooling"] = ('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 }', [(3, 6, 7), (5,)])
PSROI = "psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 3 }"
LAYERS["psroi_pooling"] = (f'type: "PSROIPooling" {PSROI}', [(18, 6, 7), (5,)])
# Windows that end within, at and past the border and the padding, on sizes that leave different rests.
for pool in ("AVE", "MAX"):
    for kernel, stride, pad in ((2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 3, 2), (2, 3, 1), (5, 2, 4), (4, 3, 1)):
        for mode in ("CEIL", "FLOOR"):
            settings = f"pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad} round_mode: {mode}"
            LAYERS[f"pooling_{pool}_{mode}_{kernel}_{stride}_{pad}"] = (
                f'type: "Pooling" pooling_param {{ {settings} }}',
                [(2, 7, 10)],
            )
LAYERS["pooling_uneven"] = (
    'type: "Pooling" pooling_param { pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0 }',
    [(2, 8, 9)],
)


def one_layer(settings: str, shapes: list[tuple[int, ...]]) -> NetParameter:
    inputs = "".join(
        f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ dim: 2 {dims} }} }} }}'
        for i, dims in enumerate(" ".join(f"dim: {size}" for size in shape) for shape in shapes)
    )
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(shapes)))
    return parse_net(f'name: "one layer" {inputs} layer {{ name: "layer" {bottoms} top: "y" {settings} }}')


def with_random_blobs(net: Net) -> Net:
    """The net with blobs as training might leave them: any values, and positive variances and sums of weights."""
    generator = torch.Generator().manual_seed(1)
    for step in net.steps:
        for blob in step.layer.blobs:
            blob.data.normal_(0, 0.1, generator=generator)
            if step.layer.type in ("BatchNorm", "BN"):
                blob.data.abs_().add_(0.5)
    return net


def random_inputs(net: Net, batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    shapes = {name: net.shapes[net.newest[name]] for name in net.inputs}
    inputs = {name: torch.randn((batch, *shape[1:]), generator=generator) for name, shape in shapes.items()}
    for step in net.steps:
        for i in step.layer.index_bottoms:
            name = step.layer.param.bottom[i]
            inputs[name] = torch.randint(0, min(2, batch), inputs[name].shape, generator=generator)
    return inputs


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_gives_in_onnx_runtime_what_it_gives_here(case: str, tmp_path: Path) -> None:
    net = with_random_blobs(Net(one_layer(*LAYERS[case]), backward=False))
    for opset in (17, 21):
        export_onnx(net, None, tmp_path / "net.onnx", opset=opset)
        for batch in BATCHES:
            inputs = random_inputs(net, batch)
            largest = max([1.0, *net.forward(**inputs)["y"].abs().flatten().tolist()])
            assert compare_with_onnxruntime(tmp_path / "net.onnx", net, inputs) <= 1e-5 * largest


def test_every_layer_with_an_onnx_form_is_compared_above() -> None:
    exported = {kind for kind, cls in registry.items() if cls.to_onnx is not Layer.to_onnx}
    compared = {parse_net(f"layer {{ {settings} }}").layer[0].type for settings, _ in LAYERS.values()}
    # Silence is left out of what is exported; the others have tests of their own.
    apart = {"Silence", "Python", "LSTM", "RNN", "LSTMUnit", "DetectionOutput", "Proposal"}
    assert exported - apart == compared


@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_a_second_bottom_may_be_a_scalar(kind: str, tmp_path: Path) -> None:
    net = Net(parse_net(f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
        layer {{ name: "s" type: "Parameter" top: "s" parameter_param {{ shape {{ }} }} }}
        layer {{ name: "layer" type: "{kind}" bottom: "x" bottom: "s" top: "y" }}
    """), backward=False)  # fmt: skip
    export_onnx(with_random_blobs(net), None, tmp_path / "net.onnx")
    assert compare_with_onnxruntime(tmp_path / "net.onnx", net, torch.randn(5, 3)) <= 1e-6


def test_a_net_that_is_exported_with_other_weights_keeps_its_own(tmp_path: Path) -> None:
    layer = one_layer('type: "InnerProduct" inner_product_param { num_output: 3 }', [(4,)])
    net, other = (with_random_blobs(Net(layer)) for _ in range(2))
    other.params["layer"][0].data.mul_(2)
    before = net.params["layer"][0].data.clone()
    report = export_onnx(net, other.to_proto(), tmp_path / "net.onnx")
    assert torch.equal(net.params["layer"][0].data, before)
    assert torch.equal(report.net.params["layer"][0].data, 2 * before)


def test_stochastic_pooling_weights_the_values_of_a_window_by_themselves(tmp_path: Path) -> None:
    net = Net(one_layer('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }', [(2, 7, 8)]))
    export_onnx(net, None, tmp_path / "net.onnx")
    images = random_inputs(net, 3)["x0"].relu()
    images[0] = 0
    assert compare_with_onnxruntime(tmp_path / "net.onnx", net, images) <= 1e-5


@pytest.mark.parametrize("read", [True, False])
def test_the_second_top_of_a_pooling_says_where_the_maxima_are_if_somebody_reads_it(read: bool, tmp_path: Path) -> None:
    text = 'type: "Pooling" top: "z" pooling_param { kernel_size: 3 stride: 2 pad: 1 }'
    net = Net(one_layer(text, [(2, 7, 8)]), backward=False)
    report = export_onnx(net, None, tmp_path / "net.onnx", outputs=("y", "z")[: 1 + read])
    assert len(report.outputs) == 1 + read
    assert compare_with_onnxruntime(tmp_path / "net.onnx", net, random_inputs(net, 3)["x0"]) == 0


@pytest.fixture
def digits() -> Net:
    return with_random_blobs(Net(digits_net("imae", noise_rate=0.5), backward=False))


def test_an_ssd_learns_and_leaves_its_loss_outside(tmp_path: Path) -> None:
    def head(name: str, outputs: int) -> str:
        return f"""
    layer {{ name: "{name}" type: "Convolution" bottom: "map" top: "{name}"
      convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "{name}_perm" type: "Permute" bottom: "{name}" top: "{name}_perm"
      permute_param {{ order: [0, 2, 3, 1] }} }}
    layer {{ name: "{name}_flat" type: "Flatten" bottom: "{name}_perm" top: "{name}_flat" }}"""

    net = Net(
        parse_net(f"""
    layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: [2, 3, 16, 16] }} }} }}
    layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: [1, 1, 3, 8] }} }} }}
    layer {{ name: "map" type: "Convolution" bottom: "data" top: "map"
      convolution_param {{ num_output: 8 kernel_size: 4 stride: 4 weight_filler {{ type: "xavier" }} }} }}
    {head("loc", 4)} {head("conf", 3)}
    layer {{ name: "prior" type: "PriorBox" bottom: "map" bottom: "data" top: "prior"
      prior_box_param {{ min_size: 7 }} }}
    layer {{ name: "loss" type: "MultiBoxLoss" top: "loss"
      bottom: "loc_flat" bottom: "conf_flat" bottom: "prior" bottom: "label"
      multibox_loss_param {{ num_classes: 3 code_type: CENTER_SIZE overlap_threshold: 0.4 }} }}""")
    )
    boxes = [[0, 1, 0, 0.1, 0.1, 0.5, 0.5, 0], [0, 2, 0, 0.5, 0.4, 0.9, 0.9, 0], [1, 1, 0, 0.3, 0.3, 0.8, 0.7, 0]]
    fed = {"data": torch.rand(2, 3, 16, 16), "label": torch.tensor(boxes).view(1, 1, 3, 8)}
    losses = []
    for _ in range(30):
        losses.append(float(net.forward(**fed)["loss"]))
        net.backward()
        for blob in (blob for blobs in net.params.values() for blob in blobs):
            blob.data -= 0.02 * blob.diff
            blob.diff.zero_()
    assert losses[-1] < losses[0] / 2
    report = export_onnx(net, None, tmp_path / "net.onnx")
    assert list(report.inputs) == ["data"]
    assert set(report.outputs) == {"loc_flat", "conf_flat", "prior"}


def test_the_batch_size_stays_open_and_losses_labels_and_data_stay_outside(digits: Net, tmp_path: Path) -> None:
    report = export_onnx(digits, None, tmp_path / "net.onnx")
    assert report.inputs == {"data": ("N", 1, 8, 8)}
    assert report.outputs == {"prob": ("N", 10)}
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.producer_name, model.graph.name, model.opset_import[0].version) == ("imae", "digits", report.opset)
    assert report.opset == newest_opset()
    made = [name for node in model.graph.node for name in node.output] + [x.name for x in model.graph.initializer]
    assert len(made) == len(set(made)), "each value has one name"
    assert report.nodes == len(model.graph.node)


def test_any_blobs_can_be_the_outputs(digits: Net, tmp_path: Path) -> None:
    report = export_onnx(digits, None, tmp_path / "net.onnx", outputs=("pool", "score"))
    assert list(report.outputs) == ["pool", "score"]
    assert compare_with_onnxruntime(tmp_path / "net.onnx", digits, torch.randn(5, 1, 8, 8)) < 1e-3


def test_with_the_transform_the_model_takes_pixels(digits: Net, tmp_path: Path) -> None:
    export_onnx(digits, None, tmp_path / "plain.onnx")
    export_onnx(digits, None, tmp_path / "pixels.onnx", include_transform=True)
    data = digits.steps[0].layer
    given = digits.forward() and digits.blobs["data"].numpy()
    pixels = data.images[: len(given)].numpy().astype(np.float32)
    plain, raw = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("plain", "pixels"))
    (expected,), (actual,) = plain.run(None, {"data": given}), raw.run(None, {"data": pixels})
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("mean", ["mean_value: 100 mean_value: 110 mean_value: 120", 'mean_file: "mean.binaryproto"'])
def test_the_transform_of_the_prototxt_goes_into_the_model_without_the_data(mean: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 8, 8)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(array_to_blob(image).SerializeToString())
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "gone" batch_size: 4 }} '
        f"transform_param {{ {mean} scale: 0.5 crop_size: 4 mirror: true }} }}"
        'layer { name: "relu" type: "ReLU" bottom: "data" top: "y" relu_param { negative_slope: 1 } }'
    )
    export_onnx(tmp_path / "net.prototxt", None, tmp_path / "net.onnx", shape=(3, 4, 4), include_transform=True)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 3, 4, 4)).astype(np.float32)
    subtracted = image[:, :, 2:6, 2:6] if "file" in mean else np.float32([100, 110, 120])[:, None, None]
    np.testing.assert_allclose(session.run(None, {"data": pixels})[0], 0.5 * (pixels - subtracted), rtol=1e-5)


def test_blobs_that_are_called_like_constants_keep_their_names(tmp_path: Path) -> None:
    net = one_layer('type: "InnerProduct" inner_product_param { num_output: 3 }', [(4,)])
    net.layer[-1].name = net.layer[-1].top[0] = "ip"
    net.layer.add(name="ip_0", type="ReLU", bottom=["ip"], top=["ip_0"])
    net.layer.add(name="ip_1", type="ReLU", bottom=["ip_0"], top=["ip_1"])
    export_onnx(Net(net), None, tmp_path / "net.onnx")
    assert compare_with_onnxruntime(tmp_path / "net.onnx", Net(net), torch.randn(2, 4)) >= 0


IN_PLACE = """name: "in_place" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layer { name: "norm" type: "Scale" bottom: "data" top: "data" scale_param { bias_term: true } }
layer { name: "twice" type: "ReLU" bottom: "data" top: "data" relu_param { negative_slope: 0.5 } }"""
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }'


@pytest.mark.parametrize(("text", "output"), [(IN_PLACE + IP, "ip"), (IN_PLACE, "data/twice")])
def test_a_layer_may_work_in_place_on_the_input(text: str, output: str, tmp_path: Path) -> None:
    """The input keeps its blob's name, and so does every output that is not in its place."""
    net = with_random_blobs(Net(parse_net(text), backward=False))
    report = export_onnx(net, None, tmp_path / "net.onnx")
    assert (list(report.inputs), list(report.outputs)) == (["data"], [output])
    for batch in BATCHES:
        assert compare_with_onnxruntime(tmp_path / "net.onnx", net, torch.randn(batch, 3, 8, 8)) < 1e-5


PASSED_ON = [
    ("", ["data"]),
    ('layer { name: "l" type: "Dropout" bottom: "data" top: "y" }', ["y", "data"]),
    ('layer { name: "l" type: "Split" bottom: "data" top: "y" top: "z" }', ["data", "z", "y"]),
    ('layer { name: "l" type: "Flatten" bottom: "data" top: "y" flatten_param { axis: 3 } }', ["y"]),
    ('layer { name: "l" type: "ReLU" bottom: "data" top: "data" }', ["data"]),
    ('layer { name: "l" type: "Dropout" bottom: "data" top: "data" }', ["data"]),
]


@pytest.mark.parametrize("preprocess", [False, ImageOptions(), ImageOptions(channels="BGR", mean="1,2,3", scale=0.5)])
@pytest.mark.parametrize(("text", "outputs"), PASSED_ON)
def test_an_output_may_be_an_input_or_what_the_net_sees_of_it(
    text: str, outputs: list[str], preprocess: bool | ImageOptions, tmp_path: Path
) -> None:
    inputs = 'name: "n" input: "data" input_shape { dim: 1 dim: 3 dim: 4 dim: 5 } '
    net = Net(parse_net(inputs + text), backward=False)
    report = export_onnx(net, None, tmp_path / "net.onnx", outputs=outputs, preprocess=preprocess)
    own = "data/l" if net.newest["data"] != net.input_values["data"] else "data/seen" if preprocess else "data"
    assert list(report.outputs) == [own if name == "data" else name for name in outputs]
    assert verify(report, net).difference < 1e-6


def test_the_transform_goes_before_a_layer_in_place_of_the_images(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "gone" batch_size: 4 } '
        "transform_param { mean_value: 100 scale: 0.5 } }"
        'layer { name: "relu" type: "ReLU" bottom: "data" top: "data" } '
        'layer { name: "max" type: "Pooling" bottom: "data" top: "y" pooling_param { global_pooling: true } }'
    )
    export_onnx(tmp_path / "net.prototxt", None, tmp_path / "net.onnx", shape=(1, 2, 2), include_transform=True)
    pixels = np.float32([[[[0, 10], [102, 50]]], [[[0, 10], [20, 50]]]])
    (y,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"data": pixels})
    assert y.flatten().tolist() == [1, 0]


def outputs_of(text: str) -> list[str]:
    inputs = (
        'layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 4 } shape { dim: 2 } } }'
    )
    return Net(deploy(parse_net(inputs + text)), backward=False).outputs


CCE = 'layer {{ name: "{0}" type: "SoftmaxWithLoss" bottom: "{1}" bottom: "t" top: "{0}" }}'
RELU = 'layer {{ name: "{1}" type: "ReLU" bottom: "{0}" top: "{1}" }}'
SOFTMAX = 'layer {{ name: "{1}" type: "Softmax" bottom: "{0}" top: "{1}" }}'
ACCURACY = 'layer {{ name: "acc" type: "Accuracy" bottom: "{0}" bottom: "t" top: "acc" }}'
MAE = 'layer {{ name: "mae" type: "MAELoss" bottom: "{0}" bottom: "t" top: "mae" }}'


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        (RELU.format("x", "y"), ["y"]),
        (RELU.format("x", "y") + CCE.format("loss", "y"), ["prob"]),
        (RELU.format("x", "y") + ACCURACY.format("y"), ["y"]),
        (RELU.format("x", "y") + ACCURACY.format("y") + CCE.format("loss", "y"), ["prob"]),
        (RELU.format("x", "prob") + CCE.format("loss", "prob"), ["loss_prob"]),
        (
            RELU.format("x", "a") + CCE.format("l1", "a") + RELU.format("x", "b") + CCE.format("l2", "b"),
            ["l1_prob", "l2_prob"],
        ),
        (RELU.format("x", "y") + CCE.format("l1", "y") + CCE.format("l2", "y"), ["prob"]),
        (SOFTMAX.format("x", "p") + MAE.format("p"), ["p"]),
        (RELU.format("x", "y") + CCE.format("loss", "y").replace("SoftmaxWith", "SigmoidCrossEntropy"), ["prob"]),
        (RELU.format("x", "y") + CCE.format("loss", "y").replace("SoftmaxWith", "Infogain"), ["prob"]),
        (SOFTMAX.format("x", "p") + CCE.format("loss", "x") + ACCURACY.format("p"), ["p"]),
        (CCE.format("loss", "x").replace('top: "loss"', 'top: "loss" top: "p"') + ACCURACY.format("p"), ["p"]),
        (CCE.format("loss", "x") + RELU.format("loss", "worse"), ["prob"]),
        (CCE.format("loss", "x").replace('top: "loss"', "") + ACCURACY.format("x"), ["prob"]),
        (SOFTMAX.format("x", "p") + MAE.format("p").replace('top: "mae"', ""), ["p"]),
        (RELU.format("t", "labels") + CCE.format("loss", "x").replace('"t"', '"labels"'), ["prob"]),
    ],
)
def test_what_a_net_predicts_is_found(text: str, outputs: list[str]) -> None:
    assert outputs_of(text) == outputs


def test_only_inputs_that_the_outputs_need_are_left() -> None:
    net = deploy(digits_net("cce"))
    assert (net.layer[0].type, list(net.layer[0].top)) == ("Input", ["data"])
    assert [layer.type for layer in net.layer][-2:] == ["InnerProduct", "Softmax"]


def test_a_user_is_told_what_is_wrong(tmp_path: Path, digits: Net) -> None:
    def message(*arguments: object, **options: object) -> str:
        with pytest.raises(InputError) as error:
            export_onnx(*arguments, tmp_path / "net.onnx", **options)  # type: ignore[arg-type]
        assert not list(tmp_path.glob("net.onnx*"))
        return str(error.value)

    absent = resnet_cifar(20, "cce", source="absent")
    assert "CIFAR-10 not found" in (found := message(absent, None)) and "with the images' shape given" in found
    assert (
        message(absent, None, shape=(3, 32, 32)) == 'net "ResNet-20": has learnable layers, but no weights were given'
    )
    cut = tmp_path / "cut.caffemodel"
    digits.write_weights(cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    for options in ({}, {"shape": (3, 32, 32)}):
        assert message(absent, cut, **options).startswith(f"{cut}: expected a caffemodel, but it is cut short")
    other = NetParameter()
    assert "the weights lack the layers conv1, conv1_bn" in message(absent, other, shape=(3, 32, 32))
    assert 'has the top "scores"; did you mean "score"?' in message(digits, None, outputs=["scores"])
    assert "expected the TEST phase" in message(Net(digits_net("cce"), 0), None)
    assert message(digits, None, opset=11).startswith("opset must be 13 to ")
    dropping = one_layer('type: "Dropout" phase: TRAIN', [(4, 4)])
    assert 'layer "layer" (Dropout): has no ONNX form' in (found := message(Net(dropping), None))
    assert "phase: TRAIN" in found
    drawing = one_layer('type: "Pooling" phase: TRAIN pooling_param { pool: STOCHASTIC kernel_size: 2 }', [(1, 4, 4)])
    assert message(drawing, None).startswith('layer "layer" (Pooling): has no ONNX form in phase TRAIN')


@pytest.mark.skipif(not (SHARED / "resnet20").exists(), reason="the real net is not at ../shared/data/resnet20")
def test_the_real_resnet20_gives_the_same_in_onnx_runtime(tmp_path: Path) -> None:
    net, weights = (
        SHARED / "resnet20" / name
        for name in ("res20_cifar_train_test.prototxt", "cifar10_res20_iter_64000.caffemodel")
    )
    deployed = Net(deploy(net, shape=(3, 32, 32)), backward=False)
    deployed.copy_weights(weights)
    images = torch.from_numpy(np.load(GOLDEN)["test_data"])
    for outputs, tolerance in ((("prob",), 1e-5), (("InnerProduct1",), 1e-4)):
        export_onnx(net, weights, tmp_path / "net.onnx", shape=(3, 32, 32), outputs=outputs)
        source = (
            deployed if outputs == ("prob",) else Net(deploy(net, shape=(3, 32, 32), outputs=outputs), backward=False)
        )
        source.copy_weights(weights)
        for batch in BATCHES:
            assert (
                compare_with_onnxruntime(tmp_path / "net.onnx", source, images.repeat(8, 1, 1, 1)[:batch]) < tolerance
            )


def test_a_split_in_a_file_is_no_split_of_onnx(tmp_path: Path) -> None:
    net = Net(parse_net("""
        name: "split" input: "data" input_shape { dim: 1 dim: 2 dim: 3 dim: 3 }
        layer { name: "data_split" type: "Split" bottom: "data" top: "a" top: "b" }
        layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
    """))  # fmt: skip
    export_onnx(net, None, tmp_path / "net.onnx")
    assert "Split" not in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    data = np.random.default_rng(0).standard_normal((1, 2, 3, 3), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["sum"], {"data": data})[0], 2 * data)
