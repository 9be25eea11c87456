"""The MARS tables: the published ones, a miniature in their layout, and damaged files."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from imae.experiments.mars_info import write_miniature
from imae.experiments.retrieval import average_features, evaluate
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.mars_info import frame_path, read_names, read_query_index, read_tracks

PUBLISHED = Path(__file__).resolve().parents[2] / "../shared/data/mars-info"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published MARS tables are not at {PUBLISHED}")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    root = tmp_path_factory.mktemp("mars")
    write_miniature(root, persons=3, tracks_per_person=3, frames_per_track=2, size=(32, 16))
    return root


@published
def test_the_published_tables_have_the_papers_counts():
    train = read_tracks(PUBLISHED / "tracks_train_info.mat")
    test = read_tracks(PUBLISHED / "tracks_test_info.mat")
    assert (len(train.first), len(test.first)) == (8298, 12180)
    assert (train.last[-1], test.last[-1]) == (509914, 681089)
    assert len(np.unique(train.person)) == 625
    assert len(np.unique(test.person)) == 636  # junk and distractors counted as two
    assert set(np.unique(test.camera)) == {1, 2, 3, 4, 5, 6}
    query = read_query_index(PUBLISHED / "query_IDX.mat")
    assert len(query) == 1980
    assert (query[0], query[-1]) == (4129, 12179)
    assert (test.person[query] > 0).all()


@published
@pytest.mark.parametrize("name", ["tracks_train_info", "tracks_test_info", "query_IDX"])
def test_the_published_tables_are_what_scipy_reads(name):
    scipy_io = pytest.importorskip("scipy.io")
    (expected,) = (v for k, v in scipy_io.loadmat(PUBLISHED / f"{name}.mat").items() if not k.startswith("__"))
    path = PUBLISHED / f"{name}.mat"
    ours = read_query_index(path)[None] + 1 if name == "query_IDX" else np.stack(read_tracks(path), 1)
    np.testing.assert_array_equal(ours, expected)


def test_a_miniature_has_the_published_variables_and_shapes(miniature):
    scipy_io = pytest.importorskip("scipy.io")
    found = {path.name: scipy_io.whosmat(path) for path in (miniature / "info").glob("*.mat")}
    assert found == {
        "tracks_train_info.mat": [("track_train_info", (9, 4), "double")],
        "tracks_test_info.mat": [("track_test_info", (15, 4), "double")],
        "query_IDX.mat": [("query_IDX", (1, 9), "double")],
    }


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_frame_of_a_miniature_is_where_the_tables_say(miniature, part):
    from PIL import Image

    tracks = read_tracks(miniature / "info" / f"tracks_{part}_info.mat")
    names = read_names(miniature / "info" / f"{part}_name.txt")
    assert tracks.last[-1] == len(names)
    assert (tracks.first[1:] == tracks.last[:-1] + 1).all()
    for first, last, person, camera in zip(*tracks, strict=True):
        for name in names[first - 1 : last]:
            folder = "00-1" if person == -1 else f"{person:04d}"
            assert name.startswith(f"{folder}C{camera}T")
            path = frame_path(miniature, part, name)
            assert path.parent == miniature / f"bbox_{part}" / folder
            with Image.open(path) as image:
                assert (image.size, image.format, image.mode) == ((16, 32), "JPEG", "RGB")
    assert len(list((miniature / f"bbox_{part}").glob("*/*.jpg"))) == len(names)


def test_persons_of_a_miniature_are_train_or_test_and_queries_have_matches(miniature):
    train = read_tracks(miniature / "info/tracks_train_info.mat")
    test = read_tracks(miniature / "info/tracks_test_info.mat")
    assert sorted(set(train.person)) == [1, 3, 5]
    assert sorted(set(test.person)) == [-1, 0, 2, 4, 6]
    for row in read_query_index(miniature / "info/query_IDX.mat"):
        assert ((test.person == test.person[row]) & (test.camera != test.camera[row])).any()
        assert test.person[row] > 0


def test_a_miniature_may_show_the_training_persons_again_in_other_frames(tmp_path):
    write_miniature(tmp_path, persons=3, frames_per_track=1, size=(8, 8), unseen=False)
    test = read_tracks(tmp_path / "info/tracks_test_info.mat")
    assert sorted(set(test.person)) == [-1, 0, 1, 3, 5]
    frames = [path.read_bytes() for path in tmp_path.glob("bbox_*/*/*.jpg")]
    assert len(set(frames)) == len(frames) == 3 * 4 + 5 * 4


def test_there_is_one_query_for_a_person_and_camera_when_cameras_repeat(tmp_path):
    write_miniature(tmp_path, persons=2, tracks_per_person=8, frames_per_track=1, size=(8, 8))
    test = read_tracks(tmp_path / "info/tracks_test_info.mat")
    query = read_query_index(tmp_path / "info/query_IDX.mat")
    seen = list(zip(test.person[query], test.camera[query], strict=True))
    assert len(seen) == len(set(seen)) == 12


def test_the_pixels_of_a_miniature_tell_its_persons(miniature):
    from PIL import Image

    tracks = read_tracks(miniature / "info/tracks_test_info.mat")
    names = read_names(miniature / "info/test_name.txt")
    pixels = [np.asarray(Image.open(frame_path(miniature, "test", name)), np.float32).ravel() for name in names]
    assert len({frame.tobytes() for frame in pixels}) == len(pixels)
    features = average_features(np.stack(pixels) - np.mean(pixels, axis=0), tracks.first, tracks.last)
    result = evaluate(features, tracks.person, tracks.camera, read_query_index(miniature / "info/query_IDX.mat"))
    assert result.map_trapezoid > 0.9


def test_a_miniature_is_the_same_bytes_for_the_same_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_miniature(tmp_path / name, persons=1, tracks_per_person=2, frames_per_track=1, size=(8, 8), seed=seed)
    a, b, c = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    )
    assert len(a) == 5 + 2 + 6
    assert a == b != c


def test_a_damaged_table_gives_one_line_or_the_table(tmp_path, miniature):
    # Every cut and, one byte at a time, every change of the first 400 bytes; scipy's reader dies of some of these.
    whole = (miniature / "info/tracks_train_info.mat").read_bytes()
    cuts = [whole[:length] for length in range(0, len(whole), 7)]
    changes = [whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :] for at in range(124, 400) for flip in (1, 0x70)]
    packed = zlib.compress(whole[128:])
    compressed = whole[:128] + b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed
    cuts += [compressed[:length] for length in range(128, len(compressed), 7)]
    path = tmp_path / "damaged.mat"
    refused = 0
    for data in cuts + changes:
        path.write_bytes(data)
        try:
            read_tracks(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
    assert refused >= len(cuts)
    path.write_bytes(compressed)
    np.testing.assert_array_equal(read_tracks(path), read_tracks(miniature / "info/tracks_train_info.mat"))


def test_a_compressed_table_cannot_fill_the_memory(tmp_path, miniature):
    packed = zlib.compress(bytes(2**27))
    header = (miniature / "info/query_IDX.mat").read_bytes()[:128]
    path = tmp_path / "bomb.mat"
    path.write_bytes(header + b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(InputError, match=r"bomb\.mat"):
        read_query_index(path)


@pytest.mark.parametrize("value", [{"a": 1.0, "b": 2.0}, {"a": "text"}, {"a": [[1 + 2j, 1, 1, 1]]}, {"a": [[0.5] * 4]}])
def test_a_table_of_something_else_is_refused(tmp_path, value):
    path = tmp_path / "other.mat"
    pytest.importorskip("scipy.io").savemat(path, value)
    with pytest.raises(InputError, match=r"other\.mat"):
        read_tracks(path)


@pytest.mark.parametrize("row", [[0, 1, 1, 1], [3, 2, 1, 1], [1, 1, -2, 1], [1, 1, -1, 0]])
def test_a_row_that_cannot_be_a_track_is_named(tmp_path, row):
    path = tmp_path / "tracks.mat"
    pytest.importorskip("scipy.io").savemat(path, {"track_train_info": [[1, 1, 1, 1], row]})
    with pytest.raises(InputError, match=r"tracks\.mat: track 2 is \["):
        read_tracks(path)


def test_tables_are_not_taken_for_each_other(miniature):
    with pytest.raises(InputError, match=r"expected \(tracks, 4\)"):
        read_tracks(miniature / "info/query_IDX.mat")
    with pytest.raises(InputError, match="one row of indices"):
        read_query_index(miniature / "info/tracks_test_info.mat")


@pytest.mark.parametrize("name", ["../../etc/passwd", "0001/x.jpg", "..", "", "a b.jpg", "0001\\x.jpg", "/etc/x.jpg"])
def test_a_frame_name_that_leads_elsewhere_is_refused(tmp_path, name):
    path = tmp_path / "train_name.txt"
    path.write_text(f"0001C1T0001F001.jpg\n{name}\n0001C1T0001F002.jpg\n")
    with pytest.raises(InputError, match=r"train_name\.txt:2"):
        read_names(path)


def test_other_mistakes_are_refused(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"names\.txt: .*ASCII"):
        read_names(tmp_path / "names.txt")
    with pytest.raises(InputError, match=r"missing\.mat"):
        read_tracks(tmp_path / "missing.mat")
    with pytest.raises(InputError, match="1 tracks each"):
        write_miniature(tmp_path, tracks_per_person=1)
    with pytest.raises(InputError, match=r"names\.txt.* cannot be made"):
        write_miniature(tmp_path / "names.txt")


def test_importing_is_cheap():
    code = (
        "import sys, imae.experiments.mars_info, imae.experiments.retrieval, imae.experiments.weighting;"
        "print([m for m in ('scipy', 'matplotlib', 'torch', 'PIL', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
