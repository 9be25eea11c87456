"""What OpenCV's imread makes of image files: orientation, depth, palettes, inks, alpha."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from imae.layers.data.image_decode import decode_image, decode_view
from imae.layers.data.image_list import resize
from imae.prototxt_like.errors import InputError

DRAW = np.random.default_rng(0)
COLOUR = Image.fromarray(DRAW.integers(0, 256, (4, 5, 3), np.uint8)).resize((21, 13), Image.Resampling.BICUBIC)
PIXELS = np.asarray(COLOUR)
GRAY = COLOUR.convert("L")
ALPHA = Image.fromarray(np.dstack([PIXELS, DRAW.integers(0, 256, PIXELS.shape[:2], np.uint8)]))
PALETTE = COLOUR.quantize(16)
DEEP = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 256 + DRAW.integers(0, 256, (13, 21)).astype(np.uint16))
TURNED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: np.rot90(x),
}


def stored(image: Image.Image, kind: str, orientation: int = 0, **settings: object) -> bytes:
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        settings["exif"] = exif
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


@pytest.mark.parametrize("orientation", TURNED)
def test_an_image_is_turned_as_its_exif_data_says(orientation: int) -> None:
    """As OpenCV's imread does since 3.1; what an LMDB holds encoded, decoded as it is, stays as it is."""
    data = stored(COLOUR, "PNG", orientation)
    expected = TURNED[orientation](PIXELS)[:, :, ::-1].transpose(2, 0, 1)
    assert np.array_equal(decode_image(data, True), expected)
    assert decode_image(data, False).shape == (1, *expected.shape[1:])
    assert np.array_equal(decode_image(data), PIXELS[:, :, ::-1].transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_turns_nothing() -> None:
    data = stored(COLOUR, "JPEG", exif=b"Exif\0\0MM\0*damaged")
    assert np.array_equal(decode_image(data, True), decode_image(stored(COLOUR, "JPEG"), True))


def test_of_16_bits_the_upper_8_count() -> None:
    data, expected = stored(DEEP, "PNG"), np.asarray(DEEP) >> 8
    assert np.array_equal(decode_image(data, False)[0], expected)
    assert (decode_image(data, True) == expected).all()
    with pytest.raises(InputError, match="expected 8 bits a channel"):
        decode_image(data)


STORED = {
    "JPEG": stored(COLOUR, "JPEG"),
    "progressive JPEG": stored(COLOUR, "JPEG", progressive=True),
    "gray JPEG": stored(GRAY, "JPEG"),
    "CMYK JPEG": stored(COLOUR.convert("CMYK"), "JPEG"),
    "turned JPEG": stored(COLOUR, "JPEG", 6),
    "turned gray JPEG": stored(GRAY, "JPEG", 5),
    "turned PNG": stored(COLOUR, "PNG", 8),
    "turned TIFF": stored(COLOUR, "TIFF", 3),
    "turned WebP": stored(COLOUR, "WEBP", 7, lossless=True),
    "PNG": stored(COLOUR, "PNG"),
    "PNG with alpha": stored(ALPHA, "PNG"),
    "gray PNG with alpha": stored(ALPHA.convert("LA"), "PNG"),
    "PNG with a palette": stored(PALETTE, "PNG"),
    "PNG with a transparent colour": stored(PALETTE, "PNG", transparency=3),
    "black and white PNG": stored(COLOUR.convert("1"), "PNG"),
    "deep PNG": stored(DEEP, "PNG"),
    "deep TIFF": stored(DEEP, "TIFF"),
    "TIFF with alpha": stored(ALPHA, "TIFF"),
    "CMYK TIFF": stored(COLOUR.convert("CMYK"), "TIFF"),
    "TIFF of two pages": stored(COLOUR, "TIFF", save_all=True, append_images=[COLOUR.rotate(180)]),
    "animated WebP": stored(COLOUR, "WEBP", save_all=True, append_images=[COLOUR.rotate(180)], lossless=True),
    "animated PNG": stored(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(180)]),
    "BMP": stored(PALETTE, "BMP"),
    "PPM": stored(COLOUR, "PPM"),
}


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("kind", STORED)
def test_files_are_decoded_as_by_opencv_to_within_one_level(kind: str, color: bool) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install .[opencv]")
    flags = cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    expected = np.atleast_3d(cv2.imdecode(np.frombuffer(STORED[kind], np.uint8), flags)).transpose(2, 0, 1)
    decoded = decode_image(STORED[kind], color)
    assert decoded.shape == expected.shape and np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize("kind", STORED)
def test_a_window_is_that_of_the_whole_image(kind: str, color: bool) -> None:
    whole = decode_image(STORED[kind], color)
    rows, columns = slice(1, whole.shape[1] - 1), slice(2, whole.shape[2])

    def window(*size: int) -> tuple[slice, slice]:
        assert size == whole.shape[1:]
        return rows, columns

    assert np.array_equal(decode_view(STORED[kind], color, window), whole[:, rows, columns])


def test_a_jpeg_decoded_into_memory_of_ours_has_the_pixels_of_one_that_pillow_keeps() -> None:
    """Resized, too; and an image that was opened elsewhere stays whole."""
    data = stored(COLOUR, "JPEG")
    opened = Image.open(io.BytesIO(data))
    expected = decode_view(opened, True)
    assert np.array_equal(decode_view(data, True), expected)
    assert np.array_equal(np.asarray(opened), expected.transpose(1, 2, 0)[:, :, ::-1])
    for size in [(1, 1), (1, 7), (9, 8), (13, 21), (40, 30)]:
        assert np.array_equal(resize(decode_view(data, True), size), resize(expected, size))


def test_what_a_damaged_file_lacks_is_black_where_pillow_is_told_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(stored(COLOUR, "JPEG"))
    table = data.index(b"\xff\xc4")  # of a Huffman code, by its lengths
    data[table + 5 : table + 21] = b"\xff" * 16
    with pytest.raises(InputError, match="broken data stream"):
        decode_image(bytes(data), True)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    np.empty((*PIXELS.shape[:2], 4), np.uint8).fill(7)  # as the memory may be that is taken next
    assert not decode_image(bytes(data), True).any()
