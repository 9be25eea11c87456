"""HDF5Data: rows of HDF5 files, as Caffe's HDF5DataLayer gives them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imae.layers.data import hdf5_file
from imae.layers.data.label_noise import corrupt
from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

Make = Callable[..., Any]
COUNTS = (5, 3, 4)
DATA = np.random.default_rng(0).normal(size=(12, 2, 3)).astype(np.float32)
LABEL = np.arange(12) % 4


def layer_text(own: str = "batch_size: 4", tops: str = 'top: "data" top: "label"') -> str:
    return f'type: "HDF5Data" {tops} hdf5_data_param {{ source: "list.txt" {own} }}'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Three files with rows 0 to 4, 5 to 7 and 8 to 11: float32 data, int64 labels, and the row's number as float64."""
    starts = np.cumsum(COUNTS) - COUNTS
    for number, (start, count) in enumerate(zip(starts, COUNTS, strict=True)):
        with h5py.File(tmp_path / f"file {number}.h5", "w") as file:
            rows = slice(start, start + count)
            file["data"], file["label"] = DATA[rows], LABEL[rows]
            file["row"] = np.arange(12, dtype=np.float64)[rows, None]
    (tmp_path / "list.txt").write_text("".join(f"file {i}.h5\n" for i in range(3)))
    return tmp_path


