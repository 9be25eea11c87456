"""The layer contract: what a layer is, and what it knows of the net around it."""

import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from imae.layers.autograd_refusal import refusing_autograd
from imae.layers.blob import LARGEST_COUNT
from imae.layers.blob import Blob as Blob
from imae.layers.blob import Shape as Shape
from imae.layers.deferred_checks import DeferredChecks
from imae.layers.fillers import fill
from imae.layers.onnx_graph import OnnxGraph as OnnxGraph
from imae.layers.pass_counter import PassCounter
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.limits import BLOB_AXES
from imae.prototxt_like.schema import TEST as TEST
from imae.prototxt_like.schema import TRAIN as TRAIN
from imae.prototxt_like.schema import FillerParameter, LayerParameter

Shapes = list[Shape]
Saved = dict[str, Any]
Tensors = list[Tensor]
Diffs = list[Tensor | None]


@dataclass(frozen=True)
class Kept:
    """The places of the bottoms and tops whose values a layer's `backward` reads."""

    bottoms: tuple[int, ...] = ()
    tops: tuple[int, ...] = ()


@dataclass
class Context:
    """What a layer knows of the net around it. Relative paths in a prototxt are looked up in `folders`, in order."""

    phase: int = TRAIN
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    folders: tuple[Path, ...] = (Path(),)
    generator: torch.Generator = field(default_factory=torch.Generator)  # draws the initial weights
    passes: PassCounter = field(default_factory=PassCounter)
    checks: DeferredChecks = field(default_factory=DeferredChecks)
    mean_over_processes: Callable[[Tensor], Tensor] = lambda value: value  # of a scalar, for sums over all the batches
    filled: bool = True  # whether blobs get initial values
    skip_broken: bool = False  # whether layers leave out image files that cannot be read, whatever their prototxt says
    allow_python: bool = False  # whether code that the prototxt names may run: of `Python` layers

    def find(self, name: str) -> Path:
        """Return the path of file or folder `name`: where the first of `folders` has it, else as it stands."""
        if os.path.isabs(name):  # noqa: PTH117  strings take a third of Path's time, and there are lists of many files
            return Path(name)
        found = (os.path.join(folder, name) for folder in self.folders)  # noqa: PTH118
        return Path(next(filter(os.path.exists, found), name))


