"""HDF5Output: Caffe's HDF5OutputLayer, which writes one pass; here each pass adds its rows."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from imae.layers.layer import TEST
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net


def net_of(file: str, shapes: str = "shape { dim: 3 dim: 2 } shape { dim: 3 }", **options: torch.dtype) -> Net:
    text = f'layer {{ name: "in" type: "Input" top: "x" top: "y" input_param {{ {shapes} }} }}'
    own = f'hdf5_output_param {{ file_name: "{file}" }}' if file else ""
    text += f' layer {{ name: "out" type: "HDF5Output" bottom: "x" bottom: "y" {own} }}'
    return Net(parse_net(text, "net"), TEST, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_pass_adds_its_rows_with_four_axes(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "out.h5"
    path.write_text("is written over")
    net = net_of(str(path), dtype=dtype)
    assert path.read_text() == "is written over", "building a net writes nothing"
    x, y = torch.randn(7, 2, dtype=dtype), torch.arange(7)
    for rows in (slice(0, 3), slice(3, 7)):
        net.forward(x=x[rows], y=y[rows])
    with h5py.File(path) as file:
        assert sorted(file) == ["data", "label"]
        assert file["data"].shape == (7, 2, 1, 1) and file["label"].shape == (7, 1, 1, 1)
        assert file["data"].dtype == (np.float64 if dtype == torch.float64 else np.float32)
        np.testing.assert_array_equal(file["data"][()].reshape(7, 2), x.numpy())
        np.testing.assert_array_equal(file["label"][()].ravel(), np.arange(7))


def test_hdf5_data_reads_what_was_written(tmp_path: Path) -> None:
    net, x = net_of(str(tmp_path / "out.h5")), torch.randn(3, 2)
    net.forward(x=x, y=torch.arange(3))
    (tmp_path / "list.txt").write_text("out.h5\n")
    own = 'hdf5_data_param { source: "list.txt" batch_size: 3 }'
    text = f'layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" {own} }}'
    outputs = Net(parse_net(text, "net"), TEST, folder=tmp_path).forward()
    assert torch.equal(outputs["data"].flatten(1), x) and outputs["label"].flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("file", "shapes", "said"),
    [
        ("", "shape { dim: 3 }", "needs file_name"),
        ("o.h5", "shape { dim: 3 } shape { dim: 4 }", "have 3 and 4 rows"),
        ("o.h5", "shape { dim: 1 dim: 1 dim: 1 dim: 1 dim: 2 }", "up to 4 axes, not 1x1x1x1x2"),
        ("no/such/folder/o.h5", "shape { dim: 3 }", "no/such/folder/o.h5: cannot be written: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, shapes: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as error:
        net_of(file, shapes).forward(x=torch.zeros(3), y=torch.zeros(3))
    assert 'layer "out" (HDF5Output)' in str(error.value) and "\n" not in str(error.value)


def test_rows_of_another_shape_cannot_be_added(tmp_path: Path) -> None:
    net = net_of(str(tmp_path / "out.h5"))
    net.forward(x=torch.zeros(3, 2), y=torch.zeros(3))
    with pytest.raises(InputError, match='a row of "data" is 4x1x1, those before were 2x1x1'):
        net.forward(x=torch.zeros(3, 4), y=torch.zeros(3))
