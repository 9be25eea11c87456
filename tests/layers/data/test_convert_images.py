"""`imae convert images`: the LMDB that Caffe's convert_imageset makes of the same files."""

from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from imae.audit.samples import read_samples
from imae.layers.data import convert_images as converting
from imae.layers.data.convert_images import Stored, convert_images
from imae.layers.data.image_decode import decode_image
from imae.layers.data.image_list import read_image
from imae.layers.data.image_sources import find_images, read_source
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import Datum

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8)
NAMES = ["cat/a b.png", "cat/c.png", "dog/sub/d.png", "dog/é.png", "owl/e.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    (root / "cat" / "Thumbs.db").write_bytes(b"no image")
    (root / "unused").mkdir()
    return root


def records(folder: Path) -> list[tuple[str, bytes]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:
        return [(key.decode(), value) for key, value in transaction.cursor()]


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_a_folder_becomes_caffes_records_and_a_list_of_its_classes(folder: Path, tmp_path: Path) -> None:
    """Byte by byte as CVMatToDatum leaves a Datum: channels, height, width, data, label, and encoded: false."""
    out = tmp_path / "new" / "lmdb"
    assert convert_images(read_source(folder), out, Stored()) == []
    assert (out / "classes.txt").read_text() == "cat\ndog\nowl\nunused\n"
    data = [pixels[:, :, ::-1].transpose(2, 0, 1).tobytes() for pixels in PIXELS]
    assert records(out) == [
        (
            f"{i:08d}_{NAMES[i]}",
            b"\x08\x03\x10\x06\x18\x08\x22"
            + varint(144)
            + data[i]
            + b"\x28"
            + bytes([[0, 0, 1, 1, 2][i]])
            + b"\x38\x00",
        )
        for i, label in enumerate([0, 0, 1, 1, 2])
    ]
    assert [entry.name for entry in out.parent.iterdir()] == ["lmdb"]


@pytest.mark.filterwarnings("error")
def test_links_that_lead_nowhere_or_in_a_circle_are_no_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, target in (("cat/round.png", "round.png"), ("cat/gone.png", "nowhere"), ("cow", "cow")):
        (folder / name).symlink_to(target)
    for name in ("cat/up", "dog/up", "dog/sub/up"):  # along which there are as many ways as 3 ** 40
        (folder / name).symlink_to(folder)
    (folder / "dog" / ".hidden").mkdir()
    (folder / "dog" / ".hidden" / "f.png").touch()
    images = read_source(folder)
    assert images.images.names == NAMES and images.classes == ["cat", "dog", "owl", "unused"]
    found = [folder / name for name in NAMES]
    assert find_images(str(folder)) == find_images(f"{folder}/**/*.png") == found
    monkeypatch.chdir(folder)
    assert find_images("**/*.png") == [Path(name) for name in NAMES]
    assert find_images("dog/**") == find_images("d*/**/**/?.png") == [Path(name) for name in NAMES[2:4]]
    with pytest.raises(InputError, match=r"^dog/\*\*\.gif: matches no image$"):
        find_images("dog/**.gif")


def test_folders_have_the_same_images_to_all_that_read_them(folder: Path) -> None:
    for name in ("owl/photo.HEIC", "owl/photo.jp2", "owl/features.h5", "owl/._photo.jpg", "owl/notes.txt"):
        (folder / name).touch()
    names = sorted([*NAMES, "owl/photo.HEIC", "owl/photo.jp2"])
    assert [path.relative_to(folder).as_posix() for path in find_images(str(folder))] == names
    assert read_source(folder).images.names == names
    assert read_samples(str(folder)).names == names


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("list.txt", "cat/a b.png 3\n\ndog/é.png -1\n", ""),
        ("t.csv", "cat/a b.png,3\ndog/é.png,-1\n", ""),
        ("t.csv", "id,Label,path\n7,3,cat/a b.png\n8,-1,dog/é.png\n", ""),
        ("t.csv", "\ufefflabel;path\r\n3.0;cat/a b.png\r\n-1.0;dog/é.png\r\n", ""),
        ("t.tsv", "cat/a b.png\tZebra\ndog/é.png\tant\n", "Zebra\nant\n"),
        ("t.csv", 'image,class\n"cat/a b.png","b, c"\r\ndog/é.png,d\n', "b, c\nd\n"),
    ],
)
def test_lists_and_tables_name_images_and_labels(
    folder: Path, tmp_path: Path, name: str, text: str, classes: str
) -> None:
    (folder / name).write_text(text)
    convert_images(read_source(folder / name), tmp_path / "out", Stored())
    found = records(tmp_path / "out")
    assert [key for key, _ in found] == ["00000000_cat/a b.png", "00000001_dog/é.png"]
    labels = [Datum.FromString(value).label for _, value in found]
    assert labels == ([0, 1] if classes else [3, -1])
    listed = tmp_path / "out" / "classes.txt"
    assert listed.read_text() == classes if classes else not listed.exists()


