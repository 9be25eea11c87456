"""`imae audit`, from what the user has to the folder of results."""

import csv
import errno
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from imae.audit import backbones, features_of_images, label_issues, pixel_net, run
from imae.audit.backbone_features import BackboneFeatures
from imae.audit.result import SUMMARY, read_result
from imae.audit.samples import Samples, read_samples
from imae.cli import main
from imae.cli.progress import Display
from imae.layers.data.image_list import read_image_list
from imae.layers.data.label_noise import corrupt
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.number_file import new_map

Command = Callable[..., tuple[int, str, str]]
CAFFE = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "flat" type: "Flatten" bottom: "data" top: "flat" }
layer { name: "fc" type: "InnerProduct" bottom: "flat" top: "fc" inner_product_param { num_output: 2 } }
"""


@pytest.fixture
def imae(capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return command


def test_labels_that_are_right(imae: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_issues, "ITERATIONS", 60)
    label = np.arange(60) % 2
    np.savez(tmp_path / "t.npz", x=10.0 * label[:, None] + np.random.default_rng(0).normal(size=(60, 2)), y=label)
    code, out, _ = imae("audit", f"{tmp_path}/t.npz:x", "--label", "y", "--output", tmp_path / "out", "--folds", 0)
    assert code == 0 and "None is so suspicious that it should be looked at\n" in out and "--top 20" in out
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["issues"] == 0
    assert rows(tmp_path / "out" / "suspects.csv") == []
    assert {row["action"] for row in rows(tmp_path / "out" / "cleaned.csv")} == {"keep"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_features_from_a_file_to_cleaned_labels(imae: Command, tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    noisy = corrupt(labels, 10, "SYMMETRIC", 0.3, seed=1)
    names = np.array([f"=digit{i}" for i in range(10)])  # each would be a formula
    images[:, 1] += 2.0**20  # of which a sum of rounded products would leave nothing
    images[0, 2] = 1e6  # beyond where values are cut off
    np.save(tmp_path / "x.npy", images)
    (tmp_path / "y.txt").write_text("\n".join(names[noisy]))
    out = tmp_path / "out"
    arguments = ["audit", tmp_path / "x.npy", "--label", tmp_path / "y.txt", "-o", out, "--parameter", 8, "--folds", 0]
    status, said, err = imae(*arguments, "--relabel-above", 0.9, "--drop-above", 0.5)
    assert status == 0 and "Picked: IMAE, T = 8" in said and f"imae review {out}" in said, err
    scores, summary = read_result(out)[0].scores, json.loads((out / SUMMARY).read_text())
    wrong = noisy != labels
    assert roc_auc_score(wrong, scores["score"]) > 0.99
    assert summary["noise_rate"]["value"] == pytest.approx(wrong.mean(), abs=0.04)
    suspects = rows(out / "suspects.csv")
    assert len(suspects) == summary["issues"] and suspects[0]["label"].startswith("'=digit")
    cleaned = rows(out / "cleaned.csv")
    assert {row["action"]: 0 for row in cleaned}.keys() == {"keep", "relabel", "drop"}
    assert all(bool(row["reason"]) == (row["action"] != "keep") for row in cleaned)
    kept = [(row["label"], names[labels[int(row["index"])]]) for row in cleaned if row["action"] != "drop"]
    assert np.mean([given == f"'{true}" for given, true in kept]) > 0.97
    assert not (out / "cleaned.txt").exists()
    session = onnxruntime.InferenceSession(str(out / "head.onnx"), providers=["CPUExecutionProvider"])
    (p,) = session.run(None, {"data": images.astype(np.float32)})
    assert (p.argmax(1) == labels).mean() > 0.93
    np.testing.assert_allclose(p, softmax(scores["logits"], 1), atol=1e-3)
    assert (out / "classes.txt").read_text().split() == names.tolist()
    status, _, err = imae(*arguments)
    assert (status, err) == (
        1,
        f"imae: error: {out}: has an audit already: --resume goes on with it, --output names another\n",
    )


def bomb() -> bytes:
    """A small PNG that says it is 60,000 x 60,000."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pieces = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in pieces]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """300 digits, 0 to 2, a tenth of them in the wrong subfolder; a bomb, and a file that is no image."""
    images, labels = load_digits(n_class=3, return_X_y=True)
    noisy = corrupt(labels, 3, "SYMMETRIC_EXCLUSIVE", 0.1, seed=1)
    for i in range(300):
        path = tmp_path / "images" / f"class {noisy[i]}" / f"{i:03}-is-{labels[i]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[i].reshape(8, 8) * 15).astype(np.uint8)).save(path)
    path.rename(path.with_name(f"\udcff\x1b[2J-is-{labels[i]}.png"))  # in no encoding, and a terminal would obey it
    (path.parent / "bomb.png").write_bytes(bomb())
    (path.parent / "text.png").write_text("no image")
    return tmp_path / "images"


def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the heads for a moment, where it does not matter what they find."""
    monkeypatch.setattr(label_issues, "ITERATIONS", 20)


