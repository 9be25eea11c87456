"""Labels and matrices from files: the published forms are read, nothing is run, nothing huge expanded."""

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imae.layers.data.label_noise import load_labels, load_matrix
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.number_file import map_numbers

LABELS = np.arange(20) % 10
SETS = {"clean_label": LABELS, "worse_label": (LABELS + 3) % 10, "random_label1": np.roll(LABELS, 1)}


def published_pt(path: Path, **options: Any) -> None:
    torch.save(SETS, path, **options)


def as_numpy_1_wrote_it(path: Path) -> None:
    torch.save(SETS, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def published_npy(path: Path) -> None:
    np.save(path, SETS)  # type: ignore[arg-type]


FORMS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "pt": ("CIFAR-10_human.pt", published_pt),
    "pt of NumPy 1": ("CIFAR-10_human.pt", as_numpy_1_wrote_it),
    "pt before zip files": (
        "CIFAR-10_human.pt",
        lambda path: published_pt(path, _use_new_zipfile_serialization=False),
    ),
    "pt, protocol 4": ("labels.pth", lambda path: published_pt(path, pickle_protocol=4)),
    "pt, protocol 5": ("labels.pt", lambda path: published_pt(path, pickle_protocol=5)),
    "npy": ("CIFAR-10_human_ordered.npy", published_npy),
    "npz": ("labels.npz", lambda path: np.savez_compressed(path, **SETS)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_published_forms_of_label_sets_are_read(tmp_path: Path, form: str) -> None:
    name, write = FORMS[form]
    path = tmp_path / name
    write(path)
    for key, labels in SETS.items():
        np.testing.assert_array_equal(load_labels(f"{path}:{key}", 20, 10, intact=LABELS), labels)
    for wrong, missing in ((path, ""), (f"{path}:worst_label", 'has no array "worst_label", ')):
        with pytest.raises(
            InputError, match=f"{name}: {missing}write .*{name}:KEY with one of its arrays, clean_label, worse"
        ):
            load_labels(wrong, 20, 10)


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_another_order_than_the_images_are_refused(tmp_path: Path, form: str) -> None:
    name, write = FORMS[form]
    write(tmp_path / name)
    message = f"{name}: clean_label differs from the labels of the data for 20 of 20 images.* in another order"
    with pytest.raises(InputError, match=message):
        load_labels(f"{tmp_path / name}:worse_label", 20, 10, intact=np.roll(LABELS, 1))


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    torch.save({"worse_label": Trap(trap)}, tmp_path / "zip.pt")
    torch.save({"worse_label": Trap(trap)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.save(tmp_path / "dict.npy", {"worse_label": Trap(trap)})  # type: ignore[arg-type]
    for name in ("zip.pt", "old.pt", "dict.npy"):
        with pytest.raises(InputError, match=rf"{name}:worse_label: .* a posix\.mkdir; only dictionaries of NumPy"):
            load_labels(f"{tmp_path / name}:worse_label", 20, 10)
    assert not trap.exists()


def save_tensor(path: Path) -> None:
    torch.save({"worse_label": torch.tensor(LABELS)}, path)


def save_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(SETS))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (save_tensor, "a torch.*: save it as a NumPy array"),
        (save_pickle, "not written by torch.save"),
        (lambda path: path.write_bytes(b""), "holds no array of numbers"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "holds no array of numbers"),
        (lambda path: torch.save(LABELS, path), "is one array, which takes no :worse_label"),
        (lambda path: torch.save({"worse_label": ["a"]}, path), "holds no array of numbers: a Python list"),
        (lambda path: torch.save({"worse_label": LABELS.astype(complex)}, path), "the type 'c16'"),
    ],
)
def test_what_is_no_label_set_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "x.pt")
    with pytest.raises(InputError, match=message) as error:
        load_labels(f"{tmp_path / 'x.pt'}:worse_label", 20, 10)
    assert str(tmp_path / "x.pt") in str(error.value) and "\n" not in str(error.value)


def test_a_key_of_a_file_without_arrays_is_not_told_as_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1\n")
    with pytest.raises(InputError, match=r"labels\.txt:worse_label: only of \.npz, .* chosen by FILE:KEY"):
        load_labels(tmp_path / "labels.txt:worse_label", 1, 10)


