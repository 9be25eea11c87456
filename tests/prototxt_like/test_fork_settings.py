"""Dilation and rounding of forks in binary nets: read as Caffe 1.0's where no field of it can be meant, else told."""

import logging
from pathlib import Path

import pytest

from imae.prototxt_like.binary import open_caffemodel, read_caffemodel, write_caffemodel
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import PoolingParameter
from imae.prototxt_like.wire import header, tag, varint

OLD, NEW = 2, 100
PLACES = {OLD: {"name": 4, "convolution": 10, "pooling": 19}, NEW: {"name": 1, "convolution": 106, "pooling": 121}}


def a_net(settings: dict[int, int], which: str = "convolution", layers: int = NEW) -> bytes:
    """A net as a fork's Caffe writes it, of a layer with these numbers in its settings, and their values."""
    own = b"".join(tag(number, 0) + varint(value) for number, value in [(1, 2), *settings.items()])
    places = PLACES[layers]
    kind = {"convolution": b"Convolution", "pooling": b"Pooling"}[which]
    layer = header(places["name"], 1) + b"c"
    if layers == NEW:
        layer += header(2, len(kind)) + kind
    else:
        layer += tag(5, 0) + varint({"convolution": 4, "pooling": 17}[which])
    layer += header(places[which], len(own)) + own
    return header(1, 3) + b"net" + header(layers, len(layer)) + layer


@pytest.mark.parametrize("layers", [OLD, NEW])
@pytest.mark.parametrize(
    ("given", "dilation", "said"),
    [
        ({17: 4}, [4], "hole: 4 is read as dilation: 4, as in forks of Caffe"),
        ({18: 2, 19: 3}, [2, 3], "hole_h: 2, hole_w: 3 is read as dilation: 2, dilation: 3, as in forks of Caffe"),
        ({17: 2, 18: 3}, [2, 3], "dilation_h: 2, dilation_w: 3 is read as dilation: 2, dilation: 3, as in forks"),
        ({17: 2, 19: 1}, [2], "hole: 2 is read as dilation: 2"),
        ({18: 2}, [2], ""),
        ({17: 1, 18: 2}, [2], ""),
        ({16: 1, 17: 0}, [], ""),
        ({16: 2}, [], "axis: 2 of a convolution is read as Caffe 1.0's, not as a fork's dilation"),
    ],
)
def test_dilation(
    layers: int, given: dict[int, int], dilation: list[int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(a_net(given, layers=layers))
    for read in (read_caffemodel, lambda path: open_caffemodel(path).message):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            own = read(path).layer[0].convolution_param
        assert (own.num_output, list(own.dilation)) == (2, dilation)
        lines = [record.getMessage() for record in caplog.records if "not understood" not in record.getMessage()]
        assert len(lines) == bool(said)
        assert not said or (lines[0].startswith(f"{path}: {said}") and lines[0].endswith('(layer "c")'))


@pytest.mark.parametrize(("value", "mode", "fork"), [(0, "CEIL", "ceil_mode: false"), (1, "FLOOR", "ceil_mode: true")])
def test_rounding_that_forks_say_otherwise_is_told(
    value: int, mode: str, fork: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(a_net({13: value}, "pooling"))
    net = read_caffemodel(path)
    assert PoolingParameter.RoundMode.Name(net.layer[0].pooling_param.round_mode) == mode
    (record,) = caplog.records
    assert f"{value} in field 13, which is read as Caffe 1.0's round_mode: {mode}" in record.getMessage()
    assert fork in record.getMessage()
    caplog.clear()
    write_caffemodel(net, path)  # ours, with Caffe 1.0's fields
    assert read_caffemodel(path) == net and not caplog.records


def test_one_line_for_each_way_and_the_rest_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(a_net({17: 4, 20: 1}) + a_net({17: 4})[5:] + a_net({18: 3})[5:])
    net = read_caffemodel(path)
    assert [list(layer.convolution_param.dilation) for layer in net.layer] == [[4], [4], [3]]
    lines = [record.getMessage() for record in caplog.records]
    assert f'{path}: hole: 4 is read as dilation: 4, as in forks of Caffe (layer "c" and 1 more)' in lines
    assert any("convolution_param: field 20" in line for line in lines)
    write_caffemodel(net, path)
    assert read_caffemodel(path).layer == net.layer


def test_what_is_cut_within_the_settings_is_no_net(tmp_path: Path) -> None:
    own = tag(17, 0) + varint(4) + tag(18, 0)  # and no value
    cut = header(1, 1) + b"c" + header(2, 11) + b"Convolution" + header(106, len(own)) + own
    (tmp_path / "net.caffemodel").write_bytes(header(NEW, len(cut)) + cut)
    with pytest.raises(InputError, match="expected a caffemodel"):
        read_caffemodel(tmp_path / "net.caffemodel")
