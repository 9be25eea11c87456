"""Data: Caffe's DataLayer and DataTransformer over an LMDB."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imae.layers.layer import TEST, TRAIN
from imae.nets.net import Net
from imae.prototxt_like.binary import write_binaryproto
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import Datum
from imae.prototxt_like.text import parse_net

Make = Callable[..., Any]
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 6, 8), np.uint8)


def write(folder: Path, *values: bytes) -> None:
    with lmdb.open(str(folder), map_size=2**24) as database, database.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(b"%05d" % i, value)


def datum(image: np.ndarray[Any, Any], label: int = 0) -> bytes:
    channels, height, width = image.shape
    values = {"data": image.tobytes()} if image.dtype == np.uint8 else {"float_data": image.flatten().tolist()}
    return Datum(channels=channels, height=height, width=width, label=label, **values).SerializeToString()


def encoded(image: Image.Image, label: int = 0) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return Datum(data=file.getvalue(), label=label, encoded=True).SerializeToString()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    write(tmp_path / "db", *(datum(image, i) for i, image in enumerate(IMAGES)))
    return tmp_path / "db"


def data(own: str = "batch_size: 10", transform: str = "", tops: int = 2) -> str:
    top = 'top: "data" top: "label"' if tops == 2 else 'top: "data"'
    own = f'source: "db" backend: LMDB {own}'
    return f'type: "Data" {top} transform_param {{ {transform} }} data_param {{ {own} }}'


def test_batches_follow_the_records_over_and_over(make: Make, database: Path) -> None:
    layer, shapes = make(data("batch_size: 4"))
    assert shapes == [(4, 3, 6, 8), (4,)]
    assert layer.num_images == 10
    assert [layer.batch(i)[1].tolist() for i in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    images, label = layer.batch(2)
    assert label.dtype == torch.int64
    assert images.dtype == torch.float32
    np.testing.assert_array_equal(images, IMAGES[[8, 9, 0, 1]])
    assert layer.batch(1_000_000)[1].tolist() == [0, 1, 2, 3]


def test_a_forks_shuffle_gives_each_record_once_an_epoch(make: Make, database: Path) -> None:
    layer, _ = make(data("batch_size: 5 shuffle: true"))
    epochs = [[*layer.batch(i)[1].tolist(), *layer.batch(i + 1)[1].tolist()] for i in (0, 2)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] and list(range(10)) not in epochs
    images, labels = layer.batch(1)
    np.testing.assert_array_equal(images, IMAGES[labels])


def test_a_batch_may_exceed_the_database_and_labels_may_be_left_out(make: Make, database: Path) -> None:
    layer, shapes = make(data("batch_size: 25", tops=1))
    assert shapes == [(25, 3, 6, 8)]
    (images,) = layer.batch(1)
    np.testing.assert_array_equal(images, IMAGES[(np.arange(25) + 25) % 10])


def test_forward_gives_the_batch_of_the_iteration(make: Make, database: Path) -> None:
    layer, _ = make(data("batch_size: 4"))
    for forwards in (0, 1, 2, 7):
        layer.context.passes.number = forwards
        assert layer.forward([], {})[1].tolist() == [(4 * forwards + i) % 10 for i in range(4)]


@pytest.mark.parametrize(("own", "net"), [("TRAIN", TEST), ("TEST", TRAIN)])
def test_the_layers_own_phase_decides_where_to_crop(make: Make, database: Path, own: str, net: int) -> None:
    text = data(transform="crop_size: 4")
    expected, _ = make(text, TRAIN if own == "TRAIN" else TEST)
    frozen, _ = make(f"{text} phase: {own}", net)
    assert torch.equal(frozen.batch(0)[0], expected.batch(0)[0])
    assert not torch.equal(frozen.batch(0)[0], make(text, net)[0].batch(0)[0])


def test_the_mean_goes_first_at_the_pixels_own_place_then_the_scale(make: Make, database: Path, tmp_path: Path) -> None:
    """Caffe: (pixel - mean) * scale, the mean's window cropped with the image's."""
    mean = np.random.default_rng(1).random((1, 3, 6, 8)).astype(np.float32)
    write_binaryproto(mean, tmp_path / "mean.binaryproto")
    layer, shapes = make(data("batch_size: 10", 'mean_file: "mean.binaryproto" crop_size: 4 scale: 0.25'), TEST)
    assert shapes[0] == (10, 3, 4, 4)
    np.testing.assert_allclose(layer.batch(0)[0], ((IMAGES - mean) * 0.25)[:, :, 1:5, 2:6], rtol=1e-6)
    for values in ([7], [7, 8, 9]):
        layer, _ = make(data("batch_size: 10", " ".join(f"mean_value: {value}" for value in values)))
        np.testing.assert_allclose(layer.batch(0)[0], IMAGES - np.array(values, np.float32)[:, None, None])


def windows(size: int) -> Tensor:
    """Every window of each image, and its mirror image: image, top, left, mirrored, C, H, W."""
    found = torch.from_numpy(IMAGES).float().unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)
    return torch.stack([found, found.flip(5)], 3)


def seen(layer: Any, size: int) -> Tensor:
    """How often each window was given in 100 epochs: top, left, mirrored."""
    counts = torch.zeros(windows(size).shape[1:4], dtype=torch.int64)
    for number in range(100):
        same = (windows(size) == layer.batch(number)[0][:, None, None, None]).flatten(4).all(4)
        assert same.flatten(1).sum(1).tolist() == [1] * 10
        counts += same.sum(0)
    return counts


def test_training_crops_anywhere_and_mirrors_half(make: Make, database: Path) -> None:
    counts = seen(make(data("batch_size: 10", "crop_size: 5 mirror: true"))[0], 5)
    assert counts.shape == (2, 4, 2)
    assert (counts - 1000 / 16).abs().max() < 4.5 * (1000 / 16) ** 0.5


def test_testing_crops_the_centre_and_mirrors_too(make: Make, database: Path) -> None:
    """As Caffe's DataTransformer, which mirrors in both phases."""
    counts = seen(make(data("batch_size: 10", "crop_size: 5 mirror: true"), TEST)[0], 5)
    assert counts.sum() == counts[0, 1].sum() == 1000
    assert abs(counts[0, 1, 0] - 500) < 4.5 * 250**0.5


