"""`imae convert images`, from the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imae.layers.data.lmdb_file import LmdbFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/a b.png", "dog/é.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_the_command_names_broken_images_or_leaves_them_out(imae: Callable[..., Any], folder: Path) -> None:
    (folder / "list.txt").write_text("cat/a b.png 0\n\nnone.png 1\nlist.txt 1\ndog/é.png 2\n")
    out = folder.parent / "out"
    command = ["convert", "images", str(folder / "list.txt"), str(out)]
    refused = imae(*command)
    assert refused.status == 1 and not out.exists(), refused
    assert refused.err.startswith(f"imae: error: {folder}/list.txt: line 3: {folder}/none.png: cannot be read")
    done = imae(*command, "--skip-broken", "--check_size")
    assert done.status == 0 and f"Wrote {out}: 2 images" in done.out
    assert f"2 of 4 images cannot be read and are left out, the first:\n{folder}/list.txt: line 3: " in done.out
    written = LmdbFile(out)
    assert [written[i][0].decode() for i in range(len(written))] == ["00000000_cat/a b.png", "00000003_dog/é.png"]
    again = imae(*command, "--skip-broken")
    assert again.status == 1 and "exists already" in again.err
    named = imae("convert", "images", str(folder), str(out), "--force", "--resize_height", "4", "--resize-width", "4")
    assert named.status == 0 and f"2 images of 2 classes, named in {out}/classes.txt" in named.out
    assert imae("convert", "images", str(folder), str(out), "--resize-height", "4").status == 2
