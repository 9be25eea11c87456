"""Compressed images as Caffe sees them: planes in the order blue, green, red."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from imae.prototxt_like.errors import InputError

MOST_PIXELS = 2**26
"""Of an image: 8,192 x 8,192 take 200 MB once decoded, and several times that meanwhile. A tiny file can claim more."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # of images that are refused here anyway


def decode_image(data: bytes, color: bool | None = None) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, ... file's bytes as C x H x W: C = 3 for `color` True, 1 for False, for None as in the file.

    Like OpenCV, which Caffe decodes with, the planes are blue, green, red (and alpha, where the file has it and `color`
    is None). Raises InputError if `data` is no image of 8 bits a channel or, before it is decoded, one of more than
    MOST_PIXELS.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MOST_PIXELS:
            raise InputError(f"an image of {image.width}x{image.height} pixels, expected at most {MOST_PIXELS:,}")
        if image.mode.startswith(("I", "F")):
            raise InputError(f"an image of mode {image.mode}, expected 8 bits a channel")
        gray = color is False or (color is None and image.mode in ("1", "L"))
        alpha = color is None and (image.has_transparency_data or image.mode in ("LA", "PA", "RGBA"))
        mode = "L" if gray else "RGBA" if alpha else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"an image of far more than {MOST_PIXELS:,} pixels, the most that is decoded") from error
    except UnidentifiedImageError as error:  # whose own text has the address of an object
        raise InputError(f"no image that can be decoded: {len(data)} bytes in no known format") from error
    except Exception as error:  # a damaged file makes each of Pillow's decoders raise errors of its own
        raise InputError(f"no image that can be decoded: {error}") from error
    if gray:
        return pixels[None]
    return np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]].transpose(2, 0, 1))
