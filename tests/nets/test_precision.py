"""TF32 on a GPU is a choice, and convolutions of plain fp32 do without it."""

from collections.abc import Iterator

import pytest
import torch

from imae.nets.precision import set_gpu_arithmetic


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:]


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_in_products_and_convolutions(tf32: bool) -> None:
    set_gpu_arithmetic(tf32=not tf32)
    set_gpu_arithmetic(tf32=tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32
    assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32


def test_a_run_on_a_gpu_can_be_repeated() -> None:
    set_gpu_arithmetic(tf32=False)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
