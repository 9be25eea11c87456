"""The cases of all layers, which every witness reads: each layer's stand in its own test file, as `CASES`.

The file of `layers/activation/relu.py` is `tests/layers/activation/test_relu.py`. A witness is a test under
`@every_case()`: it runs on each case, and says of each type that it leaves out why.
"""

import importlib.util
import re
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from imae.layers.blob import Shape
from imae.layers.data.data_layer import DataLayer
from imae.layers.data.input import Input
from imae.layers.gradient_check import backward, build_layer
from imae.layers.layer import Diffs, Layer, Saved, Tensors
from imae.layers.registry import registry
from imae.prototxt_like.schema import TEST, TRAIN, LayerParameter
from imae.prototxt_like.text import parse_net

__all__ = ["DEVICES", "TEST", "TRAIN", "Case", "Draw", "every_case", "labels", "normal", "run", "uniform"]

HERE = Path(__file__).parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
"""Where what Caffe recorded is computed: the CPU, and a GPU where there is one."""


class Draw:
    """Random float64 tensors, from one generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)


Maker = Callable[[Draw], Tensor]
Reference = Callable[[Tensors, Tensors], Sequence[Tensor]]


def normal(*shape: int) -> Maker:
    """A bottom from the standard normal distribution."""
    return lambda draw: draw.normal(*shape)


def uniform(*shape: int) -> Maker:
    """A bottom from 0 to 1."""
    return lambda draw: draw.uniform(*shape)


def labels(classes: int, *shape: int) -> Maker:
    """A bottom of class indices (int64)."""
    return lambda draw: draw.integers(0, classes, *shape)


@dataclass(frozen=True, eq=False)
class Case:
    """A layer at a point, and what it computes there in PyTorch's own terms.

    `text` is the fields of a prototxt's `layer`, and `reference` gives the tops from the bottoms and the blobs; its
    derivative by autograd is the layer's. `blobs` draws all blobs; without, each is normal.
    """

    text: str
    bottoms: Sequence[Maker]
    reference: Reference
    phase: int = TRAIN
    forwards: int = 0
    blobs: Callable[[Draw], list[Tensor]] | None = None
    without: Mapping[str, str] = field(default_factory=dict)
    """Witnesses that leave this case out, each with the reason."""

    @cached_property
    def param(self) -> LayerParameter:
        return parse_net(f"layer {{ {self.text} }}", "layer").layer[0]

    @property
    def type(self) -> str:
        return self.param.type

    @property
    def seed(self) -> int:
        """From which its numbers are drawn: the case's own, whatever others there are."""
        return zlib.crc32(f"{self.text} {self.phase} {self.forwards}".encode())

    def draw(self, again: int = 0) -> Tensors:
        """The bottoms: float64, or int64 for indices; new tensors, which may be changed, and other ones `again`."""
        draw = Draw(self.seed + 10 * again)
        return [make(draw) for make in self.bottoms]

    @cached_property
    def shapes(self) -> list[Shape]:
        return [tuple(x.shape) for x in self.draw()]

    def drawn_blobs(self) -> Tensors | None:
        return self.blobs(Draw(self.seed + 1)) if self.blobs else None

    def build(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Layer:
        """The layer, with its blobs drawn (exact in float32, so that precisions can be compared)."""
        settings = {"phase": self.phase, "forwards": self.forwards, "dtype": dtype, "device": device}
        layer = build_layer(self.param, self.shapes, **settings)
        draw = Draw(self.seed + 2)
        given = self.drawn_blobs() or [draw.normal(*blob.shape) for blob in layer.blobs]
        for blob, data in zip(layer.blobs, given, strict=True):
            blob.data.copy_(data.float())
        return layer

    def __str__(self) -> str:
        shapes = "+".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)
        return f"{self.text} {shapes} {'TRAIN' if self.phase == TRAIN else 'TEST'} {self.forwards}"


def run(layer: Layer, bottoms: Tensors, top_diffs: Tensors | None = None) -> tuple[Tensors, Diffs]:
    """Run forward and, with `top_diffs` (0.5 to 1.5 unless given), backward; return the tops and the bottom diffs."""
    saved: Saved = {}
    tops = layer.forward(bottoms, saved)
    given = weights(tops) if top_diffs is None else top_diffs
    needs = [i not in layer.no_gradient_to for i in range(len(bottoms))]
    return tops, backward(layer, bottoms, tops, given, saved, needs)


def weights(tops: Tensors) -> Tensors:
    """Gradients by the tops, from 0.5 to 1.5."""
    return [torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype, device=y.device).view(y.shape) for y in tops]


def first_top(text: str, *bottoms: Tensor, phase: int = TRAIN, forwards: int = 0, seed: int = 0) -> Tensor:
    """The first top of a layer with the blobs its fillers gave it."""
    shapes = [tuple(x.shape) for x in bottoms]
    layer = build_layer(text, shapes, phase=phase, forwards=forwards, seed=seed, dtype=bottoms[0].dtype)
    return layer.forward(list(bottoms), {})[0]


@cache
def ours() -> dict[str, type[Layer]]:
    """The layer types of this package."""
    return {name: layer for name, layer in registry.items() if layer.__module__.startswith("imae.")}


def fed_from_outside() -> set[str]:
    """Types that have no bottoms: what they give is files' or the caller's, and tested in their own files alone."""
    return {name for name, layer in ours().items() if issubclass(layer, DataLayer | Input)}


@cache
def file_of_tests(layer: type[Layer]) -> Path:
    """Where the tests and the cases of a layer stand."""
    *_, family, file = layer.__module__.split(".")
    return HERE / family / f"test_{file}.py"


@cache
def load(path: Path) -> ModuleType:
    """A layer's test file as a module, apart from the one that pytest makes of it."""
    name = f"cases_of_{path.stem.removeprefix('test_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@cache
def all_of(name: str) -> Sequence[Any]:
    """The elements of all lists of this name in the layers' test files, in order."""
    files = dict.fromkeys(file_of_tests(layer) for layer in ours().values())
    return [element for path in files if path.exists() for element in getattr(load(path), name, [])]


def all_cases() -> Sequence[Case]:
    """The cases of all layers."""
    return all_of("CASES")


def has_derivative(case: Case) -> bool:
    """Whether the layer has a derivative by any of its bottoms."""
    return not set(range(len(case.bottoms))) <= ours()[case.type].no_gradient_to


def every_case(where: Callable[[Case], bool] | None = None, why: str = "", **left_out: str) -> Callable[..., Any]:
    """Make a test with a parameter `case` a witness: it runs on the cases of all layers.

    Left out are the types in `left_out`, each with the reason why, and, for the reason `why`, cases for which `where`
    does not hold.
    """
    unknown = set(left_out) - set(ours())
    assert not unknown, f"no such layers: {unknown}"
    assert all(left_out.values()) and bool(why) == bool(where), "each type or case that is left out has its reason"

    def decorate(test: Callable[..., Any]) -> Any:
        chosen = [
            case
            for case in all_cases()
            if case.type not in left_out and test.__name__ not in case.without and (where is None or where(case))
        ]
        return pytest.mark.parametrize("case", chosen, ids=str)(test)

    return decorate


def witnesses() -> set[str]:
    """The names of all tests that are decorated by `every_case`."""
    text = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    return set(re.findall(r"@every_case\((?:[^@]|@(?!every))*?\ndef (test_\w+)", text))
