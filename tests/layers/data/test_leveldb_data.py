"""Data from a LevelDB, Caffe's default backend: the same layer as over an LMDB."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch

from imae.layers.data import leveldb_file
from imae.layers.layer import TEST
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import Datum

Make = Callable[..., Any]
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 6, 8), np.uint8)
DATA = 'type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 rand_skip: 3 }'
CROPPED = f"{DATA} transform_param {{ crop_size: 4 mirror: true scale: 0.5 }}"
RECORDS = [
    (b"%08d" % i, Datum(channels=3, height=6, width=8, label=i, data=image.tobytes()).SerializeToString())
    for i, image in enumerate(IMAGES)
]


def library() -> Any:
    try:
        return leveldb_file._library(Path())
    except InputError as error:
        pytest.skip(f"without LevelDB: {error}")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A LevelDB whose records lie in a sorted table, and one more in its log."""
    folder = tmp_path / "db"
    database = library().DB(str(folder), create_if_missing=True)
    for key, value in reversed(RECORDS[:-1]):
        database.put(key, value)
    database.compact_range()
    database.put(*RECORDS[-1])
    database.close()
    return folder


def test_it_gives_what_an_lmdb_of_the_same_records_gives(make: Make, database: Path) -> None:
    with lmdb.open(str(database.with_name("lm")), map_size=2**24) as other, other.begin(write=True) as transaction:
        for record in RECORDS:
            transaction.put(*record)
    for text in (DATA, CROPPED):
        layer, shapes = make(text, TEST)
        expected, expected_shapes = make(text.replace('"db"', '"lm" backend: LMDB'), TEST)
        assert shapes == expected_shapes
        assert layer.num_images == expected.num_images == 10
        for number in (0, 2, 7, 10**6):
            for top, other_top in zip(layer.batch(number), expected.batch(number), strict=True):
                assert torch.equal(top, other_top)
    assert sorted(make(DATA, TEST)[0].batch(0)[1].tolist()) != [0, 0, 0, 0]


def test_layers_share_a_database(make: Make, database: Path) -> None:
    one, other = make(DATA)[0], make(f"{DATA} phase: TEST")[0]
    assert torch.equal(one.batch(3)[0], other.batch(3)[0])
    del one
    assert other.batch(0)[1].shape == (4,)
    del other
    library().DB(str(database)).close()  # which fails while another has it open


def test_one_that_another_process_reads_is_named(make: Make, database: Path) -> None:
    holding = library().DB(str(database))
    with pytest.raises(InputError, match=r"^layer .*db: another process has this LevelDB open, which allows one alone"):
        make(DATA)
    holding.close()
    make(DATA)


@pytest.mark.parametrize("name", ["MANIFEST-*", "*.log"])
def test_a_cut_log_is_named_before_records_are_left_out(make: Make, database: Path, name: str) -> None:
    """LevelDB takes what is before the cut, and removes tables that only what is behind it names."""
    (file,) = database.glob(name)
    sound = file.read_bytes()
    for size in (len(sound) - 1, len(sound) // 2, 3):
        file.write_bytes(sound[:size])
        with pytest.raises(InputError, match=rf"db: the LevelDB is damaged: {file.name} is cut short$"):
            make(DATA)
        assert list(database.glob("*.ldb"))
    file.write_bytes(sound)
    assert make(DATA)[0].num_images == 10


@pytest.mark.parametrize("part", ["half", "hole", "nothing", "CURRENT", "MANIFEST*"])
def test_damage_is_named(make: Make, database: Path, part: str) -> None:
    (file,) = database.glob("*.ldb" if part in ("half", "hole", "nothing") else part)
    sound = file.read_bytes()
    damaged = {"half": sound[: len(sound) // 2], "hole": sound[:100] + bytes(50) + sound[150:], "nothing": b""}
    file.write_bytes(damaged.get(part, b"\x01 no such thing"))
    with pytest.raises(InputError, match=r'^layer "data" \(Data\): .*db: the LevelDB is damaged') as error:
        make(DATA)[0].batch(1)
    assert "\n" not in str(error.value)


def test_an_empty_one_is_named(make: Make, tmp_path: Path) -> None:
    library().DB(str(tmp_path / "db"), create_if_missing=True).close()
    with pytest.raises(InputError, match=r"db: the LevelDB has no records$"):
        make(DATA)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_without_one_is_named_and_stays_as_it_is(make: Make, tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / "db").mkdir()
    with pytest.raises(InputError, match=r"db: no LevelDB, which is a folder with a file CURRENT$"):
        make(DATA)
    assert (tmp_path / "db").exists() == is_there
    assert not is_there or not any((tmp_path / "db").iterdir())


def test_without_the_library_it_is_told_what_to_install(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "CURRENT").write_text("MANIFEST-000001\n")
    for name in leveldb_file._LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"db is a LevelDB, for which plyvel is needed: pip install 'imae\[leveldb\]'"):
        make(DATA)