def write(path: Path, **datasets: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


def rows(layer: Any, batches: int, top: int = 0) -> list[int]:
    return [int(row) for number in range(batches) for row in layer.batch(number)[top].flatten()]


def test_batches_follow_the_rows_of_all_files_over_and_over(make: Make, files: Path) -> None:
    """The file's integers and doubles become floats, and a batch runs on from file to file."""
    layer, shapes = make(layer_text("batch_size: 7", 'top: "data" top: "label" top: "row"'))
    assert shapes == [(7, 2, 3), (7,), (7, 1)] and layer.num_images == 12
    for number in (0, 1, 2, 5, 1):
        expected = np.arange(7 * number, 7 * number + 7) % 12
        data, label, row = layer.batch(number)
        assert data.dtype == label.dtype == row.dtype == torch.float32
        assert torch.equal(data, torch.from_numpy(DATA[expected]))
        assert label.tolist() == LABEL[expected].tolist() and row[:, 0].tolist() == expected.tolist()


def test_a_batch_may_hold_several_epochs(make: Make, files: Path) -> None:
    assert rows(make(layer_text("batch_size: 30", 'top: "row"'))[0], 2) == [*range(12)] * 5


@pytest.mark.parametrize("whole", [2**28, 0])
def test_shuffling_gives_each_row_once_an_epoch_file_by_file(
    make: Make, files: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr(hdf5_file, "WHOLE", whole)
    text = layer_text("batch_size: 5 shuffle: true", 'top: "row"')
    drawn = rows(make(text, seed=3)[0], 12)
    epochs = [drawn[i : i + 12] for i in range(0, 60, 12)]
    assert all(sorted(epoch) == [*range(12)] for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) == 5
    file_of = np.repeat(np.arange(3), COUNTS)
    orders = {tuple(dict.fromkeys(file_of[epoch].tolist())) for epoch in epochs}
    assert all(np.count_nonzero(np.diff(file_of[epoch])) == 2 for epoch in epochs) and len(orders) > 1
    again, _ = make(text, TEST, seed=3)
    assert again.batch(7)[0].flatten().tolist() == drawn[35:40]
    assert rows(make(text, seed=4)[0], 12) != drawn


@pytest.mark.parametrize("own", ["batch_size: 5", "batch_size: 5 shuffle: true"])
def test_a_file_larger_than_memory_is_read_in_pieces(
    make: Make, files: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    text = layer_text(own, 'top: "data" top: "label"')
    expected = [make(text)[0].batch(number) for number in range(4)]
    monkeypatch.setattr(hdf5_file, "WHOLE", 0)
    read: list[int] = []
    get = h5py.Dataset.__getitem__

    def counted(self: Any, key: Any) -> Any:
        values = get(self, key)
        read.append(np.size(values))
        return values

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    layer, _ = make(text)
    for number, batch in enumerate(expected):
        assert all(torch.equal(a, b) for a, b in zip(layer.batch(number), batch, strict=True))
    assert sum(read) == 4 * 5 * 7, "no row is read that is in no batch"


def test_a_net_trains_on_rows(files: Path) -> None:
    text = f'layer {{ name: "d" {layer_text("batch_size: 4")} }}'
    text += ' layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }'
    text += ' layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    net = Net(parse_net(text, "net"), TRAIN, folder=files)
    assert all(torch.isfinite(net.forward()["loss"]) for _ in range(4))
    net.backward()


@pytest.mark.parametrize("tops", ['top: "data" top: "label"', 'top: "label" top: "data"', 'top: "data" top: "other"'])
def test_label_noise_is_the_other_data_layers(make: Make, tmp_path: Path, tops: str) -> None:
    """Of the top called label, else of the second; a label may be a row of one number."""
    write(tmp_path / "a.h5", data=DATA[:7], label=LABEL[:7, None], other=LABEL[:7])
    write(tmp_path / "b.h5", data=DATA[7:], label=LABEL[7:, None], other=LABEL[7:])
    (tmp_path / "list.txt").write_text("a.h5\n\nb.h5")
    layer, _ = make(layer_text("batch_size: 12 noise_rate: 0.7 noise_seed: 2", tops))
    expected = corrupt(LABEL, 4, "SYMMETRIC", 0.7, 2)
    batch = layer.batch(0)
    noisy, data = (batch[0], batch[1]) if tops.startswith('top: "label"') else (batch[1], batch[0])
    assert noisy.flatten().tolist() == expected.tolist() and torch.equal(data, torch.from_numpy(DATA))
    assert layer.label_noise.startswith(f"symmetric noise at rate 0.7, {np.count_nonzero(expected != LABEL)} of 12")


def linked(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("/etc/other.h5", "/data")


def linked_by_a_link(path: Path) -> None:
    write(path.with_name("other.h5"), data=VALUES)
    with h5py.File(path, "w") as file:
        file["there"] = h5py.ExternalLink("other.h5", "/data")
        file["data"] = h5py.SoftLink("/there")


def outside(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (4,), np.uint8, external=[("/etc/passwd", 0, 4)])


def damaged(path: Path) -> None:
    write(path, data=np.zeros((4, 2)))
    path.write_bytes(path.read_bytes()[:-200])


VALUES: NDArray[np.float32] = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize(
    ("make_file", "said"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"text"), "is no HDF5 file that can be read"),
        (damaged, "is no HDF5 file that can be read"),
        (lambda path: write(path), 'data set "data" is missing; the file is empty'),
        (lambda path: write(path, Data=VALUES), 'data set "data" is missing; did you mean "Data"'),
        (lambda path: write(path, x=VALUES), 'data set "data" is missing; there are x'),
        (lambda path: write(path, data=3.0), 'data set "data" has no axis, expected rows'),
        (lambda path: write(path, data=[b"a", b"b"]), 'data set "data" holds values of type'),
        (lambda path: write(path, **{"data/x": VALUES}), 'data set "data" is no data set'),
        (lambda path: write(path, data=VALUES, label=np.zeros(3)), 'data set "label" has 3 rows, "data" has 4'),
        (lambda path: write(path, data=np.zeros((0, 2)), label=np.zeros(0)), "its files have no rows"),
        (linked, 'data set "data" is kept in another file, /etc/other.h5'),
        (linked_by_a_link, 'data set "data" is kept in other files'),
        (outside, 'data set "data" is kept in other files'),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    make: Make, tmp_path: Path, make_file: Callable[[Path], Any], said: str
) -> None:
    make_file(tmp_path / "a.h5")
    (tmp_path / "list.txt").write_text("\na.h5\n")
    with pytest.raises(InputError) as error:
        make(layer_text())
    assert str(error.value).startswith(f'layer "data" (HDF5Data): {tmp_path / "list.txt"}: ')
    assert said in str(error.value) and "\n" not in str(error.value)
    assert ("line 2: " in str(error.value)) == ("no rows" not in said)


def test_files_of_other_rows_are_named(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "a.h5", data=np.zeros((4, 2)), label=np.zeros(4))
    write(tmp_path / "b.h5", data=np.zeros((4, 3)), label=np.zeros(4))
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    with pytest.raises(InputError, match=r'line 2: .*b.h5: a row of "data" is 3, in .*a.h5 2'):
        make(layer_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (layer_text("batch_size: 0"), "batch_size of at least 1"),
        (layer_text() + " transform_param { scale: 2 }", "does not transform data"),
        ('type: "HDF5Data" top: "data" hdf5_data_param { batch_size: 1 }', "needs source"),
        (layer_text("batch_size: 1 noise_rate: 0.5", 'top: "data"'), "needs a second top"),
        (layer_text("batch_size: 1 noise_rate: 0.5", 'top: "data" top: "row"').replace('"row"', '"data2"'), "missing"),
        (layer_text("batch_size: 1 noise_rate: 0.5", 'top: "label" top: "data"').replace("label", "row"), "an integer"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(make: Make, files: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        make(text)
    assert 'layer "data" (HDF5Data)' in str(error.value) and "\n" not in str(error.value)


def test_a_list_of_nothing_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n \n")
    with pytest.raises(InputError, match="names no HDF5 file"):
        make(layer_text())