@pytest.mark.parametrize("name", ["big.npz:x", "big.npy"])
def test_a_file_that_claims_or_expands_to_gigabytes_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**27,)})
    if name == "big.npy":
        (tmp_path / name).write_bytes(header.getvalue())
    else:
        with zipfile.ZipFile(tmp_path / "big.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("x.npy", header.getvalue() + bytes(2**24))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"shape \(134217728,\), expected 20 labels"):
        load_labels(tmp_path / name, 20, 10)
    with pytest.raises(InputError, match=r"shape \(134217728,\), expected a matrix"):
        load_matrix(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_text_repeated_by_reference_is_not_expanded(tmp_path: Path) -> None:
    """In a pickle five bytes can ask for a megabyte once more."""
    text = b"x" * 2**20
    once = b"c_codecs\nencode\n(X" + len(text).to_bytes(4, "little") + text + b"q\x00X\x06\x00\x00\x00latin1q\x01tR"
    again = b"c_codecs\nencode\n(h\x00h\x01tR"
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02(" + once + again * 1000 + b"l.")
    with pytest.raises(InputError, match="no array as NumPy pickles it"):
        load_labels(tmp_path / "x.pt:a", 20, 10)


def large_header() -> bytes:
    return b"\x93NUMPY\x02\x00" + (2**26).to_bytes(4, "little") + b" " * 2**26


def objects() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    return file.getvalue() + b" " * 2**26


def other_shape() -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**23,)})
    return file.getvalue() + bytes(2**26)


@pytest.mark.parametrize("content", [large_header, objects, other_shape])
def test_a_small_npz_is_not_expanded_to_what_no_label_needs(content: Callable[[], bytes], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", content())
    assert (tmp_path / "bomb.npz").stat().st_size < 2**17
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bomb\.npz"):
        load_labels(f"{tmp_path}/bomb.npz:labels", 20, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("shape", [(2**40, 2**40, 0), (-1,), (2**63,), (1,) * 65])
def test_a_shape_that_no_array_can_have_is_an_error(shape: tuple[int, ...], tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    (tmp_path / "labels.npy").write_bytes(file.getvalue() + bytes(4))
    for read in (lambda path: load_labels(path, 20, 10), map_numbers):
        with pytest.raises(InputError, match=r"labels\.npy: holds"):
            read(tmp_path / "labels.npy")


def test_a_map_of_a_file_is_its_array(tmp_path: Path) -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((3, 2), np.float32)), np.zeros((0, 4))):
        np.save(tmp_path / "array.npy", array)
        found = map_numbers(tmp_path / "array.npy")
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no array of numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "holds no array of numbers"),
        (b"\x93NUMPY\x09\x00\x10\x00{", "holds no array of numbers"),
        (b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"(" * 9000, "holds no array of numbers"),
    ],
)
def test_a_header_that_is_none_is_an_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "array.npy").write_bytes(content)
    with pytest.raises(InputError, match=message):
        map_numbers(tmp_path / "array.npy")


def test_a_map_of_no_numbers_or_of_a_cut_file_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(InputError, match=r"text\.npy: holds <U1 values, expected numbers"):
        map_numbers(tmp_path / "text.npy")
    np.save(tmp_path / "whole.npy", np.ones((10, 10)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="799 bytes for an array of shape"):
        map_numbers(tmp_path / "cut.npy")
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(InputError, match="is a named pipe"):
        map_numbers(tmp_path / "pipe.npy")


@pytest.mark.parametrize("claim", [b"r\xff\xff\xff\x7f", b"p4294967295\n", b"\x95" + b"\xff" * 5 + bytes(3)])
def test_a_pickle_that_claims_room_for_more_than_it_has_is_an_error_at_once(claim: bytes, tmp_path: Path) -> None:
    for rest in (b"", pickle.dumps(SETS, 2)[2:-1]):
        (tmp_path / "labels.pt").write_bytes(b"\x80\x04N" + claim + rest + b".")
        with pytest.raises(InputError, match=r"labels\.pt:clean_label: holds no array of numbers: \w+ \d+ in a pickle"):
            load_labels(f"{tmp_path}/labels.pt:clean_label", 20, 10)
