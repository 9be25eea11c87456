"""Exported models in fewer bits, by ONNX Runtime's own tools: float16, or int8 with or without calibration."""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from imae.layers.data.image_list import read_image
from imae.nets.net import Net
from imae.nets.onnx_export import OnnxReport
from imae.nets.onnx_model import rewrite_model
from imae.nets.onnx_preprocess import ImageOptions, images_of
from imae.prototxt_like.errors import InputError
from imae.prototxt_like.files import temporary_folder
from imae.prototxt_like.schema import NetParameter

PRECISIONS = ("fp32", "fp16", "int8")

_AS_THEY_ARE = ImageOptions()

Feeds = Mapping[str, NDArray[np.generic]]


def calibration_feeds(
    report: OnnxReport, source: Net | NetParameter | str | Path, files: Sequence[Path]
) -> Iterator[Feeds]:
    """Give the model's input for each of these image files; an image is resized where the model takes one size alone.

    Where the model takes no images as files have them, they are prepared as the net's data layer does. Raises
    InputError, naming the file, for one that is no image, and for a model that has another input, too.
    """
    for file in files:
        (name, *others), net = report.inputs, report.net
        window = net.shapes[net.input_values[name]][1:] if name in net.input_values else ()
        own = report.images.get(name)
        images = own if own and own.raw else images_of(source, name, window, None, raw=True, options=_AS_THEY_ARE)
        if others or images is None:
            raise InputError(
                f"{report.path}: calibrating by images takes one input of images, not {len(report.inputs)}"
            )
        height, width = report.inputs[name][1:3] if images is own else window[1:]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        blue_green_red = read_image(file, window[0] == 3, size)
        pixels = np.ascontiguousarray(blue_green_red[::-1].transpose(1, 2, 0))[None]
        batch = report.inputs[name][0]
        pixels = pixels.repeat(batch if isinstance(batch, int) else 1, 0)
        yield {name: pixels if images is own else images.seen(torch.from_numpy(pixels)).numpy()}


def convert(path: Path, precision: str, calibration: Iterable[Feeds] = ()) -> None:
    """Replace the model at `path` by one of `precision` (of PRECISIONS); its inputs and outputs keep their types.

    int8 quantizes weights by channel; activations too where `calibration` feeds the model's inputs, by the ranges that
    they take there, else as they come (dynamically). Raises InputError for an unknown precision, and for a model that
    the tools cannot convert.
    """
    if precision not in PRECISIONS:
        raise InputError(f'the precision must be one of {", ".join(PRECISIONS)}, not "{precision}"')
    if precision == "fp32":
        return
    before = onnx.load(path, load_external_data=False)
    try:
        with temporary_folder(path.parent, f"{path.name}.{precision}") as folder, _quiet(), _working_in(folder):
            after = _half(path) if precision == "fp16" else _quantized(path, folder, calibration)
    except InputError:  # of an image
        raise
    except Exception as error:  # of many kinds, by tools that were not made for it
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: ONNX Runtime's tools cannot make it {precision}: {reason}") from error
    metadata = {prop.key: prop.value for prop in before.metadata_props}
    onnx.helper.set_model_props(after, metadata | {"imae.precision": precision})
    rewrite_model(path, after)


def _half(path: Path) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # The shapes are there; to infer them again would take the model as one message, of 2 GiB at most.
    half: onnx.ModelProto = convert_float_to_float16(onnx.load(path), keep_io_types=True, disable_shape_infer=True)
    return half


def _quantized(path: Path, folder: Path, calibration: Iterable[Feeds]) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.onnx_model import ONNXModel

    feeds = iter(calibration)
    first = next(feeds, None)
    # A copy, as the tools write beside what they read. Changes to a model free nothing before all of it goes: the
    # weights that `quantize_dynamic` turns round would be there three times.
    copy, output = folder / "fp32.onnx", folder / "int8.onnx"
    model = ONNXModel(onnx.load(path))
    if first is None:
        model.replace_gemm_with_matmul()
    model.save_model_to_file(copy, use_external_data_format=True)
    del model
    settings: dict[str, Any] = {"use_external_data_format": True}
    if first is None:
        quantize_dynamic(copy, output, weight_type=QuantType.QUInt8, **settings)
    else:
        settings |= {"per_channel": True, "calibrate_method": CalibrationMethod.MinMax}
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(copy, output, _Reader(chain([first], feeds)), **settings, **types)
    return onnx.load(output)


class _Reader:
    """What the calibration reads, one after the other."""

    def __init__(self, feeds: Iterator[Feeds]) -> None:
        self._rest = feeds

    def get_next(self) -> Feeds | None:
        """Return the next inputs, None after the last."""
        return next(self._rest, None)


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Have the tools' temporary files, as large as the model, lie in `folder` instead of /tmp, which may be memory."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' advice, which is for their own users, out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
