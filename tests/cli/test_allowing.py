"""What a command does only where the user allows it: running code, leaving out images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CODE = """
import caffe


class Twice(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff
"""
NET = """
layer { name: "data" type: "ImageData" top: "data" top: "label" transform_param { scale: 0.01 }
  image_data_param { source: "list.txt" batch_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "twice" type: "Python" bottom: "ip" top: "ip2" python_param { module: "twice_layer" layer: "Twice" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), 80 * i, np.uint8)).save(f"{i}.png")
    Path("list.txt").write_text("0.png 0\nmissing.png 1\n1.png 1\n2.png 1\n")
    Path("twice_layer.py").write_text(CODE)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 random_seed: 1')
    return tmp_path


def test_code_and_gaps_are_refused_unless_they_are_allowed(imae: Callable[..., Any], net: Path) -> None:
    train = ["train", "--solver", "solver.prototxt", "--cpu"]
    refused = imae(*train, "--skip-broken")
    assert refused.status == 1 and "--allow-python" in refused.err and "Traceback" not in refused.err
    broken = imae(*train, "--allow-python")
    assert broken.status == 1 and "list.txt: line 2: missing.png" in broken.err
    trained = imae(*train, "--allow-python", "--skip-broken", "--prefix", "out")
    assert trained.status == 0, trained
    said = 'Layer "data": 1 of 4 images cannot be read and are left out, the first at list.txt: line 2'
    assert said in trained.err
    weights = ["--model", "net.prototxt", "--weights", "out_iter_3.caffemodel", "--cpu", "--iterations", "2"]
    tested = imae("test", *weights, "--allow-python", "--skip-broken")
    assert tested.status == 0 and "loss = " in tested.out and said in tested.err
    assert imae("test", *weights, "--skip-broken").status == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["time", "--model", "net.prototxt", "--iterations", "1", "--cpu"], "Python"),
        (["check-gradients", "net.prototxt", "--samples", "1"], "3 of 3 layers have right gradients"),
        (["features", "--model", "net.prototxt", "--weights", "w", "--blob", "ip2", "-o", "f.npy", "--cpu"], "3 rows"),
        (
            ["export", "--model", "net.prototxt", "--weights", "w", "-o", "f.onnx", "--outputs", "ip"],
            "input data: Nx3x4x4",
        ),
    ],
)
def test_every_command_that_builds_a_net_takes_both(
    imae: Callable[..., Any], net: Path, command: list[str], said: str
) -> None:
    Path("list.txt").write_text("missing.png 1\n0.png 0\n1.png 1\n2.png 1\n")
    trained = ["train", "--solver", "solver.prototxt", "--cpu", "--allow-python", "--skip-broken", "--iterations", "1"]
    assert imae(*trained, "--prefix", "out").status == 0
    Path("out_iter_1.caffemodel").rename("w")
    broken, both = imae(*command, "--allow-python"), imae(*command, "--allow-python", "--skip-broken")
    assert broken.status == 1 and "list.txt: line 1: missing.png" in broken.err
    assert both.status == 0 and said in both.out, both
    if command[0] != "export":  # of whose net the Python layer is no part
        assert "--allow-python" in imae(*command, "--skip-broken").err


def test_a_python_layer_that_is_allowed_has_no_onnx_form(imae: Callable[..., Any], net: Path) -> None:
    export = ["export", "--model", "net.prototxt", "--weights", "w", "--output", "f.onnx", "--shape", "3x4x4"]
    train = ["train", "--solver", "solver.prototxt", "--cpu", "--allow-python", "--skip-broken", "--iterations", "1"]
    assert imae(*train, "--prefix", "out").status == 0
    Path("out_iter_1.caffemodel").rename("w")
    assert "--allow-python" in imae(*export).err
    refused = imae(*export, "--allow-python")
    assert refused.status == 1 and 'layer "twice" (Python): has no ONNX form' in refused.err