def test_a_batch_depends_on_its_number_and_the_seed_alone(make: Make, database: Path) -> None:
    prototxt = data("batch_size: 7 rand_skip: 10", "crop_size: 5 mirror: true")
    layer, _ = make(prototxt, seed=1)
    once = [layer.batch(number)[0] for number in range(5)]
    fresh, _ = make(prototxt, seed=1)
    for number in (4, 0, 2, 2):
        assert torch.equal(fresh.batch(number)[0], once[number])
    assert not torch.equal(make(prototxt, seed=2)[0].batch(0)[0], once[0])


def test_rand_skip_starts_at_one_of_the_first_records(make: Make, database: Path) -> None:
    starts = []
    for seed in range(30):
        layer, _ = make(data("batch_size: 4 rand_skip: 3"), seed=seed)
        start = layer.batch(0)[1][0].item()
        assert layer.batch(1)[1].tolist() == [(start + 4 + i) % 10 for i in range(4)]
        starts.append(start)
    assert set(starts) == {0, 1, 2}


def test_float_data_is_read(make: Make, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    write(tmp_path / "db", datum(image, 1), datum(-image, 2))
    layer, _ = make(data("batch_size: 2"), dtype=torch.float64)
    images, label = layer.batch(0)
    assert images.dtype == torch.float64
    np.testing.assert_array_equal(images, [image, -image])
    assert label.tolist() == [1, 2]


def test_encoded_images_have_the_planes_blue_green_red(make: Make, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write(tmp_path / "db", encoded(Image.fromarray(rgb), 4))
    layer, shapes = make(data("batch_size: 1"))
    assert shapes[0] == (1, 3, 5, 7)
    images, label = layer.batch(0)
    np.testing.assert_array_equal(images[0], rgb[:, :, ::-1].transpose(2, 0, 1))
    assert label.tolist() == [4]
    layer, shapes = make(data("batch_size: 1", "force_gray: true"))
    assert shapes[0] == (1, 1, 5, 7)
    np.testing.assert_allclose(layer.batch(0)[0][0, 0], rgb @ [0.299, 0.587, 0.114], atol=1)


def test_encoded_gray_and_transparent_images_keep_their_channels_unless_forced(make: Make, tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    write(tmp_path / "db", encoded(Image.fromarray(gray)))
    layer, _ = make(data("batch_size: 1"))
    np.testing.assert_array_equal(layer.batch(0)[0], gray[None, None])
    layer, _ = make(data("batch_size: 1", "force_color: true"))
    np.testing.assert_array_equal(layer.batch(0)[0], np.stack([gray] * 3)[None])
    write(tmp_path / "alpha", encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 4))))
    layer, _ = make(data("batch_size: 1").replace('"db"', '"alpha"'))
    assert layer.batch(0)[0][0, :, 0, 0].tolist() == [3, 2, 1, 4]


