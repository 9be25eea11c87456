"""The forms in which `imae export` writes a real net: how large each file is, how right, and how fast in ONNX Runtime.

    python -m benchmarks.onnx_sizes [--rounds 30] [--data ROOT]

The net is the Caffe ResNet-20 of ../shared/data/resnet20, exported with its images' preparation in the model.
`accuracy` is that on the uint8 test images of CIFAR-10, which ROOT/cifar-10-batches-py holds; without, it is left out,
and int8 is quantized as activations come instead of by 512 training images. Times are of one thread,
the forms in turns.
"""

import argparse
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import ROOT, Benchmark, Row, Side, positive, take_turns
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_precision import Feeds, convert
from imae.nets.onnx_preprocess import ImageOptions

RESNET20 = ROOT.parent / "shared" / "data" / "resnet20"
FORMS = ("folded", "unfolded", "fp16", "int8, calibrated", "int8, dynamic")
CALIBRATION, BATCH = 512, 250


def read_batch(root: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images (N x 32 x 32 x 3) and labels of a file of CIFAR-10."""
    batch = pickle.loads((root / "cifar-10-batches-py" / name).read_bytes(), encoding="bytes")
    return np.ascontiguousarray(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), np.array(batch[b"labels"])


def write(form: str, path: Path, calibration: list[Feeds]) -> None:
    """Export the net in one of FORMS."""
    export_onnx(
        RESNET20 / "res20_cifar_train_test.prototxt",
        RESNET20 / "cifar10_res20_iter_64000.caffemodel",
        path,
        shape=(3, 32, 32),
        preprocess=ImageOptions(channels="RGB", mean=str(RESNET20 / "mean.binaryproto")),
        fold_channels=form != "unfolded",
    )
    convert(path, form[:4] if form[:4] in ("fp16", "int8") else "fp32", calibration if "calibrated" in form else [])


def accuracy(session: Any, root: Path) -> float:
    """Return the percentage of the test images that get their label."""
    images, labels = read_batch(root, "test_batch")
    parts = (session.run(None, {"Data1": images[i : i + BATCH]})[0].argmax(1) for i in range(0, len(images), BATCH))
    return 100 * float((np.concatenate(list(parts)) == labels).mean())


def asking(session: Any, batch: int) -> Callable[[], object]:
    """Return a pass of as many images."""
    images = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8)
    return lambda: session.run(None, {"Data1": images})


def add_options(parser: argparse.ArgumentParser) -> None:
    """How often, and where CIFAR-10 is."""
    parser.add_argument("--rounds", type=positive, default=30)
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="ROOT")


def measure(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """A row for each form."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    calibration: list[Feeds] = []
    if (options.data / "cifar-10-batches-py").is_dir():
        images, _ = read_batch(options.data, "data_batch_1")
        calibration = [{"Data1": images[i : i + 64]} for i in range(0, CALIBRATION, 64)]
    rows: dict[str, Row] = {}
    sessions = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS if calibration else (form for form in FORMS if "calibrated" not in form):
            path = Path(folder) / "net.onnx"
            write(form, path, calibration)
            sessions[form] = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
            found = f"{accuracy(sessions[form], options.data):.2f}" if calibration else None
            rows[form] = {"form": form, "bytes": path.stat().st_size, "accuracy": found}
    for batch in (1, 32):
        sides = {form: Side(asking, (session, batch)) for form, session in sessions.items()}
        for form, turns in take_turns(sides, options.rounds, label=f"batch {batch}").items():
            rows[form][f"ms_{batch}"] = turns.ms
    return list(rows.values()), []


BENCHMARK = Benchmark(
    "onnx_sizes",
    "ResNet-20 as ONNX, in several forms",
    {"form": "form", "bytes": "bytes", "accuracy": "accuracy %", "ms_1": "batch 1 ms", "ms_32": "batch 32 ms"},
    add_options,
    measure,
)

if __name__ == "__main__":
    BENCHMARK.main(__doc__)