class Layer:
    """A function of tensors with an explicit derivative.

    A subclass sets `type`, says how many bottoms and tops it takes, and writes `setup`, `reshape`, `forward` and
    `backward`. All that passes from forward to backward are the values that `keeps` names, and `saved`; all that passes
    from one forward to the next are the blobs and `state`.
    """

    type: ClassVar[str] = ""
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)  # fewest and most bottoms; None: any number
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    is_loss: ClassVar[bool] = False  # whether the first top has loss weight 1 unless the prototxt says otherwise
    no_gradient_to: frozenset[int] = frozenset()  # bottoms by which the layer has no derivative, such as labels
    held_fixed: frozenset[int] = frozenset()  # those of them taken as given, such as the blob whose size Crop takes
    no_gradient_from: frozenset[int] = frozenset()  # tops whose gradient `backward` leaves out, as indices of maxima
    index_bottoms: frozenset[int] = frozenset()  # bottoms read as integers, such as labels: float32 at least
    index_tops: frozenset[int] = frozenset()  # tops that are such indices
    in_place: ClassVar[bool] = True  # whether a top may have the name of a bottom; not where Caffe refuses that
    kept: ClassVar[Kept | None] = None  # what `backward` reads; None: all. Where settings decide it, `keeps` is written
    moves: ClassVar[bool] = False  # whether numbers of bottoms with a derivative are in the tops as they are, elsewhere
    tops_vary: ClassVar[bool] = False  # whether values may make tops of `forward` smaller than `reshape` says
    recomputes: ClassVar[bool] = False  # whether a net frees its tops in forward and `recompute`s them in backward
    capturable: ClassVar[bool] = False
    """Whether a pass can be captured in a CUDA graph and replayed.

    It can if `forward` and `backward` read no tensor's value on the host, and depend on nothing that changes from pass
    to pass but tensors at fixed addresses: on `context.passes.on_device`, where that is set, instead of the number.
    """
    last_opset: ClassVar[int] = 1000
    """The last of ONNX's opsets of which ONNX Runtime has the operators that the layer becomes."""
    geometry: Any = None  # what follows from the bottoms' shapes, as `reshape` sets it; never changed, only replaced

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "reshape" in vars(cls):
            cls.reshape = _within_bounds(cls.reshape)  # type: ignore[method-assign]
        if "forward" in vars(cls):
            cls.forward = refusing_autograd(cls.forward)  # type: ignore[method-assign, assignment]
        if "backward" in vars(cls):
            cls.backward = torch.no_grad()(cls.backward)  # type: ignore[method-assign]

    def __init__(self, param: LayerParameter, context: Context | None = None) -> None:
        self.param = param
        self.name: str = param.name
        self.context = context or Context()
        self.phase: int = param.phase if param.HasField("phase") else self.context.phase
        self.blobs: list[Blob] = []
        self.state: list[Tensor] = []  # what outlives a pass beside the blobs, as hidden values; updated in place

    @property
    def training(self) -> bool:
        """Whether its phase is TRAIN."""
        return self.phase == TRAIN

    def setup(self, bottoms: Shapes) -> None:
        """Check the prototxt and create the blobs, for bottoms of these shapes. Called once.

        Raises InputError, naming the layer, for what does not fit.
        """

    def reshape(self, bottoms: Shapes) -> Shapes | None:
        """Set `geometry` for bottoms of these shapes, and return the tops' shapes; None: only `forward` tells them.

        Where values decide the shapes (`tops_vary`), these are the largest. Called after `setup`, and whenever a
        bottom's shape has changed; makes no buffers. Raises InputError, naming the layer, for bottoms that do not fit
        it; that no top is too large is seen to for all layers alike.
        """
        raise NotImplementedError

    def keeps(self) -> Kept:
        """Return which bottoms and tops `backward` reads."""
        return self.kept or Kept(tuple(range(len(self.param.bottom))), tuple(range(len(self.param.top))))

    def moved_from(self, top: int) -> Sequence[int]:
        """Return the places of the bottoms whose numbers are in top `top` as they are, elsewhere.

        Where that top is read as indices, they are kept in these bottoms, too.
        """
        return [i for i in range(len(self.param.bottom)) if self.moves and i not in self.no_gradient_to]

    def forward(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return the tops; put in `saved` what else `backward` needs. Never changes a bottom.

        The derivative is `backward` alone: where a tensor requires a gradient, autograd through the tops raises
        InputError, as it would give another one at kinks and bounds, and for IMAE everywhere.
        """
        raise NotImplementedError

    def backward(self, bottoms: Tensors, tops: Tensors, top_diffs: Tensors, saved: Saved, needs: list[bool]) -> Diffs:
        """Return the derivative of the loss by each bottom that `needs` it, and add to each blob's `diff`.

        Of `bottoms` and `tops` only those that `keeps` names may be read. A layer without a derivative has no need to
        write it.
        """
        if any(needs) or self.blobs:
            raise NotImplementedError
        return [None] * len(needs)

    def recompute(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return the tops of the last `forward` once more; only of layers with `recomputes`.

        Has no side effects: running statistics stay as they are, and nothing random is drawn.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Set `state` to zero, as before the first pass."""
        for tensor in self.state:
            tensor.zero_()

    def surrogate(self, bottoms: Tensors, saved: Saved) -> Tensors:
        """Return tops whose derivative at a point is what `backward` gives there, for the gradient checker.

        They are `forward`'s, unless the layer's gradient is defined with something held fixed; that is in `saved`, from
        `forward` at the point. Tops in `no_gradient_from` may be left out at the end; for a scalar the terms may
        stand of which it is the sum.
        """
        return self.forward(bottoms, {})

    def to_onnx(self, graph: OnnxGraph, bottoms: list[str], tops: list[str]) -> None:
        """Add the nodes of its TEST phase to `graph`, from the values named `bottoms` to those named `tops`."""
        raise self.error("has no ONNX form")

    def check_counts(self) -> None:
        """Raise InputError unless the prototxt gives as many bottoms and tops as it takes, and others where needed."""
        for what in ("bottom", "top"):
            (least, most), count = getattr(self, f"{what}s"), len(getattr(self.param, what))
            if count < least or (most is not None and count > most):
                expected = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
                blobs = "blob" if expected == "1" else "blobs"
                raise self.error(f"takes {expected} {what} {blobs}, the prototxt gives {count}")
        for name in self.param.top:
            if name in self.param.bottom and not self.in_place:
                raise self.error(f'does not work in place: "{name}" is a bottom and a top of it')

    def loss_weights(self) -> list[float]:
        """Return the weight of each top in the net's loss."""
        given = list(self.param.loss_weight)
        if given and len(given) != len(self.param.top):
            raise self.error(f"loss_weight must be given for each of its {len(self.param.top)} tops, not {len(given)}")
        return given or [1.0 if self.is_loss and i == 0 else 0.0 for i in range(len(self.param.top))]

    def add_blob(self, shape: Sequence[int], filler: FillerParameter) -> Blob:
        """Append a blob of `shape` with its initial values drawn by `filler`, its multipliers from the next `param`."""
        self.check_size("blob", tuple(shape))
        dtype = torch.float64 if self.context.dtype == torch.float64 else torch.float32
        without_values = self.context.device.type == "meta"
        try:
            data = torch.empty(tuple(shape), dtype=dtype, device="meta" if without_values else "cpu")
        except RuntimeError:  # PyTorch's allocator, at length
            size = math.prod(shape) * dtype.itemsize / 2**30
            raise self.error(f"out of memory for its blob of {describe(shape)}, {size:.1f} GiB") from None
        if self.context.filled and not without_values:
            with self.naming():
                fill(data, filler, self.context.generator)
        blob = Blob(data.to(self.context.device))
        if len(self.blobs) < len(self.param.param):
            spec = self.param.param[len(self.blobs)]
            blob.lr_mult, blob.decay_mult = spec.lr_mult, spec.decay_mult
        self.blobs.append(blob)
        return blob

    def blob_values(self, i: int) -> Tensor:
        """Return blob `i` in the precision of a pass, for a layer whose bottoms do not tell it."""
        data, dtype = self.blobs[i].data, self.context.dtype
        return data.to(dtype) if dtype.itemsize < data.dtype.itemsize == 4 else data

    def check_size(self, what: str, shape: Shape) -> None:
        """Raise InputError if its `what`, of this shape, has more numbers or axes than a blob may have."""
        if len(shape) > BLOB_AXES:
            raise self.error(f"its {what} would have {len(shape)} axes, more than the {BLOB_AXES} of a blob")
        if math.prod(shape) > LARGEST_COUNT:
            raise self.error(f"its {what} would be {describe(shape)}, more than the {LARGEST_COUNT} numbers of a blob")

    def axis(self, axis: int, shape: Shape) -> int:
        """Return `axis`, counted from the end where negative, as an index into `shape`."""
        if not -len(shape) <= axis < len(shape):
            raise self.error(f"axis {axis} is out of range for a bottom of shape {describe(shape)}")
        return axis % len(shape)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Have the InputErrors that are raised inside name this layer."""
        try:
            yield
        except InputError as error:
            raise self.error(str(error)) from None

    def error(self, message: str) -> InputError:
        """Return the InputError that names this layer."""
        return InputError(f'layer "{self.name}" ({self.param.type}): {message}')


def _within_bounds(reshape: Callable[..., Shapes | None]) -> Callable[..., Shapes | None]:
    """Return a `reshape` that raises InputError for a top of more numbers than a blob may have."""

    @functools.wraps(reshape)
    def checked(self: Layer, bottoms: Shapes) -> Shapes | None:
        tops = reshape(self, bottoms)
        for shape in tops or ():
            self.check_size("top", shape)
        return tops

    return checked


def with_four_axes(shape: Shape) -> Shape:
    """Return a shape as Caffe's older layers see it: axes of size 1 stand behind its own, up to four."""
    return (*shape, *[1] * (4 - len(shape)))


def describe(shape: Sequence[int]) -> str:
    """Return a shape as Caffe prints it: `128x3x32x32`."""
    return "x".join(map(str, shape)) or "scalar"
