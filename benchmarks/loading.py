"""How long files take to load: prototxt, caffemodel and LMDB.

    python -m benchmarks.loading [--blocks 5 10 5] [--records 50000] [--rounds 5]

The ResNet-20 that Caffe trained is looked for in `../shared/data/resnet20`; Inception-ResNet-v2, with the weights that
its fillers give, and the LMDB, of noise, are written for the occasion. All files are in the system's cache. The floor
is to read the file's bytes into memory.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import synthetic
from benchmarks.inception_resnet_v2 import inception_resnet_v2
from benchmarks.measuring import ROOT, Benchmark, Row, Side, positive, ratio, take_turns
from imae.layers.data.lmdb_file import LmdbFile
from imae.nets.net import Net
from imae.prototxt_like.binary import read_caffemodel, write_caffemodel
from imae.prototxt_like.schema import TRAIN
from imae.prototxt_like.text import read_net, write_text

GIVEN = Path("../shared/data/resnet20")
"""From the repository's root."""

Loading = tuple[str, Path, Callable[[], object]]
"""What is loaded, the file, and how."""


def given(folder: Path) -> Iterator[Loading]:
    """Yield the loading of the ResNet-20 in `folder`."""
    prototxt, weights = folder / "res20_cifar_train_test.prototxt", folder / "cifar10_res20_iter_64000.caffemodel"
    yield "ResNet-20: prototxt", prototxt, lambda: read_net(prototxt)
    yield "ResNet-20: caffemodel", weights, lambda: read_caffemodel(weights)


def generated(folder: Path, blocks: Sequence[int]) -> Iterator[Loading]:
    """Write Inception-ResNet-v2 to `folder`, and yield its loading."""
    prototxt, weights = folder / "net.prototxt", folder / "net.caffemodel"
    write_text(inception_resnet_v2(blocks=blocks), prototxt)
    net = Net(prototxt, TRAIN)
    write_caffemodel(net.to_proto(), weights)
    yield "Inception-ResNet-v2: prototxt", prototxt, lambda: read_net(prototxt)
    yield "Inception-ResNet-v2: caffemodel", weights, lambda: read_caffemodel(weights)
    yield "Inception-ResNet-v2: caffemodel into its net", weights, lambda: net.copy_weights(weights)


def database(folder: Path, records: int) -> Iterator[Loading]:
    """Write an LMDB of `records` to `folder`, and yield its loading."""
    file = synthetic.write_lmdb(folder / "lmdb", records) / "data.mdb"

    def read_all() -> int:
        opened = LmdbFile(file.parent)
        return sum(len(opened[number][1]) for number in range(len(opened)))

    yield f"LMDB of {records:,} records: opened", file, lambda: LmdbFile(file.parent)
    yield f"LMDB of {records:,} records: opened, each read", file, read_all


def compare(what: str, path: Path, load: Callable[[], object], rounds: int) -> Row:
    """Return the row of a file: its loading against the reading of its bytes."""
    sides = {"ours": Side(lambda: load), "bytes": Side(lambda: path.read_bytes)}
    turns = take_turns(sides, rounds, label=what, warm_up=1)
    ours, floor = turns["ours"].ms, turns["bytes"].ms
    mb = path.stat().st_size / 1e6
    return {"what": what, "mb": mb, "floor_ms": floor, "ours_ms": ours, "times": ratio(ours, floor)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """How large the files are."""
    parser.add_argument("--blocks", type=int, nargs=3, default=[5, 10, 5], help="Of Inception-ResNet-A, -B and -C.")
    parser.add_argument("--records", type=positive, default=50000)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--given", type=Path, default=GIVEN, help="The folder with Caffe's ResNet-20.")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each file."""
    rows: list[Row] = []
    there = (ROOT / options.given).exists()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        loadings = list(given(ROOT / options.given)) if there else []
        loadings += [*generated(folder, options.blocks), *database(folder, options.records)]
        for what, path, load in loadings:
            rows.append(compare(what, path, load, options.rounds))
    missing = [] if there else [f"Caffe's ResNet-20 is not at {options.given}: left out."]
    return rows, missing


BENCHMARK = Benchmark(
    "loading",
    "Loading files",
    {"what": "what", "mb": "MB", "floor_ms": "floor ms", "ours_ms": "ours ms", "times": "ours / floor"},
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
