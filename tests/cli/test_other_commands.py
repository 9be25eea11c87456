"""Exporting, timing, checking gradients, listing devices and converting, as a user sees them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imae.layers.gradient_check import GradientReport
from imae.nets.net import Net
from imae.prototxt_like.binary import write_caffemodel

Imae = Callable[..., Any]


def test_export_says_what_the_model_takes_and_gives_and_checks_it(imae: Imae, digits: Path) -> None:
    assert imae("train", "--solver", "solver.prototxt", "--cpu", "--iterations", "1").status == 0
    given = ("export", "--model", "net.prototxt", "--weights", "out/digits_iter_1.caffemodel", "--output", "net.onnx")
    outcome = imae(*given)
    assert outcome.status == 0
    assert "input data: Nx1x8x8\n" in outcome.out
    assert "output prob: Nx10\n" in outcome.out
    found = re.search(r"Largest difference .*: (\S+)$", outcome.out)
    assert found
    assert float(found[1]) < 1e-5
    assert "Largest difference" not in imae(*given, "--no-check").out
    assert "input data: Nx1x8x8\n" in imae(*given, "--include-transform").out
    assert "output ip1: Nx16\n" in imae(*given, "--outputs", "ip1").out
    assert imae(*given, "--shape", "wide").status == 2
    unknown = imae(*given, "--outputs", "ip3")
    assert (unknown.status, unknown.err.count("\n")) == (1, 1)


def test_check_gradients_lists_the_layers_and_fails_if_one_is_wrong(
    imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = imae("check_gradients", "net.prototxt")
    assert outcome.status == 0
    header, *rows, summary = outcome.out.splitlines()
    assert header.split()[:3] == ["layer", "type", "compared"]
    assert [row.split()[0] for row in rows] == ["ip1", "relu", "dropout", "ip2", "loss"]
    assert all(row.endswith("right") for row in rows)
    assert summary == "5 of 5 layers have right gradients."
    report = GradientReport("ip1", "InnerProduct", 16, 0, 0.5, 0.5, "bottom 0 [1]: backward gives 1", passed=False)
    monkeypatch.setattr("imae.layers.gradient_check.check_net", lambda *_, **__: [report])
    wrong = imae("check_gradients", "net.prototxt")
    assert wrong.status == 1
    assert 'layer "ip1" (InnerProduct): bottom 0 [1]: backward gives 1' in wrong.out


@pytest.mark.parametrize(("more", "layers"), [((), 6), (("--phase", "test"), 7), (("--plan", "plain"), 6)])
def test_time_measures_each_layer_and_whole_passes(
    imae: Imae, digits: Path, more: tuple[str, ...], layers: int
) -> None:
    outcome = imae("time", "-model", "net.prototxt", "-iterations", "3", "-cpu", *more)
    assert outcome.status == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    assert len(rows) == 1 + layers + 3
    per_layer = sum(float(row[2]) for row in rows[1 : 1 + layers])
    found = re.search(r"Average Forward pass: (\S+) ms", outcome.out)
    assert found
    assert per_layer > 0
    assert float(found[1]) > 0


def test_devices_are_listed_under_both_names(imae: Imae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert imae("devices").out.startswith("CPU, ")
    assert imae("device_query", "-gpu", "all").out.startswith("CPU, ")
    assert imae("device_query", "-gpu", "0").status == 1


def test_convert_writes_what_it_says(imae: Imae, tmp_path: Path) -> None:
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    record = bytes([3]) + bytes(3072)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (root / name).write_bytes(2 * record)
    outcome = imae("convert", "cifar10", root, tmp_path / "out", "--pad", "4")
    assert outcome.status == 0
    written = {Path(line).name for line in outcome.out.splitlines()}
    assert written == {path.name for path in (tmp_path / "out").iterdir()}
    assert "cifar10_pad4_train_lmdb" in written
    again = imae("convert", "cifar10", root, tmp_path / "out")
    assert (again.status, again.err.count("\n")) == (1, 1)


def test_the_demo_gets_its_folder_and_seed(imae: Imae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("imae.experiments.demo.run", lambda output, seed, console: given.extend((output, seed)))
    assert imae("demo", "--output", tmp_path, "--seed", "5").status == 0
    assert given == [tmp_path, 5]


def test_check_gradients_at_weights_of_another_net_says_so(imae: Imae, tmp_path: Path) -> None:
    """Nothing copied is an error, a part a warning: neither is "all right" at the weights that were asked for."""
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 2 } }'
        'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 } }'
    )
    net = Net(tmp_path / "net.prototxt")
    part, other = net.to_proto(), net.to_proto()
    other.layer[1].name, other.layer[2].name = "c", "d"
    del part.layer[2]
    write_caffemodel(part, tmp_path / "part.caffemodel")
    write_caffemodel(other, tmp_path / "other.caffemodel")
    result = imae("check_gradients", tmp_path / "net.prototxt", "--weights", tmp_path / "other.caffemodel")
    assert result.status == 1 and "none of its layers has the name" in result.err
    assert "right gradients" not in result.out + result.err
    result = imae("check_gradients", tmp_path / "net.prototxt", "--weights", tmp_path / "part.caffemodel")
    assert "lacks weights of these layers, which are checked at initial ones: b" in result.out + result.err


def test_the_nets_debug_info_is_told_by_imae_test(imae: Imae, digits: Path) -> None:
    assert imae("train", "--solver", "solver.prototxt", "--iterations", "1").status == 0
    weights = ("--weights", "out/digits_iter_1.caffemodel", "--iterations", "2")
    plain = imae("test", "--model", "net.prototxt", *weights, "--plan", "plain")
    text = Path("net.prototxt").read_text()
    Path("net.prototxt").write_text(f"debug_info: true {text}")
    outcome = imae("test", "--model", "net.prototxt", *weights)
    assert outcome.status == 0 and outcome.out == plain.out
    assert outcome.err.count("    [Forward] Layer ip1, param blob 0 data: ") == 2
    assert "[Forward]" not in plain.err
