"""MemoryData: Caffe's MemoryDataLayer, fed by arrays."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

SIZES = "batch_size: 2 channels: 3 height: 4 width: 5"
DATA = np.random.default_rng(0).normal(size=(6, 3, 4, 5)).astype(np.float32)
LABELS = np.arange(6)


def net_of(sizes: str = SIZES, name: str = "data") -> Net:
    text = f'layer {{ name: "{name}" type: "MemoryData" top: "data" top: "label" memory_data_param {{ {sizes} }} }}'
    return Net(parse_net(text, "net"), TEST)


def test_rows_follow_each_other_over_and_over_from_where_arrays_are_set() -> None:
    net = net_of()
    assert (net.shape("data"), net.shape("label")) == ((2, 3, 4, 5), (2,))
    net.set_input_arrays(DATA, LABELS)
    for number in (0, 1, 2, 0, 1):
        outputs = net.forward()
        assert torch.equal(outputs["data"], torch.from_numpy(DATA[2 * number : 2 * number + 2]))
        assert outputs["label"].tolist() == [2 * number, 2 * number + 1]
    net.set_input_arrays(DATA[4:].astype(np.float64), LABELS[4:].reshape(2, 1, 1, 1), "data")
    for _ in range(2):
        assert net.forward()["label"].tolist() == [4, 5]


def test_a_pass_without_arrays_is_refused() -> None:
    with pytest.raises(InputError, match=r'layer "data" .MemoryData.: has no data yet: give it by set_input_arrays'):
        net_of().forward()


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        (DATA[:3], LABELS[:3], "takes a multiple of its batch_size 2 of rows, not 3"),
        (DATA[:0], LABELS[:0], "takes a multiple of its batch_size 2 of rows, not 0"),
        (DATA[:, :2], LABELS, "takes data of Nx3x4x5, not 6x2x4x5"),
        (DATA[0], LABELS, "takes data of Nx3x4x5, not 3x4x5"),
        (DATA, LABELS[:4], "takes a label for each of 6 rows, not labels of 4"),
        (DATA, np.arange(12).reshape(6, 2), "takes a label for each of 6 rows, not labels of 6x2"),
        (np.array(["a"]), LABELS, "data holds values of type"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(data: NDArray[Any], labels: NDArray[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        net_of().set_input_arrays(data, labels)


def test_a_net_without_such_a_layer_says_so() -> None:
    with pytest.raises(InputError, match='has no MemoryData layer "x"'):
        net_of().set_input_arrays(DATA, LABELS, "x")


@pytest.mark.parametrize("size", ["batch_size", "channels", "height", "width"])
def test_all_sizes_must_be_given(size: str) -> None:
    with pytest.raises(InputError, match="batch_size, channels, height and width of at least 1"):
        net_of(SIZES.split(size)[0])
