"""`imae check`: the table, what is in the way, and the exit status."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Imae = Callable[..., Any]
FOREIGN = 'layer { name: "p" type: "Reorg" bottom: "data" top: "p" reorg_param { stride: 2 } }\n'
LINES = """
layer type blobs shapes parameters weights remark
data Data data, label 20x3x8x8, 20 needs nowhere; shape by the shape given
ip1 InnerProduct data -> ip1 20x16 3,088 match
relu ReLU ip1 -> ip1 20x16
dropout Dropout ip1 -> ip1 20x16
ip2 InnerProduct ip1 -> ip2 20x10 170 missing
loss SoftmaxWithLoss ip2, label -> loss scalar

Phase TRAIN: 6 layers, 3,258 learnable parameters
Left over in w.caffemodel: other
In the way: the weights lack the layers ip2
Training: yes, but it needs nowhere
Export to ONNX: no: see above
"""


def use_absent_data() -> None:
    text = Path("net.prototxt").read_text()
    start, end = text.index("digits_data_param"), text.index("}", text.index("digits_data_param"))
    data = 'data_param { source: "nowhere" batch_size: 20'
    Path("net.prototxt").write_text(text[:start].replace("DigitsData", "Data") + data + text[end:])


def test_the_table_the_weights_and_both_verdicts(imae: Imae, digits: Path) -> None:
    from imae.nets.net import Net
    from imae.prototxt_like.text import read_net

    use_absent_data()
    source = read_net("net.prototxt")
    source.layer[0].type = "Input"
    for dims in ([1, 3, 8, 8], [1]):
        source.layer[0].input_param.shape.add(dim=dims)
    source.layer[4].name = "other"
    Net(source).write_weights("w.caffemodel")
    outcome = imae("check", "net.prototxt", "w.caffemodel", "--shape", "3x8x8")
    assert [" ".join(line.split()) for line in outcome.out.splitlines()] == LINES.splitlines()[1:]
    assert outcome.status == 1
    assert outcome.err == "imae: error: net.prototxt: 1 thing in the way, see above\n"


def test_a_sound_net_ends_with_status_0_in_both_phases(imae: Imae, digits: Path) -> None:
    for phase, layers in (("train", 6), ("test", 7)):
        outcome = imae("check", "net.prototxt", "--phase", phase)
        assert (outcome.status, outcome.err) == (0, "")
        assert f"Phase {phase.upper()}: {layers} layers, 1,210 learnable parameters" in outcome.out
        assert outcome.out.endswith("Training: yes\nExport to ONNX: yes\n")


def test_what_is_foreign_is_named_and_the_table_printed_all_the_same(imae: Imae, digits: Path) -> None:
    text = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(text.replace('layer { name: "relu"', FOREIGN + 'layer { name: "relu"'))
    outcome = imae("check", "net.prototxt")
    assert (outcome.status, outcome.err) == (1, "imae: error: net.prototxt: 2 things in the way, see above\n")
    assert [line.split() for line in outcome.out.splitlines() if line.startswith("p ")] == [
        ["p", "Reorg", "data", "->", "p", "?", "?", "of", "YOLO"]
    ]
    field = r'In the way: net.prototxt:7:\d+: "reorg_param" is no field of LayerParameter; it is of YOLO'
    assert re.search(field, outcome.out)
    assert 'In the way: layer "p": the layer type "Reorg" is of YOLO\'s Caffe, not of BVLC\'s' in outcome.out
    assert "1,210 learnable parameters in the layers that could be built" in outcome.out


def test_json_has_all_of_it(imae: Imae, digits: Path) -> None:
    use_absent_data()
    outcome = imae("check", "net.prototxt", "--json", "--phase", "test")
    found = json.loads(outcome.out)
    assert outcome.status == 0
    assert (found["phase"], found["training"]["possible"], found["obstacles"]) == ("TEST", None, [])
    assert [layer["needs"] for layer in found["layers"]] == ["nowhere"] + [""] * 6
    assert found["layers"][0]["shapes"] == [None, None]


def test_what_is_no_net_is_one_line(imae: Imae, digits: Path) -> None:
    for arguments, message in (
        (["solver.prototxt"], "is this the right file?"),
        (["none.prototxt"], "none.prototxt: cannot be read"),
        (["net.prototxt", "net.prototxt"], "net.prototxt: expected a caffemodel"),
    ):
        outcome = imae("check", *arguments)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
        assert message in outcome.err
