"""CIFAR-10 as Caffe's own tools convert it."""

from pathlib import Path

import lmdb
import numpy as np
import pytest

from imae.layers.data import convert
from imae.layers.data.cifar10_data import load_cifar10
from imae.layers.data.convert import convert_cifar10
from imae.layers.data.image_set import mean_image
from imae.prototxt_like.binary import read_binaryproto
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.mean_file import write_mean
from imae.prototxt_like.schema import BlobProto, Datum

MEAN = Path(__file__).resolve().parents[3] / "../shared/data/resnet20/mean.binaryproto"


def records(folder: Path) -> list[tuple[bytes, Datum]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as database, database.begin() as transaction:
        return [(key, Datum.FromString(value)) for key, value in transaction.cursor()]


def test_records_have_caffes_keys_and_the_published_order(mini_cifar10: Path, tmp_path: Path) -> None:
    written = convert_cifar10(mini_cifar10, tmp_path / "new" / "out")
    names = ["cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"]
    assert written == [tmp_path / "new" / "out" / name for name in names]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(names)
    for folder, train in zip(written[:2], (True, False), strict=True):
        images, labels = load_cifar10(mini_cifar10, train)
        found = records(folder)
        assert [key for key, _ in found] == [b"%05d" % i for i in range(len(labels))]
        for (_, datum), image, label in zip(found, images, labels, strict=True):
            assert (datum.channels, datum.height, datum.width, datum.label) == (3, 32, 32, label)
            assert datum.data == image.numpy().tobytes()
    expected = load_cifar10(mini_cifar10, True)[0].double().mean(0)
    np.testing.assert_allclose(read_binaryproto(written[2]), expected[None], rtol=1e-6)


def test_pad_adds_the_padded_training_images_and_their_mean(mini_cifar10: Path, tmp_path: Path) -> None:
    """The names that the published ResNet-20 prototxt trains from."""
    written = convert_cifar10(mini_cifar10, tmp_path / "out", pad=4)
    assert [path.name for path in written[2:]] == [
        "cifar10_pad4_train_lmdb",
        "mean.binaryproto",
        "mean_pad.binaryproto",
    ]
    images = np.pad(load_cifar10(mini_cifar10, True)[0].numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)))
    for (_, datum), image in zip(records(written[2]), images, strict=True):
        assert (datum.height, datum.width) == (40, 40)
        assert datum.data == image.tobytes()
    np.testing.assert_allclose(read_binaryproto(written[4])[0], images.mean(0), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not MEAN.exists(), reason="Caffe's mean image is not at ../shared/data/resnet20")
def test_the_real_mean_file_is_caffes_byte_for_byte(cifar10_root: Path, tmp_path: Path) -> None:
    write_mean(mean_image(load_cifar10(cifar10_root, True)[0]).numpy(), tmp_path / "mean.binaryproto")
    assert (tmp_path / "mean.binaryproto").read_bytes() == MEAN.read_bytes()


def test_the_mean_has_the_four_old_dimensions(mini_cifar10: Path, tmp_path: Path) -> None:
    blob = BlobProto.FromString(convert_cifar10(mini_cifar10, tmp_path / "out")[-1].read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 32, 32)


def test_progress_counts_up_to_all_records(mini_cifar10: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    convert_cifar10(mini_cifar10, tmp_path / "out", pad=1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 46) for done in range(1, 47)]


def test_what_exists_is_overwritten_only_by_force(mini_cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "mean.binaryproto").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"mean.binaryproto exists already, and is overwritten only with --force"):
        convert_cifar10(mini_cifar10, tmp_path)
    assert (tmp_path / "mean.binaryproto").read_bytes() == b"precious"
    assert not (tmp_path / "cifar10_train_lmdb").exists()
    for _ in range(2):
        convert_cifar10(mini_cifar10, tmp_path, force=True)
    assert len(records(tmp_path / "cifar10_train_lmdb")) == 20


def test_a_failure_leaves_nothing_half_written(
    mini_cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise lmdb.DiskError("No space left on device")

    monkeypatch.setattr(convert, "write_mean", full)
    with pytest.raises(InputError, match=r"out: cannot be written: No space left on device"):
        convert_cifar10(mini_cifar10, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_made_and_missing_data_are_named(mini_cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/out: cannot be written: .*Not a directory"):
        convert_cifar10(mini_cifar10, tmp_path / "file" / "out")
    with pytest.raises(InputError, match="CIFAR-10 not found"):
        convert_cifar10(tmp_path / "nowhere", tmp_path / "out")
