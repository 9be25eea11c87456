"""Mean images, and other single arrays, as Caffe's .binaryproto or NumPy's .npy, told by the ending of the name."""

import io

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.binary import read_binaryproto, write_binaryproto
from imae.prototxt_like.blobs import FloatArray, check_finite
from imae.prototxt_like.files import FilePath, write_atomically
from imae.prototxt_like.number_file import check_count, read_numbers


def read_mean(path: FilePath) -> FloatArray:
    """Read one array, as float32 but where it is of doubles.

    Raises InputError, naming the file, if it is missing, damaged, of another kind or holds a value that is not finite.
    """
    if not str(path).endswith(".npy"):
        return read_binaryproto(path)
    found = read_numbers(str(path), check_count)
    array: FloatArray = np.array(found, np.float64 if found.dtype.itemsize == 8 else np.float32)
    check_finite(array, str(path))
    return array


def write_mean(mean: NDArray[np.floating], path: FilePath) -> None:
    """Write a mean image (channels x height x width, float32): as .npy in this shape, else as a blob.

    The blob has the four old dimensions, which every version of Caffe reads.
    """
    if str(path).endswith(".npy"):
        file = io.BytesIO()
        np.save(file, mean)
        write_atomically(path, file.getvalue())
    else:
        write_binaryproto(mean[np.newaxis], path, old=True)
