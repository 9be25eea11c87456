"""docs/onnx.md says of each layer what it becomes, and of the command what it takes."""

import re
from pathlib import Path

from docs import onnx_table
from imae.layers.registry import registry

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "onnx.md").read_text()


def test_the_table_is_what_the_layers_say() -> None:
    assert onnx_table.written(PAGE) == PAGE
    assert all(f"| `{kind}` |" in PAGE for kind in registry)


def test_the_options_named_exist() -> None:
    source = "".join((ROOT / "cli" / name).read_text() for name in ("export.py", "options.py"))
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    spelled = {option.replace("--", "").replace("-", "_") for option in named}
    assert len(named) > 15
    assert [option for option in spelled if option not in source] == []