def test_images_of_different_sizes_are_cropped_alike(make: Make, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (3, 9, 9), np.uint8)
    write(tmp_path / "db", datum(IMAGES[0]), datum(large), datum(IMAGES[1].astype(np.float32)))
    layer, _ = make(data("batch_size: 3", "crop_size: 5 mean_value: 1"), TEST)
    images, _ = layer.batch(0)
    np.testing.assert_array_equal(images[0], IMAGES[0, :, 0:5, 1:6].astype(int) - 1)
    np.testing.assert_array_equal(images[1], large[:, 2:7, 2:7].astype(int) - 1)
    np.testing.assert_array_equal(images[2], IMAGES[1, :, 0:5, 1:6].astype(int) - 1)


def test_a_net_follows_images_of_different_sizes_batch_by_batch(tmp_path: Path) -> None:
    """As Caffe's reshapes; sizes must agree within a batch."""
    sizes = [(6, 8), (6, 8), (9, 5), (9, 5), (7, 7), (6, 8)]
    write(tmp_path / "db", *(datum(np.full((3, *size), i, np.uint8), i) for i, size in enumerate(sizes)))
    net = Net(
        parse_net(f"""
        layer {{ name: "data" {data("batch_size: 2").replace('"db"', f'"{tmp_path}/db"')} }}
        layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
          convolution_param {{ num_output: 2 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
        layer {{ name: "mean" type: "Pooling" bottom: "conv" top: "mean"
          pooling_param {{ pool: AVE global_pooling: true }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "mean" top: "ip" inner_product_param {{ num_output: 6 }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
        """),
        TRAIN,
    )
    for size in ((2, 3, 6, 8), (2, 3, 9, 5)):
        net.forward()
        net.backward()
        assert net.shape("data") == size and net.shape("conv") == (2, 2, size[2] - 2, size[3] - 2)
        assert net.storage.diff.isfinite().all()
    with pytest.raises(InputError) as error:
        net.forward()
    assert_one_line_naming_the_layer(error.value)
    assert 'record "00005" is an image of 3x6x8, the first of its batch, "00004", one of 3x7x7' in str(error.value)
    assert "images of different sizes need crop_size or a batch_size of 1" in str(error.value)


