"""What `import caffe` gives to code that is written for pycaffe: the class of its layers, their blobs, the phases."""

import importlib
import importlib.machinery
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imae.layers.blob import Shape
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import TEST, TRAIN


def _size_of(blob: "Blob", *, axis: int) -> int:
    shape = blob.shape
    if len(shape) > 4:
        raise InputError(f"a blob of {len(shape)} axes has no num, channels, height and width: take its shape")
    return shape[axis] if axis < len(shape) else 1


class Blob:
    """Numbers and their gradient, as pycaffe shows them: arrays that are written in place."""

    def __init__(self, shape: Shape | None = None, dtype: type[np.floating[Any]] = np.float32) -> None:
        self._dtype = dtype
        self.is_shaped = shape is not None
        """Whether it was given a shape."""
        self._data = np.zeros((0,) if shape is None else shape, dtype)
        self._diff: NDArray[Any] | None = None

    @property
    def data(self) -> NDArray[Any]:
        """The values."""
        return self._data

    @property
    def diff(self) -> NDArray[Any]:
        """The gradient, of the values' shape."""
        if self._diff is None or self._diff.shape != self._data.shape:
            self._diff = np.zeros_like(self._data)
        return self._diff

    @property
    def shape(self) -> Shape:
        """The sizes of its axes."""
        shape: Shape = self._data.shape
        return shape

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return self._data.size

    num, channels, height, width = (property(partial(_size_of, axis=axis)) for axis in range(4))
    """The sizes of the first four axes, 1 where there is none."""

    def reshape(self, *shape: int) -> None:
        """Give it other sizes, with zeros, unless it has them; raises InputError for a size below 0."""
        sizes = tuple(int(size) for size in shape)
        if any(size < 0 for size in sizes):
            raise InputError(f"a blob cannot be reshaped to {sizes}")
        self.is_shaped = True
        if sizes != self._data.shape:
            self._data = np.zeros(sizes, self._dtype)

    def show(self, data: NDArray[Any], diff: NDArray[Any]) -> None:
        """Have `data` and `diff` be these arrays themselves."""
        self._data, self._diff = data, diff


class Blobs(list[Blob]):
    """A layer's learnable blobs."""

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros, which `setup` then fills."""
        self.append(Blob(tuple(int(size) for size in shape)))


class Layer:
    """The base of layers in Python: `setup`, `reshape`, `forward` and `backward`, over lists of blobs.

    Before `setup` it has `param_str` and `phase` as the prototxt gives them, and no `blobs`, which `setup` may add.
    """

    type = "Python"
    param_str = ""
    phase = TRAIN
    blobs: Blobs

    def __new__(cls, *args: Any, **options: Any) -> "Layer":
        """Make the layer, with its list of blobs, whatever its own __init__ does."""
        layer = super().__new__(cls)
        layer.blobs = Blobs()
        return layer

    def __init__(self, param: Any = None) -> None:
        pass

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the prototxt and add the blobs; called once."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes; called before each pass."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write the tops' data."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Write the diff of each bottom for which `propagate_down` holds, and of the blobs."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")


_loaded: set[str] = set()  # the names of the modules and packages that nets had loaded


def load_layer(module: str, name: str, folders: Sequence[Path]) -> type[Layer]:
    """Return class `name` of `module`, which is looked for in `folders` and then as Python does, and runs now.

    Raises InputError where there is none, and whatever the module itself raises.
    """
    top_level = module.partition(".")[0]
    with running_python(folders):
        importlib.invalidate_caches()
        found = importlib.machinery.PathFinder.find_spec(top_level)
        loaded = sys.modules.get(top_level)
        if found is None and loaded is None:
            looked = ", ".join(str(folder) for folder in folders)
            raise InputError(f'there is no module "{top_level}": looked in {looked} and in PYTHONPATH')
        origin = getattr(loaded, "__file__", None)
        if found and loaded and found.origin and origin and Path(found.origin).resolve() != Path(origin).resolve():
            if top_level not in _loaded:
                raise InputError(f"{found.origin} has the name of a module that is in use, {origin}: rename it")
            for other in [name for name in sys.modules if name.partition(".")[0] == top_level]:
                del sys.modules[other]  # of another net's folder; its layers keep what they have
        if top_level not in sys.modules:
            _loaded.add(top_level)
        loaded = importlib.import_module(module)
    layer = getattr(loaded, name, None)
    if not (isinstance(layer, type) and issubclass(layer, Layer)):
        what = "has no class" if layer is None else "has, but as no subclass of caffe.Layer,"
        raise InputError(f'module "{module}" ({getattr(loaded, "__file__", "no file")}) {what} "{name}"')
    return layer


def is_found(module: str, folders: Sequence[Path]) -> bool:
    """Whether there is a module or package of this name's first part, in `folders` or where Python looks."""
    with running_python(folders):
        importlib.invalidate_caches()
        return importlib.machinery.PathFinder.find_spec(module.partition(".")[0]) is not None


@contextmanager
def running_python(folders: Sequence[Path]) -> Iterator[None]:
    """Let `import caffe` mean this file, and modules be found in `folders` first, while the body runs."""
    caffe = ModuleType("caffe", __doc__)
    vars(caffe).update(Layer=Layer, Blob=Blob, TRAIN=TRAIN, TEST=TEST)
    before = sys.modules.get("caffe")
    added = [str(folder.resolve()) for folder in folders]
    sys.modules["caffe"] = caffe
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:  # the code may have added others
            if folder in sys.path:
                sys.path.remove(folder)
        if before is None:
            sys.modules.pop("caffe", None)
        else:
            sys.modules["caffe"] = before


def describe_error(error: BaseException) -> str:
    """Return in one line what the user's code raised, and where."""
    text = " ".join(str(error).split())
    what = text if isinstance(error, InputError) and text else f"{type(error).__name__}{': ' if text else ''}{text}"
    own = Path(__file__).parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not Path(frame.filename).is_relative_to(own) and not frame.filename.startswith("<frozen ")
        if "importlib" not in frame.filename
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}: {what}" if frames else what
