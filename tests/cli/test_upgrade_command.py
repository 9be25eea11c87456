"""`imae upgrade`: old nets and solvers as text and as caffemodels, and what Caffe's own tools do with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imae.prototxt_like.binary import array_to_blob, blob_to_array, read_caffemodel
from imae.prototxt_like.schema import NetParameter, V1LayerParameter
from imae.prototxt_like.text import looks_like_prototxt, read_net, read_solver

Imae = Callable[..., Any]
V1 = """
# caf\xe9
input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "ip" type: INNER_PRODUCT bottom: "x" top: "ip" blobs_lr: 2 inner_product_param { num_output: 2 } }
"""
UPGRADED = "upgraded V1 layers, input fields"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_net_as_text(imae: Imae) -> None:
    Path("old.prototxt").write_text(V1, encoding="latin-1")
    outcome = imae("upgrade", "net", "old.prototxt", "new.prototxt")
    assert (outcome.status, outcome.out) == (0, f"Wrote new.prototxt: {UPGRADED}\n")
    assert "layers" not in Path("new.prototxt").read_text()
    net = read_net("new.prototxt")
    assert net == read_net("old.prototxt")
    assert [layer.type for layer in net.layer] == ["Input", "InnerProduct"]
    again = imae("upgrade", "net", "new.prototxt", "again.prototxt")
    assert (again.status, again.out) == (0, "Wrote again.prototxt: it was in the present form already\n")
    assert Path("again.prototxt").read_text() == Path("new.prototxt").read_text()


def test_a_caffemodel_keeps_its_weights(imae: Imae) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    old = NetParameter(name="old", input=["x"])
    old.layers.add(name="ip", type=V1LayerParameter.INNER_PRODUCT, bottom=["x"], blobs=[array_to_blob(weights)])
    Path("old.caffemodel").write_bytes(old.SerializeToString())
    outcome = imae("upgrade", "net", "old.caffemodel", "new.caffemodel")
    assert (outcome.status, outcome.out) == (0, f"Wrote new.caffemodel: {UPGRADED}\n")
    new = read_caffemodel("new.caffemodel")
    assert not new.layers and not new.input
    np.testing.assert_array_equal(blob_to_array(new.layer[0].blobs[0]), weights)


def test_a_solver(imae: Imae) -> None:
    Path("old.prototxt").write_text('net: "n" solver_type: NESTEROV')
    assert imae("upgrade", "solver", "old.prototxt", "new.prototxt").out == "Wrote new.prototxt: upgraded solver_type\n"
    assert Path("new.prototxt").read_text() == 'net: "n"\ntype: "Nesterov"\n'
    assert read_solver("new.prototxt").type == "Nesterov"
    Path("old.prototxt").write_text('net_param { layers { name: "r" type: RELU } }')
    outcome = imae("upgrade", "solver", "old.prototxt", "new.prototxt")
    assert outcome.out == "Wrote new.prototxt: upgraded V1 layers of net_param\n"


def test_what_is_dropped_is_named_and_the_status_is_1_as_of_caffes_tool(imae: Imae) -> None:
    Path("old.prototxt").write_text('layers { layer { name: "r" type: "relu" pad: 1 stride: 2 } }')
    outcome = imae("upgrade", "net", "old.prototxt", "new.prototxt")
    assert outcome.status == 1
    where = 'old.prototxt: layers[0] "r": a layer of type "relu" has no'
    assert outcome.err.splitlines() == [
        f'imae: warning: {where} "pad"; dropped',
        f'imae: warning: {where} "stride"; dropped',
        "imae: error: old.prototxt: 2 fields could not be carried over, see the warnings",
    ]
    assert read_net("new.prototxt").layer[0].type == "ReLU"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("net", "layers { name: 'a' } layer { name: 'b' }", 'the net has both "layer" and the older "layers"'),
        ("solver", "type: 'SGD' solver_type: SGD", 'the solver has both "type" and the older "solver_type"'),
        ("solver", "solver_type: 7", '"7" is none of its values'),
        ("net", "", "expected a caffemodel, but it is empty"),
    ],
)
def test_contradictions_write_nothing(imae: Imae, kind: str, text: str, message: str) -> None:
    Path("old").write_text(text)
    outcome = imae("upgrade", kind, "old", "new")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert message in outcome.err
    assert not Path("new").exists()


@pytest.mark.parametrize("name", ["", "n", "n" * 10, "a" * 97, "layer" * 20])
def test_a_binary_net_is_no_text(name: str) -> None:
    net = NetParameter(name=name, layer=[{"name": "x", "type": "ReLU"}])
    assert not looks_like_prototxt(net.SerializeToString())
    assert looks_like_prototxt(b"# a\r\n\t# b\n  layer  {")
    assert looks_like_prototxt(b"\xef\xbb\xbfname: 'x'")
