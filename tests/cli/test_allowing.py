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


def test_time_runs_code_that_is_allowed(imae: Callable[..., Any], net: Path) -> None:
    Path("list.txt").write_text("0.png 0\n1.png 1\n")
    timing = ["time", "--model", "net.prototxt", "--cpu", "--iterations", "1"]
    assert imae(*timing).status == 1
    timed = imae(*timing, "--allow-python")
    assert timed.status == 0 and "Python" in timed.out, timed
