"""Prediction: images through an ONNX model, or through the one that a prototxt is exported as, by ONNX Runtime."""

import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image

from imae.layers.data.data_layer import readers
from imae.layers.data.image_decode import decode_view
from imae.layers.data.image_list import read_image, resize
from imae.layers.layer import describe
from imae.nets.onnx_export import export_onnx
from imae.nets.onnx_preprocess import ImageOptions, Images, images_of
from imae.nets.onnx_session import giving_out, run, start_session
from imae.prototxt_like.errors import InputError, counted
from imae.prototxt_like.schema import NetParameter
from imae.prototxt_like.text import did_you_mean

OneImage = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file, an image of Pillow's, or H x W x (red, green, blue, perhaps alpha), or H x W of a gray one."""
Rows = dict[str, NDArray[Any]]
"""Of one image: the outputs by name, without the axis of the batch."""

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_AS_THEY_ARE = ImageOptions()


class Predictions(dict[str, NDArray[Any]]):
    """The outputs by name, a row for each image."""

    def __init__(self, outputs: Rows, predictor: "Predictor") -> None:
        super().__init__(outputs)
        self._predictor = predictor

    def top(self, k: int = 5, output: str | None = None) -> list[list[tuple[str, float]]]:
        """Return for each image the labels of the `k` largest values of an output, and these, the largest first.

        A class without a label goes by its number. Raises InputError as `Predictor.scores` does.
        """
        name = self._predictor.scores(output)
        labels = self._predictor.label
        return [[(labels(i), score) for i, score in largest(row, k)] for row in self[name]]