def found(out: Path) -> float:
    """The area under the curve, of images whose names tell the truth."""
    names = (out / "names.txt").read_text(errors="surrogateescape").splitlines()
    wrong = [name[6] != name[-5] for name in names]
    return float(roc_auc_score(wrong, read_result(out)[0].scores["score"]))


def test_a_folder_of_images_by_a_net_on_the_pixels(
    imae: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_net, "ITERATIONS", 40)
    monkeypatch.setattr(label_issues, "ITERATIONS", 100)
    monkeypatch.setattr(pixel_net, "EPOCHS", 1)
    out = tmp_path / "out"
    status, said, err = imae("audit", folder, "-o", out, "--drop-above", 0.5)
    assert status == 0, err
    assert found(out) > 0.97
    assert "2 x unreadable image" in said and "\x1b" not in said
    unreadable = {row["name"].rpartition("/")[2]: row["why"] for row in rows(out / "unreadable.csv")}
    assert "far more than 67,108,864 pixels" in unreadable["bomb.png"] and "no image" in unreadable["text.png"]
    listed = read_image_list(out / "cleaned.txt")
    dropped = sum(row["action"] == "drop" for row in rows(out / "cleaned.csv"))
    assert len(listed.names) == 300 - dropped < 300
    assert all((folder / name).exists() for name in listed.names)
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "bomb.png" in page
    session = onnxruntime.InferenceSession(str(out / "net.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]


def test_a_backbone_an_interrupt_and_going_on(
    imae: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from imae.nets.net import Net
    from imae.prototxt_like.text import parse_net

    (tmp_path / "deploy.prototxt").write_text(CAFFE)
    Net(parse_net(CAFFE)).write_weights(tmp_path / "tiny.caffemodel")
    out = tmp_path / "out"
    backbone = f"{tmp_path}/deploy.prototxt,{tmp_path}/tiny.caffemodel"
    arguments = ["audit", folder, "--backbone", backbone, "-o", out, "--parameter", 8]
    calls: list[int] = []
    whole = backbones.Backbone.__call__

    def interrupted(self: backbones.Backbone, images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, images)

    monkeypatch.setattr(backbones.Backbone, "__call__", interrupted)
    brief(monkeypatch)
    status, said, err = imae(*arguments)
    assert status == 130 and "stopped after 192 of 302 images" in err and "--resume goes on" in said
    assert "was stopped early" in (out / "report.html").read_text()
    assert json.loads((out / SUMMARY).read_text())["stopped"] and 150 < len(read_result(out)[0].scores["label"]) <= 192
    assert imae(*arguments)[0] == 1
    assert imae(*arguments, "--resume")[0] == 0
    assert sum(calls[4:]) == 302 - 192, "what is done is not done again"
    assert len(read_result(out)[0].scores["label"]) == 300 and not json.loads((out / SUMMARY).read_text())["stopped"]

    def done() -> int:
        return BackboneFeatures(out, read_samples(str(folder)), backbones.open_backbone(backbone)).done

    assert done() == 302
    changed = next(folder.rglob("*-is-0.png"))
    changed.write_bytes(changed.read_bytes() + b" ")
    assert done() == 0 and "is of other images or another backbone: all are read anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "options", "device"), [(True, (), "cuda"), (True, ("--cpu",), "cpu"), (False, (), "cpu")]
)
def test_features_are_made_on_a_gpu_where_there_is_one(
    there: bool, options: tuple[str, ...], device: str, imae: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str, device: str) -> None:
        raise InputError(f"{name} on {device}")

    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(features_of_images, "open_backbone", opened)
    status, _, err = imae("audit", "digits", "--backbone", "n.onnx", "-o", tmp_path / "out", *options)
    assert status == 1 and f"n.onnx on {device}" in err
    assert ("Some GPU" in err) == (device == "cuda")


@pytest.mark.parametrize("file", [False, True])
def test_a_backbone_takes_images_as_the_data_layer_has_them_that_it_was_trained_by(file: bool, tmp_path: Path) -> None:
    from imae.nets.net import Net
    from imae.prototxt_like.mean_file import write_mean
    from imae.prototxt_like.text import parse_net

    mean = np.arange(300, dtype=np.float32).reshape(3, 10, 10)
    write_mean(mean, tmp_path / "mean.binaryproto")
    model, weights = tmp_path / "train_val.prototxt", tmp_path / "tiny.caffemodel"
    own = 'mean_file: "mean.binaryproto"' if file else "mean_value: 1 mean_value: 2 mean_value: 3"
    trained = f"""
    layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "gone" batch_size: 9 }}
             transform_param {{ {own} crop_size: 8 scale: 0.5 }} }}
    {"".join(CAFFE.splitlines()[3:])}
    layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" }}"""
    model.write_text(trained)
    Net(parse_net(CAFFE)).write_weights(weights)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    backbone = backbones.open_backbone(f"{model},{weights}")
    assert backbone.size == (8, 8)
    less = mean[:, 1:9, 1:9] if file else np.array([1, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_allclose(backbone(images), ((images - less) * 0.5).reshape(4, -1), rtol=1e-6)
    model.write_text(trained.replace('"Data"', '"HDF5Data"').replace("crop_size: 8", ""))
    with pytest.raises(InputError, match="of a HDF5Data layer, expected one of Data, ImageData"):
        backbones.open_backbone(f"{model},{weights}")
    if not file:
        model.write_text(trained.replace("crop_size: 8", ""))
        with pytest.raises(InputError, match="says how large images are"):
            backbones.open_backbone(f"{model},{weights}")


def test_a_disk_without_room_for_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match=r"x\.npy: cannot be written: No space left on device"):
        new_map(tmp_path / "x.npy", (2, 3), np.dtype(np.float32))
    assert not (tmp_path / "x.npy").exists()


def test_a_folder_that_changes_while_it_is_read(
    imae: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, swapped, *_ = folder.rglob("*-is-0.png")

    def listed(*arguments: object, **options: object) -> Samples:
        samples = read_samples(*arguments, **options)  # type: ignore[arg-type]
        gone.unlink()
        swapped.rename(tmp_path / "outside.png")
        swapped.symlink_to(tmp_path / "outside.png")
        return samples

    monkeypatch.setattr(run, "read_samples", listed)
    monkeypatch.setattr(pixel_net, "ITERATIONS", 4)
    brief(monkeypatch)
    monkeypatch.setattr(pixel_net, "EPOCHS", 1)
    assert imae("audit", folder, "-o", tmp_path / "out", "--parameter", 8)[0] == 0
    reasons = {row["name"].rpartition("/")[2]: row["why"] for row in rows(tmp_path / "out" / "unreadable.csv")}
    assert "No such file" in reasons[gone.name] and "lies outside" in reasons[swapped.name]


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("net.pt", "--backbone takes FILE.onnx, deploy.prototxt,FILE.caffemodel or torchvision:NAME, not 'net.pt'"),
        ("missing.prototxt,tiny.caffemodel", "tiny.caffemodel: cannot be read: No such file or directory"),
        ("missing.onnx", "missing.onnx: cannot be read: No such file or directory"),
        pytest.param("torchvision:resnet51", "torchvision has no model 'resnet51'", marks=pytest.mark.slow),
    ],
)
def test_backbones_that_are_none(
    backbone: str,
    message: str,
    imae: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = imae("audit", "digits", "--backbone", backbone)
    assert status == 1 and err.splitlines()[-1].startswith(f"imae: error: {message}")


@pytest.mark.slow
def test_torchvisions_weights_where_there_is_no_network(
    imae: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    monkeypatch.chdir(tmp_path)
    status, _, err = imae("audit", "digits", "--backbone", "torchvision:resnet18")
    assert status == 1 and "the weights of torchvision's resnet18 are not in" in err and "no network" in err


@pytest.mark.slow
def test_torchvisions_weights_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken where their hash is the one in their name."""
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    net = torchvision.models.resnet18().eval()
    torch.save(net.state_dict(), path)
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth: has the SHA-256 .*, not that in its name"):
        backbones.open_backbone("torchvision:resnet18")
    published = torchvision.models.ResNet18_Weights.DEFAULT.value
    path = path.rename(path.with_name(f"resnet18-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"))
    monkeypatch.setitem(published.__dict__, "url", f"https://none/{path.name}")
    backbone = backbones.open_backbone("torchvision:resnet18")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *backbone.size), np.uint8)
    net.fc = torch.nn.Identity()
    mean, deviation = (torch.tensor(values)[:, None, None] for values in backbones.IMAGENET)
    expected = net((torch.from_numpy(images[:, ::-1] / np.float32(255)) - mean) / deviation)
    np.testing.assert_allclose(backbone(images), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    path.write_bytes(b"PK")
    cut = path.rename(path.with_name(f"resnet18-{hashlib.sha256(b'PK').hexdigest()[:8]}.pth"))
    monkeypatch.setitem(published.__dict__, "url", f"https://none/{cut.name}")
    with pytest.raises(InputError, match=rf"{cut.name}: does not hold the weights of torchvision's resnet18"):
        backbones.open_backbone("torchvision:resnet18")


def test_weights_whose_hash_is_not_the_one_in_their_name(tmp_path: Path) -> None:
    path = tmp_path / f"a-b-{hashlib.sha256(b'whole').hexdigest()[:8]}.pth"
    path.write_bytes(b"whole")
    assert backbones.checked_digest(path) == hashlib.sha256(b"whole").hexdigest()
    path.write_bytes(b"whol")
    with pytest.raises(InputError, match=rf"^{path}: has the SHA-256 [0-9a-f]{{8}}\.\.\., not that in its name"):
        backbones.checked_digest(path)


@pytest.mark.parametrize(
    ("node", "kind", "message"),
    [
        (("ReduceMean", {"keepdims": 0}), np.float32, "gives no features: "),
        (("Flatten", {}), np.uint8, "gives no features: "),
    ],
)
def test_a_model_that_gives_no_features(
    node: tuple[str, dict[str, int]], kind: type, message: str, tmp_path: Path
) -> None:
    import onnx
    from onnx import helper

    values = (
        helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), ("N", 3, 8, 8)),
        helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None),
    )
    graph = helper.make_graph([helper.make_node(node[0], ["x"], ["y"], **node[1])], "g", values[:1], values[1:])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InputError) as error:
        backbones.open_backbone(str(path))(np.zeros((2, 3, 8, 8), np.uint8))
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


@pytest.mark.slow
def test_a_net_on_the_pixels_that_is_interrupted_goes_on(
    imae: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def advance(self: Display, what: str, done: int, total: int) -> None:
        if what == "training":
            seen.append(done)
            if len(seen) == 6:
                raise KeyboardInterrupt

    monkeypatch.setattr(Display, "advance", advance)
    monkeypatch.setattr(pixel_net, "ITERATIONS", 10)
    brief(monkeypatch)
    monkeypatch.setattr(pixel_net, "EPOCHS", 1)
    out = tmp_path / "out"
    status, said, err = imae("audit", folder, "-o", out, "--parameter", 8)
    assert len(list(out.glob("pixels_iter_*"))) == 2  # weights and state
    assert status == 130 and "stopped after 6 of 10 iterations" in err and "--resume goes on" in said
    assert json.loads((out / SUMMARY).read_text())["stopped"] and (out / "net.onnx").exists()
    assert imae("audit", folder, "-o", out, "--parameter", 8, "--resume")[0] == 0
    assert seen[6:] == list(range(7, 11))
    status, _, err = imae("audit", folder, "-o", out, "--parameter", 8, "--resume", "--seed", 1)
    assert status == 0 and "has snapshots of other images, labels or settings: the net is trained anew" in err
    assert seen[10:] == list(range(1, 11))
    assert not json.loads((out / SUMMARY).read_text())["stopped"]