@pytest.mark.parametrize(
    ("prototxt", "message"),
    [
        (data().replace("backend: LMDB", ""), "db is an LMDB, which data_param must say: backend: LMDB$"),
        (
            data().replace("backend: LMDB", "backend: LEVELDB"),
            "db is an LMDB, which data_param must say: backend: LMDB",
        ),
        (data().replace('"db"', '"level"'), "level is a LevelDB, which data_param must say: backend: LEVELDB$"),
        (data().replace("backend: LMDB", "").replace('"db"', '"none"'), "none: no LevelDB, which is a folder with"),
        (data().replace('source: "db"', ""), "needs source, the folder of an LMDB"),
        (data().replace('"db"', '"none"'), "none: no LMDB, which is a folder with a file data.mdb"),
        (data(""), "needs a batch_size of at least 1"),
        (data(transform="crop_size: 7"), 'db: crop_size 7 exceeds record "00000", 6x8'),
        (data(transform="mean_value: 1 mean_value: 2"), '2 mean values do not fit record "00000", 3x6x8: give 1 or 3'),
        (
            data(transform='mean_file: "mean"'),
            'the mean image, 3x5x5, does not fit record "00000", 3x6x8 .mean_file mean',
        ),
        (data(transform='mean_file: "none"'), "none: cannot be read"),
        (data(transform="force_color: true force_gray: true"), "both force_color and force_gray"),
    ],
)
def test_mistakes_name_the_layer(make: Make, database: Path, tmp_path: Path, prototxt: str, message: str) -> None:
    write_binaryproto(np.zeros((1, 3, 5, 5), np.float32), tmp_path / "mean")
    (tmp_path / "level").mkdir()
    (tmp_path / "level" / "CURRENT").write_text("MANIFEST-000002\n")
    with pytest.raises(InputError, match=message) as error:
        make(prototxt, TRAIN)
    assert_one_line_naming_the_layer(error.value)


def assert_one_line_naming_the_layer(error: BaseException) -> None:
    assert str(error).startswith('layer "data" (Data): ')
    assert str(error).count("layer ") == 1
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\xff\xff garbage", r'record "00001" \(10 bytes\) is no Datum'),
        (b"", 'record "00001" holds 0 values for an image of 0x0x0'),
        (datum(IMAGES[0])[:-20], 'record "00001" .* is no Datum'),
        (Datum(channels=3, height=6, width=8, data=bytes(143)).SerializeToString(), "143 values for an image of 3x6x8"),
        (
            Datum(data=b"no image", encoded=True).SerializeToString(),
            'record "00001" holds no image that can be decoded: 8 bytes in no known format$',
        ),
    ],
)
def test_a_bad_record_stops_the_forward_pass_that_needs_it(
    make: Make, tmp_path: Path, value: bytes, message: str
) -> None:
    write(tmp_path / "db", datum(IMAGES[0]), value, datum(IMAGES[1]))
    layer, _ = make(data("batch_size: 1"))
    layer.forward([], {})
    layer.context.passes.number = 1
    with pytest.raises(InputError, match=message) as error:
        layer.forward([], {})
    assert_one_line_naming_the_layer(error.value)
    assert f'(Data): {tmp_path / "db"}: record "00001"' in str(error.value)
    layer.context.passes.number = 2
    np.testing.assert_array_equal(layer.forward([], {})[0][0], IMAGES[1])


def test_an_encoded_image_of_16_bits_is_refused(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "db", encoded(Image.fromarray(np.full((4, 4), 1000, np.uint16))))
    with pytest.raises(InputError, match=r'record "00000" holds an image of mode I.*, expected 8 bits a channel'):
        make(data("batch_size: 1"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 12_000, 30_000])
def test_a_tiny_file_of_a_huge_image_is_refused_before_it_is_decoded(make: Make, tmp_path: Path, side: int) -> None:
    """A PNG's header alone: what it claims takes gigabytes."""
    header = b"IHDR" + side.to_bytes(4) + side.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    blank = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [len(x[4:]).to_bytes(4) + x + zlib.crc32(x).to_bytes(4) for x in (header, blank, b"IEND")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    assert len(bomb) < 100
    write(tmp_path / "db", Datum(data=bomb, encoded=True).SerializeToString())
    with pytest.raises(InputError, match=r'db: record "00000" holds an image of .* 67,108,864') as error:
        make(data("batch_size: 1"))
    assert_one_line_naming_the_layer(error.value)