def test_images_are_resized_and_gray(folder: Path, tmp_path: Path) -> None:
    convert_images(read_source(folder), tmp_path / "out", Stored((3, 4), gray=True))
    datum = Datum.FromString(records(tmp_path / "out")[3][1])
    assert (datum.channels, datum.height, datum.width) == (1, 3, 4)
    assert datum.data == read_image(folder / NAMES[3], False, (3, 4)).tobytes()


def test_an_image_is_stored_as_its_own_file_or_encoded_anew(folder: Path, tmp_path: Path) -> None:
    """As ReadImageToDatum: the file itself where it has the type and is not resized; such a Datum has no sizes."""
    for stored, own in ((Stored(encode_type=""), True), (Stored((3, 4), encode_type="png"), False)):
        convert_images(read_source(folder), tmp_path / "out", stored, force=True)
        value = records(tmp_path / "out")[0][1]
        datum = Datum.FromString(value)
        assert datum == Datum(data=datum.data, label=0, encoded=True)
        assert (datum.data == (folder / NAMES[0]).read_bytes()) == own
        assert np.array_equal(decode_image(datum.data), read_image(folder / NAMES[0], True, stored.size))
    convert_images(read_source(folder), tmp_path / "out", Stored(gray=True, encode_type="jpg"), force=True)
    datum = Datum.FromString(records(tmp_path / "out")[0][1])
    assert datum.data[:2] == b"\xff\xd8" and decode_image(datum.data).shape == (1, 6, 8)
    with pytest.raises(InputError, match=r'a b.png: cannot be encoded as "xyz"'):
        convert_images(read_source(folder), tmp_path / "out", Stored(encode_type="xyz"), force=True)


def test_shuffled_images_are_numbered_in_their_new_order(folder: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        convert_images(read_source(folder), tmp_path / "out", Stored(), shuffle=True, seed=seed, force=True)
        found.append(records(tmp_path / "out"))
    assert found[0] == found[1] != found[2]
    assert [int(key[:8]) for key, _ in found[2]] == [*range(5)] and {key[9:] for key, _ in found[2]} == {*NAMES}


def test_a_database_grows_as_it_needs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "_COMMIT", 150)
    opened = lmdb.open
    monkeypatch.setattr(converting.lmdb, "open", lambda path, map_size: opened(path, map_size=2**14))
    convert_images(read_source(folder), tmp_path / "out", Stored((100, 100)))
    monkeypatch.undo()
    assert len(records(tmp_path / "out")) == 5


def test_interrupted_it_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_images(read_source(folder), tmp_path / "out" / "lmdb", Stored(), progress=interrupt)
    assert not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize(
    ("name", "text", "columns", "said"),
    [
        ("t.csv", "", None, "names no image"),
        ("t.csv", "path,label\n", None, "names no image"),
        ("t.csv", "a.png,1\nb.png\n", None, "line 2: expected a path and a label in columns 1 and 2, found 'b.png'"),
        (
            "t.csv",
            "a.png;1\nb.png;NaN\n",
            None,
            "line 2: expected a path and a label in columns 1 and 2, found 'b.png,NaN'",
        ),
        ("t.parquet", "PAR1", None, "t.parquet: expected a .csv or .tsv, Parquet is for imae audit"),
        ("t.csv", "a.png,99999999999\n", None, "line 1: the label 99999999999 exceeds"),
        ("t.csv", "a,b\nx.png,1\n", ("a", "c"), 'line 1: has no column "c", only a, b'),
        ("t.csv", "x.png,1\n", ("0", "1"), "columns are numbered from 1"),
        ("t.csv", "x.png,1\n", ("1", "5"), "line 1: expected a path and a label in columns 1 and 5"),
        ("t.txt", "x.png one\n", None, "line 1: 'one' is no label"),
        ("gone.csv", None, None, "gone.csv: cannot be read"),
    ],
)
def test_a_source_that_is_wrong_is_named(
    tmp_path: Path, name: str, text: str | None, columns: tuple[str, str] | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_source(tmp_path / name, columns)


def test_what_is_in_the_way_stays(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no LMDB, and is not overwritten"):
        convert_images(read_source(folder), folder, Stored(), force=True)
    with pytest.raises(InputError, match="has no image in a subfolder"):
        read_source(folder / "cat")
    Image.fromarray(PIXELS[0][:4]).save(folder / NAMES[2])
    with pytest.raises(InputError, match=r"dog/sub/d.png is an image of 3x4x8, the first, .*a b.png, one of 3x6x8"):
        convert_images(read_source(folder), tmp_path / "out", Stored(), check_size=True)
    assert not (tmp_path / "out").exists()
