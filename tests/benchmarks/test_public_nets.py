"""How many of a folder's prototxts build: what counts as a net, what stands in for data, and whose the others are."""

from pathlib import Path

import pytest

from benchmarks import public_nets
from imae.nets.zoo import build
from imae.prototxt_like.text import write_text

HEAD = """
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
NETS = {
    "deploy": 'input: "data" input_shape { dim: 1 dim: 3 } ' + HEAD.split("\n")[1],
    "train_val": """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param { source: "gone" } }
layer { name: "data" type: "ImageData" top: "data" top: "label" include { phase: TEST }
  image_data_param { source: "gone.txt" new_height: 32 new_width: 24 } }
"""
    + HEAD,
    "train": 'layer { name: "d" type: "HDF5Data" top: "data" top: "label" include { phase: TRAIN } }' + HEAD,
    "of_pixels": """
layer { name: "data" type: "Python" top: "data" top: "label" python_param { module: "voc_layers" layer: "Voc" } }
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 21 kernel_size: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
""",
    "layer_of_a_fork": 'layer { name: "p" type: "MadeUp" top: "rois" }',
    "field_of_a_fork": 'layer { name: "d" type: "Input" top: "x" made_up_param { order: 0 } }',
    "code": """
input: "data" input_shape { dim: 1 }
layer { name: "p" type: "Python" bottom: "data" top: "y" python_param { module: "rpn" layer: "R" } }
""",
    "wrong": 'input: "data" input_shape { dim: 1 dim: 3 }\n'
    'layer { name: "c" type: "Convolution" bottom: "data" top: "y" convolution_param { num_output: 0 } }',
}
NO_NETS = {
    "solver": 'base_lr: 0.1 net: "net.prototxt"',
    "solver_with_its_net": 'base_lr: 0.1 net_param {\n layer { name: "d" type: "Input" top: "x" }\n}',
    "labelmap": 'item { name: "cat" label: 1 }',
}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, text in {**NETS, **NO_NETS}.items():
        (folder / f"{name}.prototxt").write_text(text)
    (folder / "again.prototxt").write_text(NETS["deploy"])
    write_text(build("siamese", source="gone"), folder / "siamese.prototxt")
    return tmp_path


def test_nets_are_counted_once_and_those_that_do_not_build_have_a_reason(
    zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["public_nets", str(zoo), "--all"])
    public_nets.main()
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == ["repository", "9", "5", "3"]
    reasons = {line.strip() for line in out.splitlines()[4:]}
    assert {
        "1  a layer of a fork: MadeUp",
        "1  a field of a fork: made_up_param",
        "1  Python code that is elsewhere: rpn",
    } < reasons
    assert err.count("\n") == 4
    assert 'layer "c" (Convolution)' in err


def test_a_folder_without_prototxts_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["public_nets", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        public_nets.main()
    assert ended.value.code == 2
    assert "has no .prototxt" in capsys.readouterr().err
