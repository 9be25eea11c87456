"""`imae predict`, `imae import-onnx`, and `imae features` on images: what they print and write, and how they end."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imae.experiments.feature_table import FeaturesOfFiles
from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_preprocess import ImageOptions
from imae.prototxt_like.binary import write_caffemodel

Imae = Callable[..., Any]


def unboxed(text: str) -> str:
    """What a box on the terminal says."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture
def net(digits: Path) -> Path:
    """A net whose classes are the means of the image's blue, green and red, and images of one color each."""
    Path("net.prototxt").write_text("""
    layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
    layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
    """)
    write_caffemodel(Net("net.prototxt").to_proto(), Path("net.caffemodel"))
    Path("four.txt").write_text("a\nb\nc\nd\n")
    Path("labels.txt").write_text("blue\ngreen\nred\n")
    Path("im/deep").mkdir(parents=True)
    for name, color in (("im/r.png", (200, 10, 0)), ("im/deep/g.png", (0, 100, 50)), ("b c.jpg", (1, 2, 250))):
        Image.new("RGB", (9, 7), color).save(name)
    Path("im/notes.txt").write_text("none")
    return digits


def test_files_folders_and_patterns_give_a_table_csv_or_json(imae: Imae, net: Path) -> None:
    command = ("predict", "net.prototxt", "im", "b*.jpg", "--labels", "labels.txt", "--top", "2")
    table = imae(*command)
    assert (table.status, "net.prototxt by ONNX Runtime on CPU: images of 4x4, BGR" in table.err) == (0, True)
    lines = table.out.splitlines()
    assert lines[0].split() == ["image", "rank", "class", "label", "score"]
    assert lines[1].split() == ["im/deep/g.png", "1", "1", "green", "100"]
    assert len(lines) == 7
    rows = list(csv.DictReader(io.StringIO(imae(*command, "--csv").out)))
    assert [(row["image"], row["label"]) for row in rows if row["rank"] == "1"] == [
        ("im/deep/g.png", "green"),
        ("im/r.png", "red"),
        ("b c.jpg", "blue"),
    ]
    found = json.loads(imae(*command, "--json").out)
    assert found[1] == {
        "image": "im/r.png",
        "top": [{"class": 2, "label": "red", "score": 200.0}, {"class": 1, "label": "green", "score": 10.0}],
    }


def test_bad_images_are_named_and_passed_over(imae: Imae, net: Path) -> None:
    Path("im/bad.png").write_bytes(b"junk")
    for form in ((), ("--csv",), ("--json",)):
        outcome = imae("predict", "net.prototxt", "im", "gone.png", *form)
        assert outcome.status == 1
        assert "im/bad.png: no image that can be decoded" in outcome.err
        assert "gone.png: cannot be read" in outcome.err
        assert outcome.err.splitlines()[-1] == "imae: error: 2 images could not be read, the first im/bad.png"
        assert "im/r.png" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (("net.prototxt", "no*.png"), "no*.png: matches no image", 1),
        (("net.prototxt", "im", "--csv", "--json"), "give --csv or --json, not both", 2),
        (("net.prototxt", "im", "--labels", "four.txt"), "4 labels do not fit its outputs: pool 3", 1),
        (("net.prototxt", "im", "--mean", "1,2"), "the mean, 2x1x1, does not fit images of 3x4x4", 1),
        (("net.prototxt", "im", "--resize", "2x2"), "images of 2x2 are smaller than the net's, 4x4", 1),
        (("im/r.png", "im"), "im/r.png: expected prototxt", 1),
        (("no.onnx", "im"), "no.onnx: cannot be read", 1),
    ],
)
def test_a_mistake_is_a_line(imae: Imae, net: Path, arguments: tuple[str, ...], said: str, status: int) -> None:
    outcome = imae("predict", *arguments)
    assert (outcome.status, "Traceback" in outcome.err) == (status, False)
    assert said in outcome.err


def test_import_onnx_says_what_it_wrote_and_how_far_that_is(imae: Imae, net: Path) -> None:
    export_onnx("net.prototxt", "net.caffemodel", "net.onnx")
    outcome = imae("import-onnx", "net.onnx", "back")
    assert outcome.status == 0
    wrote, difference = outcome.out.splitlines()
    assert wrote == "Wrote back.prototxt and back.caffemodel: 2 layers, 0 weights"
    assert difference.startswith("Largest difference from the model in ONNX Runtime")
    assert imae("check", "back.prototxt", "back.caffemodel").status == 0
    export_onnx("net.prototxt", "net.caffemodel", "raw.onnx", preprocess=ImageOptions((5, 5), "BGR", "1,2,3"))
    said = (
        'The input "data" takes images, as `imae predict` and `imae export --preprocess` prepare them by --resize 5x5'
    )
    assert f"{said} --mean 1,2,3 --channels BGR\n" in imae("import-onnx", "raw.onnx", "raw").out
    gone = imae("import-onnx", "gone.onnx", "back")
    assert (gone.status, gone.err) == (1, "imae: error: gone.onnx: cannot be read: No such file or directory\n")


