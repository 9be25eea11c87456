"""Each mistake gives one clear line and exit status 1, wrong usage exit status 2, and neither a traceback."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from imae.cli.messages import error_line
from imae.prototxt_like.schema import Datum

TRAIN = ("train", "--solver", "solver.prototxt", "--cpu")
Imae = Callable[..., Any]


def write_lmdb(folder: Path, labels: list[int]) -> None:
    with lmdb.open(str(folder), map_size=2**20) as database, database.begin(write=True) as transaction:
        for number, label in enumerate(labels):
            datum = Datum(channels=1, height=8, width=8, data=bytes(64), label=label)
            transaction.put(f"{number:05d}".encode(), datum.SerializeToString())


def read_from_lmdb(folder: Path, labels: list[int]) -> None:
    text = (folder / "net.prototxt").read_text()
    data = 'type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 backend: LMDB } }'
    before, _, after = text.partition('type: "DigitsData"')
    (folder / "net.prototxt").write_text(before + data + after[after.index("\nlayer") :])
    write_lmdb(folder / "db", labels)


def replace(folder: Path, old: str, new: str) -> None:
    text = (folder / "net.prototxt").read_text()
    assert old in text
    (folder / "net.prototxt").write_text(text.replace(old, new))


def assert_one_line(outcome: Any, *parts: str) -> None:
    assert outcome.status == 1
    errors = [line for line in outcome.err.splitlines() if line.startswith("imae: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in errors[0]


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("num_output: 16", "num_outputs: 16", ["net.prototxt:6", '"num_outputs"', 'did you mean "num_output"?']),
        ('"InnerProduct" bottom: "data"', '"InerProduct" bottom: "data"', ['"ip1"', '"InerProduct"', "InnerProduct"]),
        ('bottom: "data"', 'bottom: "dta"', ['"ip1"', '"dta"', 'did you mean "data"?']),
        ('bottom: "ip2" bottom: "label" top: "loss"', 'bottom: "ip2" bottom: "data" top: "loss"', ['"loss"']),
        ("noise_rate: 0.2", "noise_rate: 1.5", ['"data"', "noise_rate", "1.5"]),
    ],
    ids=["unknown field", "unknown layer type", "bottom nobody produces", "shapes that do not fit", "noise rate"],
)
def test_mistakes_in_the_net(imae: Imae, digits: Path, old: str, new: str, parts: list[str]) -> None:
    replace(digits, old, new)
    assert_one_line(imae(*TRAIN), *parts)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("train", "--solver", "missing.prototxt"), "missing.prototxt: cannot be read"),
        (("train", "--solver", "net.prototxt"), "net.prototxt:2"),
        ((*TRAIN, "--weights", "missing.caffemodel"), "missing.caffemodel: cannot be read"),
        ((*TRAIN, "--snapshot", "missing.solverstate"), "missing.solverstate: cannot be read"),
        ((*TRAIN, "--set", "base_rl=1"), 'did you mean "base_lr"?'),
        ((*TRAIN, "--set", "base_lr=fast"), "--set base_lr=fast"),
        (("test", "--model", "missing.prototxt", "--weights", "w"), "missing.prototxt: cannot be read"),
        (("test", "--model", "net.prototxt", "--weights", "missing"), "missing: cannot be read"),
        (("convert", "cifar10", "nowhere", "out"), "nowhere"),
        (("check-gradients", "missing.prototxt"), "missing.prototxt: cannot be read"),
        (("time", "--model", "missing.prototxt"), "missing.prototxt: cannot be read"),
    ],
)
def test_mistakes_on_the_command_line(imae: Imae, digits: Path, arguments: tuple[str, ...], part: str) -> None:
    assert_one_line(imae(*arguments), part)


def test_a_gpu_that_is_not_there(imae: Imae, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert_one_line(imae("train", "--solver", "solver.prototxt", "--gpu", "0"), "no GPU")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert_one_line(imae("train", "--solver", "solver.prototxt", "--set", "device_id=2"), "device_id 2", "2 GPUs")
    assert_one_line(imae("train", "--solver", "solver.prototxt", "--gpu", "2"), "2 GPUs", "numbered from 0")
    assert_one_line(imae("train", "--solver", "solver.prototxt", "--gpu", "all"), "one GPU")


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_truncated_caffemodel(imae: Imae, digits: Path, size: int) -> None:
    assert imae(*TRAIN, "--iterations", "1").status == 0
    model = digits / "out" / "digits_iter_1.caffemodel"
    model.write_bytes(model.read_bytes()[:size])
    assert_one_line(imae("test", "--model", "net.prototxt", "--weights", model), "digits_iter_1.caffemodel")


def test_weights_of_another_net(imae: Imae, digits: Path) -> None:
    assert imae(*TRAIN, "--iterations", "1").status == 0
    model = digits / "out" / "digits_iter_1.caffemodel"
    replace(digits, '"ip', '"other')
    assert_one_line(imae("test", "--model", "net.prototxt", "--weights", model), "digits_iter_1.caffemodel")
    outcome = imae(*TRAIN, "--iterations", "1", "--weights", model, "--prefix", "out/other")
    assert outcome.status == 0
    assert "imae: warning: " in outcome.err
    replace(digits, '"other', '"ip')
    replace(digits, "num_output: 16", "num_output: 17")
    assert_one_line(
        imae(*TRAIN, "--overwrite", "--weights", model), '"ip1"', "is 17x64", "digits_iter_1.caffemodel has 16x64"
    )


def test_an_lmdb_that_is_missing_empty_or_damaged(imae: Imae, digits: Path) -> None:
    read_from_lmdb(digits, [1, 2, 3])
    assert imae(*TRAIN, "--iterations", "1").status == 0
    database = digits / "db" / "data.mdb"
    whole = database.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], os.urandom(len(whole))):
        database.write_bytes(content)
        assert_one_line(imae(*TRAIN, "--overwrite"), '"data"', "db")
    database.unlink()
    assert_one_line(imae(*TRAIN, "--overwrite"), '"data"', "db")
    (digits / "db" / "lock.mdb").unlink()
    write_lmdb(digits / "db", [])
    assert_one_line(imae(*TRAIN, "--overwrite"), '"data"', "db", "no records")


def test_a_label_out_of_range(imae: Imae, digits: Path) -> None:
    read_from_lmdb(digits, [1, 12, 3])
    assert_one_line(imae(*TRAIN), "label 12", "out of range")


def test_a_solver_without_an_end(imae: Imae, digits: Path) -> None:
    solver = digits / "solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 60", ""))
    assert_one_line(imae(*TRAIN), "solver.prototxt", "max_iter")


def test_an_output_folder_that_cannot_be_written(imae: Imae, digits: Path) -> None:
    (digits / "file").write_text("")
    assert_one_line(imae(*TRAIN, "--prefix", "file/sub/run"), "file/sub")
    assert_one_line(imae(*TRAIN, "--prefix", "file/run"), "file")


@pytest.mark.parametrize(
    "arguments",
    [
        (*TRAIN, "--snapshot", "a", "--weights", "b"),
        (*TRAIN, "--snapshot", "a", "--resume"),
        (*TRAIN, "--gpu", "0"),
        ("train", "--solver", "solver.prototxt", "--gpu", "first"),
        (*TRAIN, "--set", "base_lr"),
        (*TRAIN, "--sigint_effect", "explode"),
        ("train",),
        ("test", "--model", "net.prototxt"),
        ("trian",),
    ],
)
def test_wrong_usage(imae: Imae, digits: Path, arguments: tuple[str, ...]) -> None:
    outcome = imae(*arguments)
    assert outcome.status == 2
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "x.log"), "x.log: No space left on device"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (RuntimeError("a bug"), None),
    ],
)
def test_the_machines_limits_get_a_line_and_bugs_a_traceback(error: Exception, line: str | None) -> None:
    assert error_line(error) == line


def test_the_gpus_memory_gets_a_line() -> None:
    import torch

    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 EiB. GPU 0 has\n a capacity of 2 GiB.")
    assert error_line(error) == ("CUDA out of memory. Tried to allocate 8.00 EiB")
