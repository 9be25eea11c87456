"""Figure 2 is drawn from a net: its blocks have the shapes and parameters of He et al.'s ResNets."""

from pathlib import Path

import pytest

from imae.experiments.pipeline_figure import blocks_of, pipeline_net, write_pipeline
from imae.prototxt_like.errors import InputError


def test_the_blocks_are_those_of_resnet_20() -> None:
    blocks = blocks_of(pipeline_net(20))
    assert [block.name for block in blocks] == [
        "input", "7 conv", "6 conv", "6 conv", "pooling", "FC", "softmax", "loss"
    ]  # fmt: skip
    assert [block.shape for block in blocks[:4]] == [(3, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert [block.shape for block in blocks[4:]] == [(64, 1, 1), (10,), (10,), ()]
    assert blocks[5].parameters == 64 * 10 + 10
    assert sum(block.parameters for block in blocks) == 269722


def test_the_page_has_the_figure_and_what_it_says(tmp_path: Path) -> None:
    page, markdown = write_pipeline(32, tmp_path / "new")
    text = markdown.read_text()
    assert "464,154 in all" in text and "| 10 conv |" in text and "imae reproduce figure2 --net 32" in text
    assert "data:image/svg+xml;" in page.read_text()
    assert {path.suffix for path in page.parent.iterdir()} == {".html", ".md", ".png", ".svg"}


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be 6n \+ 2"):
        write_pipeline(21, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be created"):
        write_pipeline(20, tmp_path / "file" / "folder")
