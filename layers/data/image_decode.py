"""Compressed images as Caffe sees them: planes in the order blue, green, red."""

import io
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from imae.prototxt_like.errors import InputError

MOST_PIXELS = 2**26  # 8,192 x 8,192 take 200 MB decoded, several times that meanwhile; a tiny file can claim more
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # of images that are refused here anyway
warnings.filterwarnings("ignore", "Corrupt EXIF data")
Window = Callable[[int, int], tuple[slice, slice]]
"""Returns the rows and columns that are wanted of an image of this height and width."""
_ORIENTATION = 0x0112  # the EXIF tag
_DEEP = ("I;16", "I;16L", "I;16B", "I")  # Pillow's modes of gray images with 16 bits; some versions open them as "I"


def decode_image(data: bytes, color: bool | None = None) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, ... file's bytes as C x H x W: C = 3 for `color` True, 1 for False, for None as in the file.

    As OpenCV's imread gives them, which Caffe decodes with, to within a level: the planes are blue, green, red; of
    values of 16 bits the upper 8 count; an image is turned as its EXIF data says. For None, as of imdecode without
    flags, it has alpha, too, where the file has, is not turned, and has to have 8 bits a channel. Raises InputError if
    `data` is no such image or, before it is decoded, one of more than MOST_PIXELS.
    """
    return np.ascontiguousarray(decode_view(data, color))


def decode_view(
    data: bytes | Image.Image, color: bool | None = None, window: Window | None = None
) -> NDArray[np.uint8]:
    """Return the same, also of an opened image, as a view of what was decoded, which is not contiguous.

    Of the image as it would be returned, only the `window`, if one is given: all is decoded, but no more is copied.
    """
    try:
        image = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
        if image.width * image.height > MOST_PIXELS:
            raise InputError(f"an image of {image.width}x{image.height} pixels, expected at most {MOST_PIXELS:,}")
        if color is False:
            image.draft("L", None)  # of a JPEG the luminance as it is stored
        pixels = _load(image, ours=image is not data)
        orientation = 1 if color is None else _orientation(image)
        if pixels is None:
            if window and orientation == 1:
                image, window = _cut(image, *window(image.height, image.width)), None
            pixels = _pixels(image, color)
        if orientation > 1:
            pixels = _turned(pixels, orientation)
        if window:
            pixels = pixels[window(*pixels.shape[:2])]
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"an image of far more than {MOST_PIXELS:,} pixels, the most that is decoded") from error
    except UnidentifiedImageError as error:  # whose own text has the address of an object
        size = len(data) if isinstance(data, bytes) else 0
        raise InputError(f"no image that can be decoded: {size} bytes in no known format") from error
    except Exception as error:  # a damaged file makes each of Pillow's decoders raise errors of its own
        raise InputError(f"no image that can be decoded: {error}") from error
    if pixels.ndim == 2:
        return pixels[None]
    backward = pixels[:, :, ::-1] if pixels.shape[2] == 3 else pixels[:, :, [2, 1, 0, 3]]
    return backward.transpose(2, 0, 1)


def _load(image: Image.Image, ours: bool) -> NDArray[np.uint8] | None:
    """Decode an image; return H x W x (red, green, blue) if Pillow could be given memory for it, as for most JPEGs.

    Of its own memory there are copies alone, each made while other threads wait. `ours`: no one else has the image.
    """
    if not ours or image.format != "JPEG" or image.mode != "RGB" or ImageFile.LOAD_TRUNCATED_IMAGES:
        image.load()
        return None
    memory = np.empty((image.height, image.width, 4), np.uint8)
    given = image.im = Image.frombuffer("RGBX", image.size, memory, "raw", "RGBX", 0, 1).im  # shares the memory
    image.load()
    return memory[:, :, :3] if image.im is given else None  # Pillow before 11 takes memory of its own


def _cut(image: Image.Image, rows: slice, columns: slice) -> Image.Image:
    """Return a part of a decoded image."""
    part = image.crop((columns.start, rows.start, columns.stop, rows.stop))
    part.format = image.format  # by which some modes are read
    return part


def _pixels(image: Image.Image, color: bool | None) -> NDArray[np.uint8]:
    """Return H x W x (red, green, blue, and alpha if it is wanted), or H x W of a gray image."""
    if image.mode in _DEEP and color is not None and (image.mode != "I" or image.format in ("PNG", "PPM")):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.stack([gray] * 3, axis=2) if color else gray
    if image.mode.startswith(("I", "F")):
        raise InputError(f"an image of mode {image.mode}, expected 8 bits a channel")
    if color is None:
        alpha = image.has_transparency_data or image.mode in ("LA", "PA", "RGBA")
        mode = "L" if image.mode in ("1", "L") else "RGBA" if alpha else "RGB"
        return np.asarray(image if image.mode == mode else image.convert(mode))
    if image.mode == "RGBA" and image.format == "TIFF":  # libtiff, OpenCV's reader, multiplies by alpha
        image = Image.fromarray(np.asarray(image.convert("RGBa"))[:, :, :3])
    if image.mode == "CMYK" and image.format == "JPEG":
        left = 255 - np.asarray(image).astype(np.int32)  # of the light by each ink, in OpenCV's arithmetic
        rgb = left[:, :, 3:] - ((255 - left[:, :, :3]) * left[:, :, 3:] >> 8)
        image = Image.fromarray(rgb.astype(np.uint8))
    mode = "RGB" if color else "L"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _orientation(image: Image.Image) -> int:
    """Return what the EXIF data of a decoded image says: 1 to 8, as it stands at 1, which holds without such data."""
    if "exif" not in image.info or image.format == "TIFF":  # which Pillow turns itself
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        found = exif.get(_ORIENTATION)
    except Exception:  # it is damaged, and the image need not be
        return 1
    return next((orientation for orientation in range(2, 9) if orientation == found), 1)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return the image as it is meant to be seen."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
