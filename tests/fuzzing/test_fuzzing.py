"""A small share of what `make fuzz` tries, and that the harness finds what is wrong."""

import os
import time
from pathlib import Path

import pytest

from fuzzing.formats import Format, all_formats
from fuzzing.mutations import damage_bytes
from fuzzing.trial import Finding, make_input, try_format, try_input
from imae.prototxt_like.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged images
SHARE = 40
"""Inputs of each format."""


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Format]:
    return all_formats(tmp_path_factory.mktemp("sound"))


def test_every_reader_gives_a_result_or_an_error_of_one_line(formats: dict[str, Format], tmp_path: Path) -> None:
    for name, format in formats.items():
        folder = tmp_path / name
        folder.mkdir()
        for number in range(SHARE):
            data = make_input(name, format, 7, number)
            assert try_input(format, data, folder / format.name) is None, f"{name}: input {number} of seed 7"


def test_the_inputs_are_sound_before_they_are_damaged(formats: dict[str, Format], tmp_path: Path) -> None:
    for name, format in formats.items():
        folder = tmp_path / name
        folder.mkdir()
        for data in format.seeds:
            (folder / format.name).write_bytes(data)
            try:
                format.read(folder / format.name)
            except InputError as error:
                assert name == "CIFAR-10 python", error  # of which only the published files are unpickled


def test_the_same_seed_gives_the_same_inputs(formats: dict[str, Format], tmp_path: Path) -> None:
    again = all_formats(tmp_path)
    for name in ("net prototxt", "caffemodel", "image", "metrics"):
        for number in range(5):
            data = make_input(name, formats[name], 1, number)
            assert data == make_input(name, again[name], 1, number)
            assert data != make_input(name, formats[name], 2, number)


def test_what_is_wrong_is_found_and_the_rest_is_tried_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzzing.trial.SECONDS", 0.5)

    def read(path: Path) -> object:
        match number.pop(0):
            case 0:
                raise KeyError("a bug")
            case 1:
                raise InputError("two\nlines")
            case 2:
                os._exit(3)
            case 3:
                since = time.process_time()
                while time.process_time() - since < 0.6:
                    pass
            case 4:
                return bytearray(b"x" * 2**26)
        raise InputError("one line")

    number = list(range(6))
    found = []
    for news in try_format("bad", Format([b"x"], [damage_bytes], read, memory=2**24), 1, range(6), tmp_path):
        assert isinstance(news, Finding)
        found.append(news)
        if "end of the process" in news.what:
            number[:] = [3, 4, 5]
    assert [finding.number for finding in found] == [0, 1, 2, 3, 4]
    assert [finding.what.split(":")[0] for finding in found[:3]] == [
        "KeyError",
        "an error of several lines",
        "the end of the process, status 3",
    ]
    assert " s" in found[3].what and "MiB" in found[4].what
