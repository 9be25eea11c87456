"""Writes a miniature MARS; what reads MARS's tables is `imae.prototxt_like.mars_info`."""

import io
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.mars_info import MATRIX, Part, frame_path

CAMERAS = 6


def write_miniature(
    root: str | os.PathLike[str],
    *,
    persons: int = 4,
    tracks_per_person: int = 4,
    frames_per_track: int = 3,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    unseen: bool = True,
) -> None:
    """Write a complete MARS in small under `root`, the same bytes for the same arguments.

    `persons` people are for training (1, 3, 5, ...) and as many others for testing (2, 4, 6, ...), each seen in
    `tracks_per_person` tracks by cameras 1, 2, ... in turn; the test part starts with as many tracks of junk and of
    distractors. Frames are `size` = (height, width) pixels; the colours of the clothes tell the person, the light
    depends on the camera, noise and place on the frame. A query is the first track of every test person and camera.
    Not `unseen`, the test part shows the persons for training instead of others, in other frames.

    Raises InputError for arguments out of range and if a file cannot be written.
    """
    if not 1 <= persons < 5000 or tracks_per_person < 2 or frames_per_track < 1 or min(size) < 8 or seed < 0:
        raise InputError(
            f"MARS in small: {persons} persons, {tracks_per_person} tracks each, {frames_per_track} frames each, "
            f"size {size}, seed {seed}: expected 1 to 4999, at least 2, at least 1, at least 8 x 8 pixels, at least 0"
        )
    train = list(range(1, 2 * persons, 2))
    test = [-1, 0, *(range(2, 2 * persons + 1, 2) if unseen else train)]
    parts: tuple[tuple[Part, list[int]], ...] = (("train", train), ("test", test))
    for part, people in parts:
        drawn_before = tracks_per_person if part == "test" and not unseen else 0
        names: list[str] = []
        table: list[tuple[int, int, int, int]] = []
        for person in people:
            for track in range(tracks_per_person):
                camera = 1 + track % CAMERAS
                first = len(names) + 1
                for frame in range(frames_per_track):
                    folder = "00-1" if person == -1 else f"{person:04d}"
                    names.append(f"{folder}C{camera}T{track + 1:04d}F{frame + 1:03d}.jpg")
                    path = frame_path(root, part, names[-1])
                    random = np.random.default_rng((seed, person + 1, drawn_before + track, frame))
                    _write(path, _jpeg(person, camera, size, random))
                table.append((first, len(names), person, camera))
        info = Path(root) / "info"
        _write(info / f"{part}_name.txt", "".join(f"{name}\n" for name in names).encode())
        _write(info / f"tracks_{part}_info.mat", _mat(f"track_{part}_info", table))
    # The last table is the test part's; the cameras repeat after the first CAMERAS tracks of a person.
    queries = [row + 1 for row, track in enumerate(table) if track[2] > 0 and row % tracks_per_person < CAMERAS]
    _write(info / "query_IDX.mat", _mat("query_IDX", [queries]))


def _mat(name: str, rows: ArrayLike) -> bytes:
    matrix = np.array(rows, "<f8")
    parts = (
        (6, struct.pack("<II", 6, 0)),  # the class: double
        (5, struct.pack("<ii", *matrix.shape)),
        (1, name.encode()),
        (9, matrix.tobytes(order="F")),
    )
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + _element(MATRIX, b"".join(_element(*p) for p in parts))


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _jpeg(person: int, camera: int, size: tuple[int, int], random: np.random.Generator) -> bytes:
    """Draw somebody in two colours of clothes under the camera's light, a little off the middle, with noise."""
    from PIL import Image

    height, width = size
    clothes = np.random.default_rng(person + 1).uniform(0.1, 1.0, (2, 3))
    picture = np.full((height, width, 3), 0.5)
    left = width // 4 + int(random.integers(-(width // 16), width // 16 + 1))
    for top, bottom, colour in ((height // 8, height // 2, clothes[0]), (height // 2, height * 7 // 8, clothes[1])):
        picture[top:bottom, left : left + width // 2] = colour
    picture = picture * (1 - 0.05 * (camera - 1)) + random.normal(0, 0.02, picture.shape)
    buffer = io.BytesIO()
    Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be made: {error.strerror or error}") from error
    write_atomically(path, data)