class Predictor:
    """A model of which images are asked: `Predictor("net.onnx")(images)`, or `Predictor("deploy.prototxt", weights)`.

    A prototxt's weights are `weights`, else the file of its name that ends in .caffemodel; it runs as `export_onnx`
    writes it, with its data layer's mean, scale and crop, or those of `options`, in the model. So does an ONNX model
    that was exported with --preprocess; for others `options` say mean, scale, size and the order of channels, which is
    blue, green, red unless they, or the model, say otherwise. An image is resized where the model takes one size alone.

    `outputs` picks values by name, `labels` are the names of the classes, where the model's metadata has none. `shape`
    is that of an image, where a prototxt's data is not at hand; `stages` choose among its layers. `batch` images are
    asked at a time where the model takes any number. It runs by TensorRT, CUDA or, else or with `cpu`, the CPU:
    `provider` says which.

    Raises InputError for a file that is no model, or a model that takes something else than images.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        weights: str | PathLike[str] | None = None,
        *,
        options: ImageOptions = _AS_THEY_ARE,
        labels: Sequence[str] = (),
        outputs: Sequence[str] = (),
        shape: Sequence[int] = (),
        stages: Sequence[str] = (),
        batch: int = 32,
        cpu: bool = False,
        threads: int | None = None,
    ) -> None:
        self.path, self._options = Path(path), options
        is_onnx = self.path.suffix == ".onnx"
        if is_onnx and weights is not None:
            raise InputError(f"{path}: an ONNX model has its weights in itself; leave out {weights}")
        if is_onnx and stages:
            raise InputError(f"{path}: an ONNX model has no stages; leave out {', '.join(stages)}")
        if is_onnx:
            session = self._start(outputs, cpu, threads)
        else:
            beside = self.path.with_suffix(".caffemodel")
            found = weights or (beside if beside.exists() else None)
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "net.onnx"
                source = None if found is None else Path(found)
                export_onnx(self.path, source, copy, shape=shape, outputs=outputs, stages=stages, preprocess=options)
                session = start_session(copy, cpu=cpu, threads=threads)
        self._session = session
        self.provider: str = session.get_providers()[0].removesuffix("ExecutionProvider")
        """What runs it: CPU, CUDA or Tensorrt."""
        made = list(outputs if is_onnx and outputs else (value.name for value in session.get_outputs()))
        self.outputs: list[str] = list(dict.fromkeys(outputs)) or made
        self._made = dict(zip(self.outputs, made, strict=False))
        """What the model calls them: a blob that is made in place of the images has another name there."""
        metadata = session.get_modelmeta().custom_metadata_map
        self.labels: list[str] = list(labels) or json.loads(metadata.get("imae.labels", "[]"))
        """The names of the classes, none where nobody knows them."""
        self._read_input(json.loads(metadata.get("imae.images", "{}")), is_onnx)
        self._batch = self._fixed[0] or batch
        if labels:
            self.scores()

    def __call__(self, images: OneImage | Iterable[OneImage]) -> Predictions:
        """Return the outputs for images: one, several, or an array of them, N x H x W x C.

        Raises InputError, naming the image, for one that cannot be read, and for outputs that differ in shape.
        """
        alone = isinstance(images, str | PathLike | Image.Image)
        if isinstance(images, np.ndarray):
            alone = images.ndim < 4
        several: list[OneImage] = [images] if alone else list(images)  # type: ignore[list-item,arg-type]
        rows = [row for _, row in self.each(several)]
        for name in self.outputs:
            if len(shapes := {row[name].shape for row in rows}) > 1:
                found = " and ".join(map(describe, sorted(shapes)))
                raise InputError(f'{self.path}: images of several sizes give "{name}" of several shapes, {found}')
        return Predictions({name: np.stack([row[name] for row in rows]) for name in self.outputs if rows}, self)

    def each(
        self, images: Iterable[OneImage], on_broken: Callable[[int, InputError], None] | None = None
    ) -> Iterator[tuple[int, Rows]]:
        """Yield the number of each image, from 0, and its outputs; images are read ahead, and asked in batches.

        One that cannot be read is passed over, and told to `on_broken`, where that is given, else raises InputError.
        """
        begun: deque[tuple[int, Callable[[], NDArray[np.uint8]]]] = deque()
        waiting: list[tuple[int, NDArray[Any]]] = []
        rest = enumerate(images)
        while True:
            while len(begun) < 2 * self._batch and (following := next(rest, None)) is not None:
                begun.append((following[0], self._begin(*following)))
            if not begun:
                break
            number, read = begun.popleft()
            try:
                pixels = read()
            except InputError as error:
                if on_broken is None:
                    raise
                on_broken(number, error)
                continue
            if waiting and (len(waiting) == self._batch or waiting[0][1].shape != pixels.shape):
                yield from self._ask(waiting)
                waiting = []
            waiting.append((number, pixels))
        if waiting:
            yield from self._ask(waiting)

    def scores(self, output: str | None = None) -> str:
        """Return the output of a value for each class: the one asked for, or the first that there are labels for.

        Raises InputError if there is none.
        """
        rows = {value.name: [size for size in value.shape[1:] if size != 1] for value in self._session.get_outputs()}
        sizes = {name: rows.get(made, []) for name, made in self._made.items()}
        if output is not None and output not in self.outputs:
            raise InputError(f'{self.path}: has no output "{output}"{did_you_mean(output, self.outputs)}')
        asked = self.outputs if output is None else [output]
        classes = len(self.labels)
        wanted = [name for name in asked if not classes or self._may_be(classes, sizes.get(name, []))]
        if not wanted:
            given = counted(len(self.labels), "label")
            raise InputError(f"{self.path}: {given} do not fit its outputs: {self._describe(sizes)}")
        return wanted[0]

    def label(self, number: int) -> str:
        """Return the name of a class."""
        return self.labels[number] if number < len(self.labels) else str(number)

    def __str__(self) -> str:
        size = "any size" if self._size is None else describe(self._size)
        return f"{self.path} by ONNX Runtime on {self.provider}: images of {size}, {self._order}"

    def _start(self, outputs: Sequence[str], cpu: bool, threads: int | None) -> Any:
        """A session of the file, which gives out these values, too."""
        session = start_session(self.path, cpu=cpu, threads=threads)
        if set(outputs) <= {output.name for output in session.get_outputs()}:
            return session
        model = onnx.load(self.path, load_external_data=False)
        made = [name for node in model.graph.node for name in node.output]
        if missing := next((name for name in outputs if name not in made), None):
            raise InputError(f'{self.path}: no node of it makes "{missing}"{did_you_mean(missing, made)}')
        with giving_out(self.path, model, outputs) as copy:
            return start_session(copy, cpu=cpu, threads=threads)

    def _read_input(self, metadata: dict[str, Any], is_onnx: bool) -> None:
        """Find out what the model takes: type, sizes, order of channels, and what we have to do to images."""
        first, *others = self._session.get_inputs()
        self._input, sizes = first.name, first.shape
        if others or len(sizes) != 4:
            given = ", ".join(f"{value.name} {value.shape}" for value in (first, *others))
            raise InputError(f"{self.path}: takes {given}, expected one input of images, of 4 axes")
        own, options = metadata.get(first.name, {}), self._options
        self._raw = first.type == "tensor(uint8)"
        if not self._raw and first.type not in _FLOATS:
            raise InputError(f"{self.path}: its input {first.name} is a {first.type}, expected uint8 or floats")
        if self._raw and own.get("layout") != "NHWC":
            raise InputError(f"{self.path}: takes uint8, without the metadata that `imae export --preprocess` writes")
        if self._raw and is_onnx and options != _AS_THEY_ARE:
            raise InputError(
                f"{self.path}: prepares images itself, as it was exported; mean, scale, size and channels cannot be set"
            )
        self._type = np.uint8 if self._raw else _FLOATS[first.type]
        self._channels = sizes[3 if self._raw else 1]
        if self._channels not in (1, 3):
            raise InputError(f"{self.path}: takes images of {self._channels} channels, expected 1 or 3")
        batch, *window = (size if isinstance(size, int) else 0 for size in sizes)
        height, width = window[:2] if self._raw else window[1:]
        self._fixed = batch, height, width
        self._size = options.resize or ((height, width) if height and width else None)
        self._least = tuple(own["window"]) if own.get("cut") else (1, 1)
        known = own.get("channels") if self._raw else ""
        self._order = "gray" if self._channels == 1 else "RGB" if known == "RGB" else options.channels or "BGR"
        self._prepare = lru_cache(self._images)
        if not self._raw and self._size:
            height, width = self._prepare(self._size).whole or self._size
            self._size = height, width

    def _images(self, size: tuple[int, int]) -> Images:
        """What we do to images of this size for a model that takes floats."""
        window = tuple(fixed or given for fixed, given in zip(self._fixed[1:], size, strict=True))
        order = "RGB" if self._channels == 1 else self._order
        options = ImageOptions(self._options.resize, order, self._options.mean, self._options.scale)
        images = images_of(NetParameter(), self._input, (self._channels, *window), None, raw=True, options=options)
        assert images is not None
        return images

    def _begin(self, number: int, image: OneImage) -> Callable[[], NDArray[np.uint8]]:
        """Have an image read; what is returned waits for it. Of an array there is little to do."""
        if isinstance(image, np.ndarray):
            return partial(self._read, number, image)
        return self._pool.submit(self._read, number, image).result

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return readers("images to predict")

    def _read(self, number: int, image: OneImage) -> NDArray[np.uint8]:
        """An image as H x W x C, in the order and of the size that go on."""
        color = self._channels == 3
        if isinstance(image, str | PathLike):
            view = read_image(Path(image), color, self._size)
        else:
            try:
                view = decode_view(image, color) if isinstance(image, Image.Image) else _planes(image, color)
            except InputError as error:
                raise InputError(f"image {number}: {error}") from None
            view = view if self._size is None else resize(view, self._size)
        if min(a - b for a, b in zip(view.shape[1:], self._least, strict=True)) < 0:
            name = image if isinstance(image, str | PathLike) else f"image {number}"
            window = describe(self._least)
            raise InputError(f"{name}: an image of {describe(view.shape[1:])}, of which {window} cannot be cut")
        # Images.seen takes red, green, blue
        as_rgb = color and (self._order == "RGB" or not self._raw)
        return _by_pixels(view[::-1] if as_rgb else view)

    def _ask(self, images: list[tuple[int, NDArray[np.uint8]]]) -> Iterator[tuple[int, Rows]]:
        """The outputs of a batch of images of one size; of a fixed batch the rest is the last image, once more."""
        pixels = [image for _, image in images]
        pixels += pixels[-1:] * (self._fixed[0] - len(pixels))
        batch: NDArray[Any] = np.stack(pixels)
        if not self._raw:
            seen = self._prepare(batch.shape[1:3]).seen(torch.from_numpy(batch))
            batch = seen.numpy().astype(self._type, copy=False)
        values = run(self._session, self.path, {self._input: np.ascontiguousarray(batch)}, list(self._made.values()))
        for name, value in zip(self.outputs, values, strict=True):
            if value.shape[:1] != (len(pixels),):
                raise InputError(
                    f'{self.path}: its output "{name}" is {describe(value.shape)}, expected a row for each of '
                    f"{counted(len(pixels), 'image')}"
                )
        for row, (number, _) in enumerate(images):
            yield number, {name: value[row] for name, value in zip(self.outputs, values, strict=True)}

    @staticmethod
    def _may_be(classes: int, sizes: list[Any]) -> bool:
        """Whether these are the sizes of a row of so many numbers, as far as they are known."""
        return len(sizes) == 1 and (sizes[0] == classes or not isinstance(sizes[0], int))

    def _describe(self, sizes: dict[str, list[Any]]) -> str:
        return ", ".join(f"{name} {'x'.join(map(str, sizes.get(name, [])))}" for name in self.outputs)


def largest(scores: NDArray[Any], k: int) -> list[tuple[int, float]]:
    """Return the classes of the `k` largest of an image's scores, and these; of equal ones the first class first."""
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")[:k]
    return [(int(number), float(flat[number])) for number in order]


def _by_pixels(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """C x H x W as H x W x C in one piece: plane by plane, as NumPy, going pixel by pixel, takes four times as long."""
    if planes.transpose(1, 2, 0).flags.c_contiguous:
        return planes.transpose(1, 2, 0)
    pixels = np.empty((*planes.shape[1:], len(planes)), np.uint8)
    for channel, plane in enumerate(planes):
        pixels[:, :, channel] = plane
    return pixels


def _planes(image: Any, color: bool) -> NDArray[np.uint8]:
    """The planes of an array, H x W or H x W x C, as `decode_view` gives those of a file."""
    array = np.asarray(image)
    whole = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if whole.dtype != np.uint8 or whole.ndim not in (2, 3) or (whole.ndim == 3 and whole.shape[2] not in (3, 4)):
        found = f"{describe(array.shape)} {array.dtype}"
        raise InputError(f"an array of {found}, expected uint8 H x W, or H x W x 1, 3 or 4")
    if 0 in whole.shape:
        raise InputError(f"an array of {describe(array.shape)}, expected pixels")
    if color and whole.ndim == 3:
        return whole[:, :, 2::-1].transpose(2, 0, 1)
    return decode_view(Image.fromarray(whole), color) if color or whole.ndim == 3 else whole[None]
