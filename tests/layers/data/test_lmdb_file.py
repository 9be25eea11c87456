"""LMDB files: read as the LMDB library reads them, and never trusted."""

import os
import random
import struct
from pathlib import Path

import lmdb
import pytest

from imae.layers.data.lmdb_file import LmdbFile
from imae.prototxt_like.errors import InputError


def write(folder: Path, records: dict[bytes, bytes], *, transactions: int = 1) -> list[tuple[bytes, bytes]]:
    """Write an LMDB; return what the library reads from it."""
    with lmdb.open(str(folder), map_size=2**26) as database:
        items = list(records.items())
        for i in range(transactions):
            with database.begin(write=True) as transaction:
                for key, value in items[i::transactions]:
                    transaction.put(key, value)
        with database.begin() as transaction:
            return list(transaction.cursor())


@pytest.mark.parametrize(
    "records",
    [
        {b"only": b"one"},
        {b"%05d" % i: bytes([i % 256]) * (i % 40) for i in range(3000)},
        {b"%05d" % i: bytes([i % 256]) * (i % 7 * 1500) for i in range(400)},
        {b"%0200d" % i: b"long key" for i in range(2000)},
    ],
    ids=["one", "small values", "values of several pages", "three levels"],
)
@pytest.mark.parametrize("transactions", [1, 2, 3])
def test_records_are_those_the_library_reads(tmp_path: Path, records: dict[bytes, bytes], transactions: int) -> None:
    expected = write(tmp_path / "db", records, transactions=transactions)
    file = LmdbFile(tmp_path / "db")
    assert len(file) == len(records)
    assert [file[i] for i in range(len(file))] == expected


def test_changed_and_deleted_records_are_read_as_the_library_reads_them(tmp_path: Path) -> None:
    write(tmp_path / "db", {b"%05d" % i: b"old" * (i % 2000) for i in range(500)})
    with lmdb.open(str(tmp_path / "db"), map_size=2**26) as database:
        with database.begin(write=True) as transaction:
            for i in range(0, 500, 3):
                transaction.delete(b"%05d" % i)
            for i in range(1, 500, 3):
                transaction.put(b"%05d" % i, b"new" * (i % 1500))
        with database.begin() as transaction:
            expected = list(transaction.cursor())
    file = LmdbFile(tmp_path / "db")
    assert [file[i] for i in range(len(file))] == expected


@pytest.fixture
def intact(tmp_path: Path) -> bytes:
    """The bytes of an LMDB of 300 records, small ones and ones with pages of their own, in three levels."""
    records = {b"%0200d" % i: b"x" * (i % 3 * 2500) for i in range(300)}
    write(tmp_path / "intact", records, transactions=2)
    return (tmp_path / "intact/data.mdb").read_bytes()


def read_all(folder: Path, content: bytes) -> int:
    """Read every record of a data.mdb with this content; return how many there are."""
    folder.mkdir(exist_ok=True)
    path = folder / "data.mdb"
    path.write_bytes(content)
    file = LmdbFile(folder)
    return sum(len(file[i]) > 0 for i in range(len(file)))


def refuse(folder: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_all(folder, content)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, intact: bytes) -> None:
    assert read_all(tmp_path / "db", intact) == 300
    for size in [0, 1, 16, 100, 151, 4095, 4096, 4200, 8191, 8192, *range(9000, len(intact), 40_000)]:
        refuse(tmp_path / "db", intact[:size], "no LMDB" if not size else "the LMDB is damaged")


def test_a_file_that_is_no_lmdb_is_refused(tmp_path: Path, intact: bytes) -> None:
    for content in (bytes(50_000), b"text\n" * 10_000, bytes(range(256)) * 200, intact[:16] + b"\0" + intact[17:]):
        refuse(tmp_path / "db", content, "no LMDB file, or one of another version or kind of machine")


def test_pages_of_zeros_are_refused(tmp_path: Path, intact: bytes) -> None:
    refuse(tmp_path / "db", intact[:8192] + bytes(len(intact) - 8192), "page [0-9]+ is no (leaf|branch) of its tree")


def test_any_damage_is_an_error_or_harmless(tmp_path: Path, intact: bytes) -> None:
    """The library itself ends the process for some of these."""
    rng = random.Random(0)
    structure = [i for i in range(0, len(intact), 4096) if i < 8192 or intact[i + 10] in (1, 2)]
    refused = 0
    for _ in range(400):
        content = bytearray(intact)
        page = rng.choice(structure)
        for _ in range(rng.choice([1, 4, 64])):
            content[page + rng.randrange(rng.choice([32, 200, 4096]))] = rng.choice([0, 255, rng.randrange(256)])
        try:
            read_all(tmp_path / "db", bytes(content))
        except InputError:
            refused += 1
    assert refused > 50


def test_a_root_or_an_offset_far_away_is_refused(tmp_path: Path, intact: bytes) -> None:
    for root in (2**64 - 2, 2**48, len(intact) // 4096):
        content = bytearray(intact)
        for meta in (0, 4096):
            struct.pack_into("<Q", content, meta + 128, root)
        refuse(tmp_path / "db", bytes(content), f"page {root} is behind its end")


def test_missing_and_empty_databases_are_refused(tmp_path: Path) -> None:
    for name in ("none", "file", "folder"):
        folder = tmp_path / name
        if name == "file":
            folder.write_bytes(b"")
        elif name == "folder":
            folder.mkdir()
        with pytest.raises(InputError, match=rf"{name}: no LMDB, which is a folder with a file data.mdb: "):
            LmdbFile(folder)
    write(tmp_path / "empty", {})
    with pytest.raises(InputError, match=r"empty/data.mdb: the LMDB has no records"):
        LmdbFile(tmp_path / "empty")


def test_a_database_of_databases_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "db"), max_dbs=1) as database:
        database.open_db(b"inner")
    with pytest.raises(InputError, match="holds databases within the database"):
        LmdbFile(tmp_path / "db")


def test_a_file_cut_while_it_is_read_is_an_error_not_the_end_of_the_process(tmp_path: Path) -> None:
    expected = write(tmp_path / "db", {b"%05d" % i: bytes([i]) * 5000 for i in range(20)})
    file, path = LmdbFile(tmp_path / "db"), tmp_path / "db/data.mdb"
    size = path.stat().st_size
    os.truncate(path, 8 * 4096)
    found: list[object] = []
    for number in range(len(file)):
        try:
            found.append(file[number])
        except InputError as error:
            found.append(str(error))
    cut = f"{path}: was cut while it was read: it has 32768 bytes, and had {size} when it was opened"
    assert all(got in (record, cut) for got, record in zip(found, expected, strict=True))
    assert cut in found


def test_a_file_that_is_no_regular_one_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    os.mkfifo(tmp_path / "db/data.mdb")
    with pytest.raises(InputError, match=r"db: no LMDB.*data\.mdb is no file"):
        LmdbFile(tmp_path / "db")
