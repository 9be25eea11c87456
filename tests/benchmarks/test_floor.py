"""Operations and bytes of a pass, against counts by hand, and the rates that they are set against."""

import pytest
import torch

from benchmarks import floor, imae_resnet
from benchmarks.floor import KERNELS, Rates
from benchmarks.measuring import Side, Turns, take_turns
from imae.nets.net import Net
from imae.prototxt_like.schema import TEST, TRAIN
from imae.prototxt_like.text import parse_net

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 5 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 6 kernel_size: 1 bias_term: false } }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip" inner_product_param { num_output: 7 } loss_weight: 1 }
"""
DATA, CONV1, CONV2, IP = 2 * 3 * 16, 2 * 5 * 16, 2 * 6 * 16, 2 * 7
WEIGHTS1, WEIGHTS2, WEIGHTS3 = 5 * 3 * 9, 6 * 5, 7 * 6 * 16
ONE = Rates(flops=1.0, bytes=1.0)


def test_forward_counts_products_and_what_is_read_and_written() -> None:
    work = floor.count(Net(parse_net(NET), TRAIN), ONE, backward=False)
    assert set(work) == {"Convolution", "BatchNorm", "InnerProduct"}  # the ReLU in place costs nothing
    assert work["Convolution"].flops == 2 * CONV1 * 3 * 9 + 2 * CONV2 * 5
    assert work["Convolution"].bytes == 4 * (DATA + WEIGHTS1 + CONV1 + CONV1 + WEIGHTS2 + CONV2)
    assert work["BatchNorm"].bytes == 4 * 3 * CONV1
    assert work["InnerProduct"].flops == 2 * IP * 6 * 16


def test_backward_counts_a_gradient_of_each_weight_and_of_each_bottom_that_needs_one() -> None:
    """The first convolution's bottom is data, and gets none."""
    work = floor.count(Net(parse_net(NET), TRAIN), ONE, backward=True)
    assert work["Convolution"].flops == 2 * (2 * CONV1 * 3 * 9) + 3 * (2 * CONV2 * 5)
    assert work["BatchNorm"].bytes == 4 * (3 + 5) * CONV1
    assert work["InnerProduct"].flops == 3 * (2 * IP * 6 * 16)


def test_a_batch_norm_of_the_test_phase_is_part_of_its_convolution() -> None:
    assert set(floor.count(Net(parse_net(NET), TEST), ONE, backward=False)) == {"Convolution", "InnerProduct"}


def test_a_pass_takes_the_longer_of_its_operations_and_its_bytes() -> None:
    net = Net(parse_net(NET), TRAIN)
    slow_memory = floor.count(net, Rates(flops=1e30, bytes=2.0), backward=False)["InnerProduct"]
    assert slow_memory.seconds == 4 * (CONV2 + WEIGHTS3 + IP) / 2
    slow_products = floor.count(net, Rates(flops=2.0, bytes=1e30), backward=False)["InnerProduct"]
    assert slow_products.seconds == IP * 6 * 16


def test_resnet_20_forward_is_41_million_products_an_image() -> None:
    """He et al. 2016: 40.8 million multiplications, of which the convolutions have all but 640."""
    work = floor.count(imae_resnet.solver(20, 1).net, ONE, backward=False)
    assert work["Convolution"].flops == pytest.approx(2 * 40.55e6, rel=0.001)
    assert work["InnerProduct"].flops == 2 * 640


def test_rates_are_the_best_of_the_run() -> None:
    turns = take_turns({"a": Side(lambda: lambda: None), **floor.yardsticks(4096)}, 2, label="", warm_up=0)
    rates = floor.rates(turns, 4096)
    product, convolution = turns["matrix product in float32"].seconds, turns["convolution in float32"].seconds
    assert rates.flops == max(2 * 1536**3 / min(product), 2 * 32 * 16 * 16 * 128 * 128 * 3 * 3 / min(convolution))
    assert rates.bytes == 2 * 4096 * floor.COPIES / min(turns["copy"].seconds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fastest", KERNELS)
def test_the_peak_is_of_the_fastest_kernel_in_the_precision_of_the_net_and_says_which(
    fastest: str, dtype: torch.dtype
) -> None:
    """A machine's matrix product ran at 182 GFLOP/s where its convolutions ran at 358."""
    sides = floor.yardsticks(4096, torch.float32) | floor.yardsticks(4096, torch.bfloat16)
    turns = {name: Turns([1.0]) for name in sides}
    kernel = f"{fastest} in {str(dtype).removeprefix('torch.')}"
    turns[kernel] = Turns([0.02, 0.01])
    rates = floor.rates(turns, 4096, dtype)
    assert rates.flops == KERNELS[fastest][1] / 0.01
    assert f" GFLOP/s ({kernel}), " in floor.describe_rates(rates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_kernels_compute_in_their_precision_and_do_the_operations_counted(dtype: torch.dtype) -> None:
    product, convolution = (KERNELS[name][0](dtype)() for name in ("matrix product", "convolution"))
    assert isinstance(product, torch.Tensor) and isinstance(convolution, torch.Tensor)
    assert product.dtype == convolution.dtype == dtype
    assert KERNELS["matrix product"][1] == 2 * product.numel() * 1536
    assert KERNELS["convolution"][1] == 2 * convolution.numel() * 128 * 3 * 3
    assert convolution.is_contiguous(memory_format=torch.channels_last)


def test_below_float32_values_are_smaller_and_weights_are_not() -> None:
    net = Net(parse_net(NET), TRAIN, dtype=torch.bfloat16)
    work = floor.count(net, ONE, backward=False)
    assert work["Convolution"].bytes == 2 * (DATA + CONV1 + CONV1 + CONV2) + 4 * (WEIGHTS1 + WEIGHTS2)
