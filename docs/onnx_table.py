"""Writes the table of docs/onnx.md, from the layers' `to_onnx`.

python docs/onnx_table.py
"""

from collections.abc import Iterator
from pathlib import Path

from imae.layers.registry import registry
from imae.nets.onnx_forms import onnx_form
from imae.prototxt_like.files import write_atomically

PAGE = Path(__file__).with_name("onnx.md")
BEGIN, END = "<!-- table: written by python docs/onnx_table.py -->", "<!-- end of table -->"


def rows() -> Iterator[str]:
    """Yield a row for each type of layer."""
    yield "| layer | in ONNX |"
    yield "| --- | --- |"
    for kind, layer in registry.items():
        yield f"| `{kind}` | {onnx_form(layer)} |"


def written(page: str) -> str:
    """Return the page with today's table."""
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return "\n".join([f"{before}{BEGIN}\n", *rows(), f"\n{END}{after}"])


if __name__ == "__main__":
    write_atomically(PAGE, written(PAGE.read_text()).encode())
