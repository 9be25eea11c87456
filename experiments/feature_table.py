"""Tables of features that grow on the disk, so that an interrupted or killed run goes on where it stood."""

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError


class FeatureTable:
    """A .npy file of float32 rows that grows under a name of its own until it is whole.

    The name has a fingerprint of all that the rows depend on, so that nobody goes on from rows of something else.
    """

    def __init__(self, output: Path, shape: tuple[int, ...], fingerprint: str, batch: int = 1) -> None:
        """Open the file, with the whole batches that an earlier run left in it.

        `shape` is (images, features) or (images,). Raises InputError, naming `output`, if it cannot be written.
        """
        if output.is_dir():
            raise InputError(f"{output}: cannot be written: it is a folder")
        self._output, self._shape = output, shape
        self.path = _partial(output, fingerprint)
        header = _header(shape)
        self._row = 4 * max(math.prod(shape[1:]), 1)
        with self._naming_the_output():
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            size = self._file.seek(0, os.SEEK_END)
            self.rows = max(size - len(header), 0) // self._row // batch * batch
            self._file.truncate(len(header) + self.rows * self._row if size >= len(header) else 0)
            self._file.seek(0)
            self._file.write(header)
            self._file.seek(0, os.SEEK_END)

    def append(self, rows: NDArray[np.floating]) -> None:
        """Write more rows."""
        with self._naming_the_output():
            self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())
            self._file.flush()
        self.rows += len(rows)

    def finish(self, *, rename: bool = True) -> None:
        """Have the header tell the rows that there are, and give the file the name of the output."""
        with self._naming_the_output():
            self._file.seek(0)
            self._file.write(_header((self.rows, *self._shape[1:])))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if rename:
                self.path.replace(self._output)

    @contextlib.contextmanager
    def _naming_the_output(self) -> Iterator[None]:
        """Name the file that the user asked for, not the one that stands in for it."""
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._output}: cannot be written: {error.strerror or error}") from error


class FeaturesOfFiles:
    """The features of image files, a row for each that can be read, and which cannot.

    `rest` are the numbers of the files that an earlier run did not come to, `broken` those that cannot be read.
    """

    table: FeatureTable | None = None
    features = 0
    """Of each image, 0 while that is not known."""

    def __init__(self, output: Path, files: Sequence[Path], *settings: object) -> None:
        """Find what an earlier run left of the same files with the same settings."""
        digest = hashlib.blake2b(repr((settings, [trace(file) for file in files])).encode(), digest_size=8)
        self._output, self._files, self._fingerprint = output, files, digest.hexdigest()
        path = _partial(output, self._fingerprint)
        self._broken_path = path.with_name(f"{path.name}.broken")
        with contextlib.suppress(OSError, ValueError):
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, _ = np.lib.format.read_array_header_1_0(file)
            self._open(shape[1])
        self.broken: list[int] = []
        with contextlib.suppress(OSError):
            lines = self._broken_path.read_text().split("\n")[:-1]
            self.broken = [int(line) for line in lines if line.isdigit() and int(line) < len(files)]
        self.found = self.table.rows if self.table else 0
        left_out = set(self.broken)
        self.rest = [number for number in range(len(files)) if number not in left_out][self.found :]

    def append(self, number: int, row: NDArray[np.floating]) -> None:
        """Add the features of a file; raises InputError if they are not as many as those before."""
        if self.table is None:
            self._open(row.size)
        if self.table is None or row.size != self.features:
            numbers = f"{row.size} features, those before {self.features}"
            raise InputError(f"{self._files[number]}: has {numbers}; bring images to one size by --resize")
        self.table.append(row.reshape(1, -1))

    def leave_out(self, number: int) -> None:
        """Note that a file cannot be read."""
        try:
            with self._broken_path.open("a") as file:
                file.write(f"{number}\n")
        except OSError as error:
            raise InputError(f"{self._output}: cannot be written: {error.strerror or error}") from error
        self.broken.append(number)

    def finish(self) -> None:
        """Write the output, where there is a row, and remove what it grew in."""
        from imae.experiments.feature_files import write_features

        if self.table is not None:
            converted = self._output.suffix in (".npz", ".parquet")
            self.table.finish(rename=not converted)
            if converted:
                left_out = set(self.broken)
                names = [str(file) for number, file in enumerate(self._files) if number not in left_out]
                write_features(self._output, np.load(self.table.path, mmap_mode="r"), names)
                self.table.path.unlink()
        self._broken_path.unlink(missing_ok=True)

    def _open(self, features: int) -> None:
        self.features = features
        self.table = FeatureTable(self._output, (len(self._files), features), self._fingerprint)


def _partial(output: Path, fingerprint: str) -> Path:
    return output.with_name(f"{output.name}.{fingerprint}.partial")


def _header(shape: tuple[int, ...]) -> bytes:
    """What a .npy begins with: of one length, whatever the number of rows."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def trace(path: Path) -> tuple[str, int, int]:
    """By what a file is known again: its name, its size and when it was changed; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_size, status.st_mtime_ns