def test_features_of_images_by_either_model_in_each_format(imae: Imae, net: Path) -> None:
    export_onnx("net.prototxt", "net.caffemodel", "net.onnx", dynamic=())
    command = ("features", "im", "b c.jpg", "--blob", "pool", "--model")
    assert imae(*command, "net.prototxt", "-o", "a.npy").out == "Wrote a.npy: 3 rows of 3 features\n"
    expected = [[50, 100, 0], [0, 10, 200], [250, 2, 1]]
    np.testing.assert_allclose(np.load("a.npy"), expected, atol=2)  # a JPEG's colors
    assert imae(*command, "net.onnx", "-o", "b.npz").status == 0
    table = np.load("b.npz")
    assert table["images"].tolist() == ["im/deep/g.png", "im/r.png", "b c.jpg"]
    np.testing.assert_array_equal(table["features"], np.load("a.npy"))
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert imae(*command, "net.onnx", "-o", "c.parquet").status == 0
    columns = parquet.read_table("c.parquet").to_pydict()
    assert columns["images"] == table["images"].tolist()
    np.testing.assert_array_equal(columns["features"], table["features"])


def test_features_of_images_go_on_where_they_were_cut_off(
    imae: Imae, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a.npz"
    Path("im/bad.png").write_bytes(b"junk")
    command = (
        "features",
        "im",
        "b c.jpg",
        "gone.png",
        "--blob",
        "pool",
        "--model",
        "net.prototxt",
        "--batch",
        "1",
        "-o",
    )
    whole = imae(*command, f"whole_{name}")
    assert whole.err.splitlines()[-1] == "imae: error: 2 images could not be read, the first im/bad.png"
    append, rows = FeaturesOfFiles.append, 0

    def cut_off(self: FeaturesOfFiles, number: int, row: np.ndarray) -> None:
        nonlocal rows
        rows += 1
        if rows == 2:
            raise KeyboardInterrupt
        append(self, number, row)

    with monkeypatch.context() as patch:
        patch.setattr(FeaturesOfFiles, "append", cut_off)
        assert imae(*command, name).status != 0
    assert not Path(name).exists()
    resumed = imae(*command, name)
    assert resumed.out == f"Wrote {name}: 3 rows of 3 features, the first 1 by an earlier run\n"
    assert resumed.err.count("im/bad.png: ") == 1 and resumed.err.splitlines()[-1] == whole.err.splitlines()[-1]
    assert Path(name).read_bytes() == Path(f"whole_{name}").read_bytes()
    assert not list(Path().glob("*.partial*"))
    with monkeypatch.context() as patch:
        patch.setattr(FeaturesOfFiles, "append", cut_off)
        rows = 0
        assert imae(*command, name).status != 0
    Image.new("RGB", (9, 7), (9, 9, 9)).save("im/bad.png")  # mended: begin anew
    mended = imae(*command, name)
    assert mended.out == f"Wrote {name}: 4 rows of 3 features\n"


@pytest.mark.slow
def test_features_of_images_outlive_a_kill(net: Path) -> None:
    for number in range(2000):
        Image.new("RGB", (64, 64), (number % 256, number // 256, 7)).save(f"im/{number:04}.bmp")
    Path("im/0003.bmp").write_bytes(b"junk")
    command = [sys.executable, "-m", "imae", "features", "im", "--model", "net.prototxt", "--blob", "pool"]
    command += ["--batch", "1"]
    subprocess.run([*command, "-o", "whole.npy"], capture_output=True)
    kills = 0
    for least in (100, 900):  # rows, in bytes
        process = subprocess.Popen([*command, "-o", "a.npy"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            size = sum(path.stat().st_size for path in Path().glob("a.npy.*.partial"))
            if size > 128 + 12 * least:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
    assert kills == 2 and not Path("a.npy").exists()
    last = subprocess.run([*command, "-o", "a.npy"], capture_output=True, text=True)
    assert last.returncode == 1 and "1 image could not be read, the first im/0003.bmp" in last.stderr
    assert "by an earlier run" in last.stdout
    assert Path("a.npy").read_bytes() == Path("whole.npy").read_bytes()
    assert np.load("a.npy").shape == (2001, 3)


def test_features_of_the_nets_data_in_each_format(imae: Imae, digits: Path) -> None:
    write_caffemodel(Net("net.prototxt").to_proto(), Path("net.caffemodel"))
    command = ("features", "--model", "net.prototxt", "--weights", "net.caffemodel", "--blob", "ip1", "--cpu", "-o")
    assert [imae(*command, name).status for name in ("a.npy", "b.npz")] == [0, 0]
    np.testing.assert_array_equal(np.load("b.npz")["features"], np.load("a.npy"))
    assert sorted(path.name for path in Path().glob("*.np*")) == ["a.npy", "b.npz"]


def test_mistakes_with_features_are_lines(imae: Imae, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("features", "--model", "net.prototxt", "--blob", "pool")
    outcome = imae(*command, "-o", "a.npy", "im", "--plan", "plain")
    assert (outcome.status, "images go with --cpu, --threads and --stage alone" in unboxed(outcome.err)) == (2, True)
    outcome = imae(*command, "-o", "a.npy", "--mean", "3")
    assert (outcome.status, "--scale and --batch go with IMAGES" in unboxed(outcome.err)) == (2, True)
    Path("im/bad.png").write_bytes(b"junk")
    outcome = imae(*command, "-o", "a.npy", "im")
    assert (outcome.status, len(np.load("a.npy"))) == (1, 2)
    assert "1 image could not be read, the first im/bad.png" in outcome.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    outcome = imae(*command, "-o", "a.parquet", "im")
    assert outcome.err == "imae: error: a.parquet: writing Parquet needs pyarrow: pip install 'imae[tables]'\n"
