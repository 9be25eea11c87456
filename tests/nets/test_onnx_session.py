"""ONNX Runtime's providers: TensorRT, else CUDA, else the CPU, by what is installed, what is there and what works."""

import ctypes.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from imae.nets.net import Net
from imae.nets.onnx_export import export_onnx
from imae.nets.predictor import Predictor
from imae.prototxt_like.text import parse_net

TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = 'input: "data" input_shape { dim: 1 dim: 3 dim: 4 dim: 5 } '
    net = Net(parse_net(text + 'layer { name: "y" type: "Flatten" bottom: "data" top: "y" }'), backward=False)
    return export_onnx(net, None, tmp_path / "net.onnx", preprocess=True).path


def machine(
    monkeypatch: pytest.MonkeyPatch,
    installed: Sequence[str],
    *,
    gpu: bool,
    nvinfer: bool,
    fails: str = "",
    how: str = "",
) -> None:
    """Have ONNX Runtime tell of these providers; the one that `fails` does it by an error, or by leaving its place to
    the CPU, as ONNX Runtime does where a library is missing. All is computed on the CPU."""
    real = onnxruntime.InferenceSession

    class Session:
        def __init__(self, path: str, settings: Any, providers: list[str]) -> None:
            failing = providers[0] == fails
            if failing and how == "raises":
                raise RuntimeError("no engine for this model")
            self.providers = providers[1:] if failing else providers
            self.real = real(path, settings, providers=[CPU])

        def get_providers(self) -> list[str]:
            return self.providers

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(installed))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "nvinfer.so" if nvinfer else None)


ALL = (CPU, CUDA, TENSORRT)


@pytest.mark.parametrize(
    ("installed", "there", "fails", "expected"),
    [
        (ALL, {"gpu": True, "nvinfer": True}, {}, "Tensorrt"),
        (ALL, {"gpu": True, "nvinfer": False}, {}, "CUDA"),
        (ALL, {"gpu": False, "nvinfer": True}, {}, "CPU"),
        ((CUDA, CPU), {"gpu": True, "nvinfer": True}, {}, "CUDA"),
        ((CPU,), {"gpu": True, "nvinfer": True}, {}, "CPU"),
        (ALL, {"gpu": True, "nvinfer": True}, {"fails": TENSORRT, "how": "raises"}, "CUDA"),
        (ALL, {"gpu": True, "nvinfer": True}, {"fails": TENSORRT, "how": "steps back"}, "CUDA"),
        (ALL, {"gpu": True, "nvinfer": False}, {"fails": CUDA, "how": "raises"}, "CPU"),
        (ALL, {"gpu": True, "nvinfer": False}, {"fails": CUDA, "how": "steps back"}, "CPU"),
    ],
)
def test_the_first_provider_that_works_is_chosen_and_said(
    installed: Sequence[str], there: dict[str, bool], fails: dict[str, str], expected: str, model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    machine(monkeypatch, installed, **there, **fails)
    predictor = Predictor(model)
    assert predictor.provider == expected
    assert f"by ONNX Runtime on {expected}:" in str(predictor)
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    np.testing.assert_array_equal(predictor(pixels)["y"][0], pixels[:, :, ::-1].transpose(2, 0, 1).ravel())
    assert Predictor(model, cpu=True).provider == "CPU"
