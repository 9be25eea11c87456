"""Witnesses, where there is a GPU: a layer computes what it computes on the CPU, and each time the same bits."""

import pytest
import torch
from layer_cases import Case, every_case, ours, run
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Layer
from imae.nets.precision import set_gpu_arithmetic
from imae.solvers.capture import CudaGraphs

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_in_a_net() -> None:
    set_gpu_arithmetic(tf32=False)


@every_case()
def test_a_gpu_gives_what_the_cpu_gives(case: Case) -> None:
    """In float64: masks and other random numbers are the same, what is summed in another order nearly so."""
    here, there = case.build(), case.build(device="cuda")
    for passes in (0, 1):
        given = case.draw(again=passes)
        expected = run(here, given)
        actual = run(there, [x.to(GPU) for x in given])
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b)
        assert_close(values(there), values(here))
        for layer in (here, there):
            layer.context.passes.advance()


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # of a layer that does nothing, such as Silence
@every_case(lambda case: ours()[case.type].capturable, "a net that has it is not captured")
def test_a_replayed_graph_gives_what_the_pass_gives(case: Case) -> None:
    """For other bottoms and another number of the pass than those it was recorded with, bit for bit."""
    eager, captured = case.build(device="cuda"), case.build(device="cuda")
    number = torch.zeros((), dtype=torch.int64, device=GPU)
    for layer in (eager, captured):
        layer.context.passes.on_device = number
    bottoms, made = [x.to(GPU) for x in case.draw()], []
    before = [x.clone() for x in values(captured)]

    def once() -> None:
        made[:] = run(captured, bottoms)

    once()  # in which libraries load their kernels
    torch.cuda.synchronize()
    replay = CudaGraphs(GPU).record(once)
    for passes in (1, 5):
        for layer in (eager, captured):
            for a, b in zip(values(layer), before, strict=True):
                a.copy_(b)
        number.fill_(passes)
        for x, value in zip(bottoms, case.draw(again=passes), strict=True):
            x.copy_(value)
        replay()
        for actual, expected in zip(made, run(eager, bottoms), strict=True):
            for a, b in zip(actual, expected, strict=True):
                assert (a is None and b is None) or torch.equal(a, b)
        for a, b in zip(values(captured), values(eager), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "text",
    [
        'type: "Convolution" convolution_param { num_output: 48 kernel_size: 3 pad: 1 }',
        'type: "Convolution" convolution_param { num_output: 64 kernel_size: 3 pad: 1 group: 32 }',
        'type: "Convolution" convolution_param { num_output: 48 kernel_size: 3 dilation: 2 }',
        'type: "Deconvolution" convolution_param { num_output: 16 kernel_size: 4 stride: 2 pad: 1 }',
        'type: "DepthwiseConvolution" convolution_param { num_output: 32 kernel_size: 3 pad: 1 }',
        'type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 }',
        'type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }',
        'type: "Pooling" pooling_param { pool: MAX kernel_size: 5 stride: 1 pad: 4 }',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 2 }',
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }',
        'type: "SPP" spp_param { pyramid_height: 3 }',
        'type: "LRN"',
        'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL }',
        'type: "MVN"',
        'type: "Normalize"',
        'type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }',
        'type: "Scale" scale_param { bias_term: true }',
        'type: "PReLU"',
        'type: "Interp" interp_param { zoom_factor: 3 }',
        'type: "Upsample" upsample_param { scale: 2 }',
        'type: "InnerProduct" inner_product_param { num_output: 100 }',
        'type: "Im2col" convolution_param { kernel_size: 3 pad: 1 }',
    ],
)
def test_a_large_pass_has_the_same_bits_each_time(text: str) -> None:
    """On images whose channels come last, as in nets; and the values of the CPU, where rounding cannot turn a draw."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(16, 32, 31, 33, generator=generator)
    layer, here = (build_layer(text, [image.shape], dtype=torch.float32, device=device) for device in ("cuda", "cpu"))
    for blob, other in zip(layer.blobs, here.blobs, strict=True):
        other.data.copy_(blob.data)
    before = [x.clone() for x in values(layer)]
    tops = here.forward([image], {})
    given = [torch.randn(y.shape, generator=generator) for y in tops]  # what changes slowly MVN's gradient hardly has
    for a, b in zip(values(here), before, strict=True):
        a.copy_(b)
    runs = []
    for _ in range(5):
        for a, b in zip(values(layer), before, strict=True):
            a.copy_(b)
        tops, diffs = run(layer, [image.to(GPU, memory_format=torch.channels_last)], [dy.to(GPU) for dy in given])
        runs.append([*tops, *diffs, *(x.clone() for x in values(layer))])
    for again in runs[1:]:
        for a, b in zip(runs[0], again, strict=True):
            assert torch.equal(a, b)
    if "STOCHASTIC" in text:
        return
    tops, diffs = run(here, [image.contiguous(memory_format=torch.channels_last)], given)
    for a, b in zip(runs[0], [*tops, *diffs, *values(here)], strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def values(layer: Layer) -> list[Tensor]:
    """All that a pass may change in a layer."""
    return [x for blob in layer.blobs for x in (blob.data, blob.diff)] + list(layer.state)


def assert_close(actual: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for a, b in zip(actual, expected, strict=True):
        if b is not None:
            assert a is not None and a.device.type == "cuda"
            torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9, equal_nan=True)
        else:
            assert a is None
