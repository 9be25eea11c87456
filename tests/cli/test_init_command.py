"""`imae init`: from a user's images to a net that trains."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imae.layers.data.image_list import read_image_list
from imae.prototxt_like.csv_file import CLEANED, write_csv
from imae.prototxt_like.text import read_net

Imae = Callable[..., tuple[int, str, str]]
CLASSES = {"a cat": 30, "dog": 20, "one only": 1}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draws = np.random.default_rng(1)
    for name, count in CLASSES.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = draws.integers(0, 256, (20 + i % 3, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i:02} b.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("loss", ["imae", "gce", "cce", "mae"])
def test_a_folder_trains_and_tests(loss: str, imae: Imae, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    status, said, err = imae("init", "photos", "training", "--loss", loss, "--val", "0.2")
    assert status == 0, err
    assert said.splitlines() == [
        "Wrote training: 41 images of 3 classes to train on, 10 held out, of 21 x 21 pixels",
        "imae train --solver training/solver.prototxt",
    ]
    out = photos.parent / "training"
    lists = [read_image_list(out / f"{name}.txt") for name in ("train", "val")]
    assert [np.bincount(each.labels).tolist() for each in lists] == [[24, 16, 1], [6, 4]]
    assert len({name for each in lists for name in each.names}) == 51
    assert (out / "classes.txt").read_text().splitlines() == [*CLASSES]
    elsewhere = photos.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.txt").write_text("another's")
    monkeypatch.chdir(elsewhere)
    status, _, err = imae("train", "--solver", out / "solver.prototxt", "--iterations", "2", "--set", "test_interval=1")
    assert status == 0, err
    assert err.count("Test net output #0: accuracy = ") == 3, err
    assert (out / "snapshots" / "net_iter_2.caffemodel").exists()
    text = (out / "net.prototxt").read_text()
    assert {"imae": "T: 8", "gce": "q: 0.7"}.get(loss, "Softmax") in text.split("# Other losses")[1].partition("\n#")[2]
    (out / "net.prototxt").write_text(text.replace("    # noise_", "    noise_"))
    own = read_net(out / "net.prototxt").layer[0].image_data_param
    assert (round(own.noise_rate, 6), own.noise_seed) == (0.4, 1)


def test_tables_and_lists(imae: Imae, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = photos.parent / "tables"
    tables.mkdir()
    rows = [f"{name}/{i:02} b.png,{name}" for name, count in CLASSES.items() for i in range(count)]
    (tables / "all.csv").write_text("\n".join(["file,kind", *rows]))
    options = ("--root", photos, "--columns", "file,kind", "--gray", "--parameter", "2")
    assert imae("init", tables / "all.csv", tables / "csv", *options)[0] == 0
    (net,) = [read_net(tables / "csv" / "net.prototxt")]
    assert not net.layer[0].image_data_param.is_color and net.layer[-2].imae_param.T == 2
    assert net.layer[0].image_data_param.root_folder == f"{photos}/"
    (tables / "cleaned.txt").write_text("\n".join(f"{photos}/dog/{i:02} b.png {i % 2}" for i in range(20)))
    (tables / "classes.txt").write_text("odd\neven\nnone left\n")
    assert imae("init", tables / "cleaned.txt", tables / "list")[0] == 0
    assert (tables / "list" / "classes.txt").read_text() == "odd\neven\nnone left\n"
    status, _, err = imae("train", "--solver", tables / "list" / "solver.prototxt", "--iterations", "1")
    assert status == 0, err


def test_what_an_audit_left(imae: Imae, photos: Path) -> None:
    """Names that a spreadsheet would take for formulas, classes that are numbers, and what was dropped."""
    names = [f"{sign}{i}.png" for i, sign in enumerate(["=", "'=", "@", "'", "", "-"] * 3)]
    for name in names:
        Image.new("RGB", (9, 9)).save(photos / name)
    rows = [(i, name, "10" if i < 6 else "9", "7", "drop" if i > 15 else "keep", "") for i, name in enumerate(names)]
    write_csv(photos / "cleaned.csv", CLEANED, rows)
    status, _, err = imae("init", photos / "cleaned.csv", photos / "out")
    assert status == 0, err
    lists = [read_image_list(photos / "out" / f"{name}.txt") for name in ("train", "val")]
    found = {name: label for each in lists for name, label in zip(each.names, each.labels.tolist(), strict=True)}
    assert found == {name: int(i < 6) for i, name in enumerate(names[:16])}
    assert (photos / "out" / "classes.txt").read_text() == "9\n10\n"
    status, _, err = imae("train", "--solver", photos / "out" / "solver.prototxt", "--iterations", "1")
    assert status == 0, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", "out"), "none: cannot be read: No such file or directory"),
        (("photos/dog", "out"), "photos/dog: has no image in a subfolder, expected a subfolder for each class"),
        (("one", "out"), "one: has images of one class, expected two at least"),
        (("photos", "full"), "full has a solver.prototxt already, which is overwritten only with --force"),
        (("photos", "out", "--loss", "cce", "--parameter", "1"), "cce has no parameter: T is IMAE's, q is GCE's"),
        (("photos", "out", "--loss", "gce", "--parameter", "2"), "q must lie in (0, 1], not 2"),
        (("photos", "out", "--parameter", "nan"), "T must be 0 or more, not nan"),
        (("list.txt", "out"), "list.txt: line 1: "),
        (("far.txt", "out"), "far.txt: has labels up to 2000000000 for 1 images; expected 0, 1, ..."),
        (("below.txt", "out"), "below.txt: line 1: the label -1; expected classes, which begin at 0"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], message: str, imae: Imae, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("full").mkdir()
    Path("full/solver.prototxt").touch()
    Path("one/class").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save("one/class/a.png")
    Path("list.txt").write_text("gone.png 0\nlost.png 1\n")
    Path("far.txt").write_text("gone.png 2000000000\n")
    Path("below.txt").write_text("gone.png -1\n")
    status, _, err = imae("init", *arguments)
    assert status == 1 and err.startswith(f"imae: error: {message}") and err.count("\n") == 1
    assert not Path("out").exists()
