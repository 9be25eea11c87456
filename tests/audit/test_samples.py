"""What `imae audit` reads, and what it refuses in one line."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from imae.audit.cleaned import Thresholds, write_cleaned
from imae.audit.result import Result
from imae.audit.samples import image_below, read_samples
from imae.experiments.feature_files import write_features
from imae.layers.data.image_list import read_image
from imae.prototxt_like.csv_file import CLEANED, write_csv
from imae.prototxt_like.errors import InputError


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as error:
        read_samples(*map(str, arguments), **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_features_of_arrays(tmp_path: Path) -> None:
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 3
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "both.npz", x=x, y=y)
    (tmp_path / "y.txt").write_text("\n".join("abc"[label] for label in y) + "\n")
    for data, label in (("both.npz:x", "y"), ("x.npy", f"{tmp_path}/both.npz:y"), ("x.npy", f"{tmp_path}/y.txt")):
        samples = read_samples(f"{tmp_path}/{data}", label=label)
        np.testing.assert_array_equal(samples.features, x)
        np.testing.assert_array_equal(samples.label, y)
    assert samples.classes == ["a", "b", "c"] and samples.names[0] == "row 01"
    assert isinstance(read_samples(f"{tmp_path}/x.npy", label=label).features, np.memmap)
    np.save(tmp_path / "x.npy", x[:10])
    assert "y.txt: holds labels of shape (20,), expected 10 labels" in refusal(tmp_path / "x.npy", label=label)


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet"])
def test_tables_of_numbers(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{form}"
    rows = [(0.5 * i, 10 + i % 11, -float(i)) for i in range(30)]
    if form == "parquet":
        if importlib.util.find_spec("pyarrow") is None:
            assert "pip install 'imae[tables]'" in refusal(table(path, ""), label="kind")
            pytest.skip("pyarrow is not installed")
        import pyarrow
        import pyarrow.parquet

        a, kind, b = zip(*rows, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"a": a, "kind": kind, "b": b}), path)
    else:
        cell = "," if form == "csv" else "\t"
        lines = [cell.join(("a", '"kind"', "b")), *(cell.join(map(str, row)) for row in rows)]
        table(path, "\r\n".join(lines) + "\r\n")
    samples = read_samples(str(path), label="kind")
    assert samples.features is not None
    np.testing.assert_allclose(samples.features, [(a, b) for a, _, b in rows])
    assert samples.classes == [str(number) for number in range(10, 21)]  # by value, not as texts
    names = read_samples(str(table(tmp_path / "odd.csv", f"a,l\n1,--1\n2,{10**30}\n")), label="l").classes
    assert names == ["--1", str(10**30)]
    assert 'has no column "knd", it has a, kind, b; did you mean "kind"?' in refusal(path, label="knd")
    assert "--label says which column" in refusal(path)


def test_a_table_of_paths_is_read_below_its_root_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.png").touch()
    (tmp_path / "in" / "link.png").symlink_to("../out.png")
    (tmp_path / "in" / "a.png").touch()
    for name in ("../out.png", str(tmp_path / "out.png"), "link.png", "x/../../out.png"):
        path = table(tmp_path / "in" / "t.csv", f"p,l\na.png,1\n{name},2\n")
        line = refusal(path, image="p", label="l")
        assert line.startswith(f"{path}: line 3: {name!r}: lies outside") and "--allow-outside" in line
        assert read_samples(str(path), image="p", label="l", allow_outside=True).names == ["a.png", name]
    assert len(read_samples(str(path), image="p", label="l", root=tmp_path / "in", allow_outside=True)) == 2
    assert "line 2: no path" in refusal(table(path, "p,l\n,1\na.png,2\n"), image="p", label="l")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",".join(f"c{i}" for i in range(70_000)) + "\n", "has 70,000 columns, expected at most 65,536"),
        ("a,b,l\n1,2,x\n1,2\n", "line 3: 2 cells, expected 3, one for each column"),
        ("a,b,l\n1,2,x\n1,cat,y\n", "line 3: column \"b\": 'cat' is no number"),
        ("a,a,l\n1,2,x\n", "has several columns of one name: 'a'"),
        ("a,l\n1,\n2,y\n", "line 2 has no label"),
        ("a,l\n1,y\n2,NaN\n", "line 3 has no label: 'NaN'"),
        ("a,l\n1,1.0\n2,NA\n", "line 3 has no label: 'NA'"),
        ("a,l,b\n1,x,2\n2,y,nan\n", 'line 3: column "b" is no finite number'),
        ("a,l\r1,x\r2,y\r", "line 1: has line ends of old Macs"),
        ("a;b;l\n1;1.234,5;x\n", "line 2: column \"b\": '1.234,5' is no number"),
        ("a,l\n1,y\n2,y\n", "all 2 labels are 'y': expected at least two classes"),
        ("l\nx\ny\n", "has no column beside the labels"),
        ("", 'has no column "l"'),
        ("a,l\n", "no samples, expected some of at least two classes"),
        ('"a\nb",l\n1,x\n2,y\n', "line 1: a column's name goes on in the next line"),
        ("a,l\n" + "x" * 200_000 + ",y\n", 'line 2: column "a": \'xxx'),
        ('a,l\n"' + "x" * 200_000 + '",y\n', "field larger than field limit"),
    ],
)
def test_tables_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    line = refusal(table(tmp_path / "t.csv", text), label="l")
    assert message in line and line.startswith(str(tmp_path / "t.csv"))
    assert len(line) < 400


def test_a_table_is_read_in_pieces_and_lines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.audit.tables._ROWS", 4)
    lines = ["a,l,b", *(f"{i},{'xy'[i % 2]}, {i}e1" for i in range(10)), '10,"x",1_0', "", '11,"y\n",12']
    samples = read_samples(str(table(tmp_path / "t.csv", "\n".join(lines))), label="l")
    expected = [*((i, 10 * i) for i in range(10)), (10, 10), (11, 12)]
    np.testing.assert_array_equal(samples.features, np.array(expected))  # type: ignore[arg-type]
    assert samples.label.tolist() == [0, 1] * 6
    for place, line in ((7, "7,y"), (13, '11,"y",cat'), (6, "5,y,cat")):
        changed = [*lines[:place], line, *lines[place + 1 :]]
        assert f": line {place + 1}: " in refusal(table(tmp_path / "t.csv", "\n".join(changed)), label="l")


def test_files_that_expand_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imae.audit.tables.SUSPECTED", 1000)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((10_000, 20), np.float32))
    (tmp_path / "y.txt").write_text("1")
    line = refusal(f"{tmp_path}/x.npz:x", label=f"{tmp_path}/y.txt")
    assert "says it holds 200,000 numbers in" in line
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    import pyarrow
    import pyarrow.parquet

    column = pyarrow.repeat(0, 1_000_000)
    pyarrow.parquet.write_table(
        pyarrow.table({"a": column, "kind": column}), tmp_path / "t.parquet", compression="zstd"
    )
    assert "says it holds 2,000,000 numbers in" in refusal(tmp_path / "t.parquet", label="kind")


def test_a_folder_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hidden = (".git/3.png", "cat/._1.png", "dog/.ipynb_checkpoints/2.png")
    for name in ("cat/1.png", "dog/deep/2.JPG", "dog/phone.HEIC", "dog/notes.txt", *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    samples = read_samples(str(tmp_path))
    assert (samples.names, samples.classes) == (["cat/1.png", "dog/deep/2.JPG", "dog/phone.HEIC"], ["cat", "dog"])
    assert not caplog.messages
    for name in ("cow", "elk"):
        (tmp_path / name).mkdir()
    (tmp_path / "5.png").touch()
    assert read_samples(str(tmp_path)).names == samples.names
    assert caplog.messages == [
        f"{tmp_path}: no image in cow, elk",
        f"{tmp_path}: left out 1 image beside the subfolders, of no class",
    ]
    (tmp_path / "dog" / "4.png").symlink_to("/etc/hostname")
    assert "lies outside" in refusal(tmp_path)
    assert "has images in 1 subfolder, expected one subfolder for each class" in refusal(tmp_path / "dog")
    assert "no such file or folder" in refusal(tmp_path / "yak")


def test_damaged_pages_of_parquet_are_refused_where_they_have_checksums(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "t.parquet"
    write_features(path, np.random.default_rng(0).normal(size=(100, 9)).astype(np.float32), ["a", "b"] * 50)
    assert len(read_samples(str(path), label="images")) == 100
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refusal(path, label="images").startswith(f'{path}: column "features": could not verify page integrity')


def test_a_circle_of_links_is_an_image_that_cannot_be_read_as_is_a_link_to_nothing(tmp_path: Path) -> None:
    links = {"cat/round.png": "round.png", "cat/gone.png": "nowhere", "dog/up": "..", "fox": "fox", "emu": "nowhere"}
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for name, target in {**links, "3.png": "3.png"}.items():
        (tmp_path / name).symlink_to(target)
    names = ["cat/1.png", "cat/gone.png", "cat/round.png", "dog/2.png"]
    assert read_samples(str(tmp_path)).names == names and read_samples(str(tmp_path)).classes == ["cat", "dog"]
    path = table(tmp_path / "t.csv", "p,l\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    assert read_samples(str(path), image="p", label="l").names == names
    for name in ("cat/round.png", "cat/gone.png"):
        with pytest.raises(InputError, match=rf"^{tmp_path}/{name}: "):
            read_image(image_below(tmp_path, name, False), True)


def test_a_folder_of_parts_and_one_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train/cat/1.png", "Test/dog/2.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    read_samples(str(tmp_path))
    assert caplog.messages == [f"{tmp_path}: Test, train are taken for classes; for those in them, audit each"]
    walked = os.scandir

    def refused(folder: str) -> object:
        if str(folder).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(folder))
        return walked(folder)

    monkeypatch.setattr(os, "scandir", refused)
    assert refusal(tmp_path) == f"{tmp_path}/train/cat: cannot be read: Permission denied"


def test_names_of_an_audits_table_are_read_as_they_were(tmp_path: Path) -> None:
    names = ["=1+1.png", "'=1+1.png", " a\rb\n.png", "\u2028'-2.5"]
    write_csv(tmp_path / "t.csv", CLEANED, [(i, name, name, name, "keep", "") for i, name in enumerate(names)])
    samples = read_samples(f"{tmp_path}/t.csv", image="name", label="label")
    assert samples.names == names and [samples.classes[i] for i in samples.label] == names
    own = read_samples(str(table(tmp_path / "own.csv", "p,l\n'=a, b \nc,d\n")), image="p", label="l")
    assert (own.names, own.classes) == (["'=a", "c"], ["b", "d"])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([b"no", "süß".encode()]), ["no", "süß"]),
        (np.array(["10", "9.0"], object), ["10", "9"]),
        (np.array(["x", "x, y"], object), ["x", "x, y"]),
        (np.array(["03", "3"]), ["03", "3"]),
        (np.array([True, False]), ["True", "False"]),
        (np.array([[10.0], [9.0]]), ["10", "9"]),
        (np.eye(2, dtype=np.uint8), ["0", "1"]),
    ],
)
def test_labels_of_arrays(
    labels: np.ndarray, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("y").mkdir()  # a key goes before a file
    np.savez("t.npz", x=np.eye(2, dtype=bool), y=labels)
    samples = read_samples("t.npz:x", label="y")
    assert [samples.classes[i] for i in samples.label] == names
    assert samples.classes == sorted(names, key=lambda name: (len(name), name) if name in ("10", "9") else (0, name))


def test_labels_that_are_none(tmp_path: Path) -> None:
    for y in (np.ones((2, 2)), np.array([["a", "b"]] * 2), np.array([["a", "b"]] * 2, object), np.array([b"", {}])):
        np.savez(tmp_path / "t.npz", x=np.eye(2), y=y)
        line = refusal(f"{tmp_path}/t.npz:x", label="y")
        assert "holds labels of shape (2, 2), expected 2 labels" in line or "Python objects" in line


def test_labels_of_lines(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(2))
    for name, text in (("y.txt", "\ufeff3\r\n=b, c\r\n"), ("y.csv", '\ufefflabel\n3\n"=b, c"\n')):
        samples = read_samples(f"{tmp_path}/x.npy", label=str(table(tmp_path / name, text)))
        assert [samples.classes[i] for i in samples.label] == ["3", "=b, c"]
    for text in ("1,a\n2,b\n", "1;a\n2;b\n"):
        line = refusal(tmp_path / "x.npy", label=str(table(tmp_path / "y.csv", text)))
        assert line == f"{tmp_path}/y.csv: has several columns, expected one label a line"
    line = refusal(tmp_path / "x.npy", label=str(table(tmp_path / "y.tsv", "a" * 2**18)))
    assert line == f"{tmp_path}/y.tsv: field larger than field limit (131072)"


def test_tables_of_other_countries_and_columns_that_number_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(i, 100 + i, 7 * i, 1e9 + i, 0.5 * i, "x" if i % 2 else "3,5") for i in range(20)]
    lines = ["\ufeff;n;k;user_id;a;l", *(";".join(map(str, row)).replace(".", ",") for row in rows)]
    path = str(table(tmp_path / "t.csv", "\r\n".join(lines)))
    samples = read_samples(path, label="l")
    assert samples.classes == ["3,5", "x"] and samples.features is not None
    np.testing.assert_array_equal(samples.features[:, [0, 2]], [(row[2], row[4]) for row in rows])
    assert caplog.messages == [
        f'{path}: left out column "", column "n": it numbers the rows',
        f'{path}: column "k", column "user_id" may number the rows, and is taken for a feature; '
        "--ignore COLUMN leaves it out",
    ]
    caplog.clear()
    only = read_samples(path, label="l", ignore=["", "n", "k", "user_id"]).features
    np.testing.assert_array_equal(np.ravel(only), [row[4] for row in rows])  # type: ignore[arg-type]
    assert not caplog.messages
    assert 'no column "m"' in refusal(path, label="l", ignore=["m"])
    assert "no column of features" in refusal(path, label="l", ignore=["k", "user_id", "a"])
    for data, options in (("digits", {"image": "p"}), (tmp_path, {"ignore": ["k"]}), (tmp_path, {"label": "l"})):
        assert "--image, --root and --ignore" in (line := refusal(data, **options)) or "takes no --label" in line


def test_a_name_with_a_lines_end_is_in_no_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    zeros = np.zeros(2, np.int64)
    scores = {"label": np.arange(2), "suggested": zeros, "p_wrong": zeros, "p_suggested": zeros}
    result = Result(tmp_path, ["a\nb.png", "c d.png"], ["x", "y"], scores, "photos", tmp_path)
    assert write_cleaned(result, Thresholds(), {})["keep"] == 2
    assert (tmp_path / "cleaned.txt").read_text() == "c d.png 1\n"
    assert caplog.messages == ["cleaned.txt: left out 1 image whose name has a line's end"]
