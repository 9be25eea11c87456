"""docs/onnx.md says of each layer what it becomes, and of the command what it takes."""

import re
from pathlib import Path

from docs import onnx_table
from imae.layers.layer import Layer
from imae.layers.registry import registry

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "onnx.md").read_text()


def test_the_table_has_every_layer_and_says_what_it_becomes() -> None:
    """Python docs/onnx_table.py writes it."""
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE.partition(onnx_table.BEGIN)[2], re.MULTILINE)
    assert [kind for kind, _ in listed] == list(registry)
    left_out = {kind for kind, form in listed if form.startswith("left out")}
    assert left_out.isdisjoint(kind for kind, layer in registry.items() if layer.to_onnx is not Layer.to_onnx)


def test_the_options_named_exist() -> None:
    source = "".join(
        (ROOT / "cli" / name).read_text() for name in ("export.py", "options.py", "predict.py", "import_onnx.py")
    )
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    spelled = {option.replace("--", "").replace("-", "_") for option in named}
    assert len(named) > 15
    assert [option for option in spelled if option not in source] == []
