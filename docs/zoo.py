"""Writes the table of docs/zoo.md, from the nets themselves.

python docs/zoo.py
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from imae.layers.layer import Shape
from imae.nets.deploy import deploy
from imae.nets.net import Net
from imae.nets.zoo import NETS, build
from imae.prototxt_like.files import write_atomically

PAGE = Path(__file__).with_name("zoo.md")
BEGIN, END = "<!-- table: written by python docs/zoo.py -->", "<!-- end of table -->"
HEADER = ("`imae net`", "parameters", "takes", "gives", "paper", "layers are called as by")


def parameters(net: Net) -> int:
    """Return how many numbers a net learns: all blobs but the running statistics of BatchNorm."""
    statistics = {id(blob) for step in net.steps if step.layer.type == "BatchNorm" for blob in step.layer.blobs}
    return sum(blob.data.numel() for blob in net.learnable if id(blob) not in statistics)


@functools.cache
def predicting(name: str) -> Net:
    """Return the net called `name` for one image, without labels, losses and values."""
    return Net(deploy(build(name, batch=1)), device="meta", backward=False)


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the cells of each net's row."""
    for name, published in NETS.items():
        net = predicting(name)
        takes = ", ".join(f"{blob} {_shape(net.shape(blob))}" for blob in net.inputs)
        gives = f"{net.outputs[-1]} {_shape(net.shape(net.outputs[-1]))}"
        yield f"`{name}`", f"{parameters(net):,}", takes, gives, published.paper, published.named_as


def written(page: str) -> str:
    """Return the page with today's table."""
    lines = [HEADER, tuple("---" for _ in HEADER), *rows()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape[1:] if shape[0] == 1 else shape))


if __name__ == "__main__":
    write_atomically(PAGE, written(PAGE.read_text()).encode())
