"""Sessions of ONNX Runtime on the best processor there is, whose complaints are InputErrors."""

import ctypes.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import check_regular

CPU = "CPUExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_PROVIDERS = (_TENSORRT, "CUDAExecutionProvider", CPU)
"""From the fastest on."""


def start_session(path: Path, *, cpu: bool = True, threads: int | None = None, advice: str = "") -> Any:
    """Return a session of the model: by TensorRT, else CUDA, else on the CPU, alone where `cpu`.

    It has as many `threads`, or ONNX Runtime's own number. Raises InputError, with `advice`, if it cannot be loaded.
    """
    import onnxruntime

    check_regular(path)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    if threads:
        settings.intra_op_num_threads = threads
    *fast, last = [CPU] if cpu else _there(onnxruntime)
    for provider in fast:
        try:
            session = onnxruntime.InferenceSession(str(path), settings, providers=[provider, CPU])
        except Exception:  # of several kinds of ONNX Runtime's own: the next one says what is wrong with the model
            continue
        if session.get_providers()[0] == provider:
            return session
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=[last])
    except Exception as error:  # of several kinds of ONNX Runtime's own
        reason = " ".join(str(error).split())
        version = onnxruntime.__version__
        raise InputError(f"{path}: ONNX Runtime {version} cannot load it{advice}: {reason}") from error


def run(session: Any, path: Path, given: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[Any]:
    """Run the model of `path`; raises InputError if ONNX Runtime cannot."""
    try:
        return list(session.run(list(outputs), given))
    except Exception as error:  # of several kinds of ONNX Runtime's own
        raise InputError(f"{path}: ONNX Runtime cannot run it: {' '.join(str(error).split())}") from error


@contextmanager
def giving_out(path: Path, model: onnx.ModelProto, values: Sequence[str]) -> Iterator[Path]:
    """Give a model that has these values of `model`, which `path` was read as, as outputs, too."""
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in given)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for beside in path.parent.glob(f"{path.name}.data"):
            copy.with_name(beside.name).symlink_to(beside.resolve())
        copy.write_bytes(model.SerializeToString())
        yield copy


def _there(onnxruntime: Any) -> list[str]:
    """The providers that were installed and may work here, from the fastest on."""
    import torch

    if not torch.cuda.is_available():
        return [CPU]
    if hasattr(onnxruntime, "preload_dlls"):  # CUDA's libraries, those of PyTorch
        onnxruntime.preload_dlls()
    installed = onnxruntime.get_available_providers()
    without = "" if ctypes.util.find_library("nvinfer") else _TENSORRT
    return [name for name in _PROVIDERS if name in installed and name != without]
