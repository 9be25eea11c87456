"""What each of ONNX's operators becomes as layers of Caffe's: the way back from `to_onnx`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from imae.layers.layer import Shape, describe
from imae.nets.onnx_importing import Array, Importing, NoLayer, Settings, Unmade
from imae.nets.onnx_index_nodes import cast, compress, forwards, gather, gather_elements, largest, top_k
from imae.nets.onnx_recurrent_nodes import operator, scan

_LARGEST = float(np.finfo(np.float32).max)


def _simple(kind: str, field: str = "", **names: str) -> Callable[..., None]:
    """A layer of one bottom, whose `field` has the node's attributes under `names`."""

    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        given: Any = {ours: settings[name] for ours, name in names.items() if name in settings}
        importing.layer(kind, inputs[:1], outputs[:1], **({field: given} if given else {}))

    return translate


def _power(**settings: float) -> Callable[..., None]:
    def translate(importing: Importing, inputs: list[str], outputs: list[str], _: Settings) -> None:
        importing.layer("Power", inputs, outputs, power_param=settings)

    return translate


def _leaky(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    importing.layer("ReLU", inputs, outputs, relu_param={"negative_slope": settings.get("alpha", 0.01)})


def _pads(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> tuple[Shape, Shape]:
    """The padding at the beginnings and at the ends of a convolution's or pooling's axes."""
    axes = len(importing.shape(inputs[0])) - 2
    auto = settings.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", ""):
        pads = settings.get("pads") or [0] * 2 * axes
        return tuple(pads[:axes]), tuple(pads[axes:])
    if auto == "VALID":
        return (0,) * axes, (0,) * axes
    kernel = settings.get("kernel_shape") or importing.shape(inputs[1])[2:]
    ones = [1] * axes
    strides, dilations = settings.get("strides", ones), settings.get("dilations", ones)
    along = zip(
        importing.shape(inputs[0])[2:], importing.shape(outputs[0])[2:], kernel, strides, dilations, strict=True
    )
    whole = [max((out - 1) * s + d * (k - 1) + 1 - size, 0) for size, out, k, s, d in along]
    less, more = tuple(pad // 2 for pad in whole), tuple(pad - pad // 2 for pad in whole)
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def _convolution(kind: str) -> Callable[..., None]:
    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        weight, bias = importing.constant(inputs, 1), importing.constant(inputs, 2)
        begin, end = _pads(importing, inputs, outputs, settings)
        more = settings.get("output_padding") or [0] * len(end)
        end = tuple(pad - size for pad, size in zip(end, more, strict=True))
        if begin != end:
            weight = _padded_alike(weight, begin, end, settings.get("dilations", [1] * len(begin)), kind)
            begin = tuple(map(max, begin, end))
        if settings.get("output_shape"):
            raise NoLayer("says the shape of its output, which Deconvolution does not")
        group = settings.get("group", 1)
        ones = [1] * (weight.ndim - 2)
        importing.layer(
            kind,
            inputs[:1],
            outputs,
            [weight] if bias is None else [weight, bias],
            convolution_param={
                "num_output": weight.shape[0] if kind == "Convolution" else weight.shape[1] * group,
                "bias_term": bias is not None,
                "kernel_size": weight.shape[2:],
                "stride": settings.get("strides", ones),
                "pad": begin,
                "dilation": settings.get("dilations", ones),
                "group": group,
            },
        )

    return translate


def _padded_alike(
    weight: Array, begin: Sequence[int], end: Sequence[int], dilations: Sequence[int], kind: str
) -> Array:
    """A kernel with zeros before it or behind it, for as much padding on either side."""
    more = [e - b for b, e in zip(begin, end, strict=True)]
    if any(size % dilation for size, dilation in zip(more, dilations, strict=True)):
        raise NoLayer(f"pads {describe(begin)} before and {describe(end)} behind, where {kind} pads both alike")
    zeros = [size // dilation for size, dilation in zip(more, dilations, strict=True)]
    return np.pad(weight, [(0, 0), (0, 0), *((max(size, 0), max(-size, 0)) for size in zeros)])


def _gemm(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    if settings.get("transA", 0):
        raise NoLayer("transposes its input")
    weight, bias = importing.constant(inputs, 1), importing.constant(inputs, 2)
    rows = (weight if settings.get("transB", 0) else weight.T) * settings.get("alpha", 1.0)
    if bias is not None and bias.ndim > 1 and bias.shape[0] != 1:
        raise NoLayer(f"adds {describe(bias.shape)}, expected a number for each output")
    blobs = [rows]
    if bias is not None:
        blobs.append(np.broadcast_to(bias.ravel() * settings.get("beta", 1.0), rows.shape[:1]))
    own = {"num_output": len(rows), "bias_term": bias is not None}
    importing.layer("InnerProduct", inputs[:1], outputs, blobs, inner_product_param=own)


def _matmul(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    weight = importing.constant(inputs, 1)
    if weight.ndim != 2:
        raise NoLayer(f"multiplies by {describe(weight.shape)}, expected a matrix")
    axis = len(importing.shape(inputs[0])) - 1
    own = {"num_output": weight.shape[1], "bias_term": False, "axis": axis}
    importing.layer("InnerProduct", inputs[:1], outputs, [weight.T], inner_product_param=own)


def _prelu(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    slope, shape = importing.constant(inputs, 1), importing.shape(inputs[0])
    spread = (1,) * (len(shape) - slope.ndim) + slope.shape
    if any(size != 1 for axis, size in enumerate(spread) if axis != 1):
        raise NoLayer(f"has slopes of {describe(slope.shape)}, expected one for each channel")
    importing.layer(
        "PReLU", inputs[:1], outputs, [slope.ravel()], prelu_param={"channel_shared": slope.size == 1 < shape[1]}
    )


def _clip(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    low = importing.constant(inputs, 1, settings.get("min", -_LARGEST))
    high = importing.constant(inputs, 2, settings.get("max", _LARGEST))
    importing.layer("Clip", inputs[:1], outputs, clip_param={"min": float(low), "max": float(high)})


def _hard_sigmoid(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    line = {"scale": settings.get("alpha", 0.2), "shift": settings.get("beta", 0.5)}
    importing.layer("Power", inputs, [f"{outputs[0]}/line"], power_param=line)
    importing.layer("Clip", [f"{outputs[0]}/line"], outputs, clip_param={"min": 0.0, "max": 1.0})


def _hard_swish(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    _hard_sigmoid(importing, inputs, [f"{outputs[0]}/gate"], {"alpha": 1 / 6, "beta": 0.5})
    importing.layer("Eltwise", [inputs[0], f"{outputs[0]}/gate"], outputs, eltwise_param={"operation": "PROD"})


def _batch_norm(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    if settings.get("training_mode", 0):
        raise NoLayer("is in training mode")
    scale, bias, mean, var = (importing.constant(inputs, place) for place in range(1, 5))
    plain = bool(np.all(scale == 1) and np.all(bias == 0))
    normal = outputs[0] if plain else f"{outputs[0]}/normal"
    eps = {"eps": settings.get("epsilon", 1e-5)}
    importing.layer("BatchNorm", inputs[:1], [normal], [mean, var, np.ones(1)], batch_norm_param=eps)
    if not plain:
        importing.layer("Scale", [normal], outputs[:1], [scale, bias], scale_param={"bias_term": True})


def _lrn(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    if settings["size"] % 2 == 0:
        raise NoLayer(f"is over {settings['size']} channels, expected an odd number")
    own = {"local_size": settings["size"], "k": settings.get("bias", 1.0)}
    own |= {"alpha": settings.get("alpha", 1e-4), "beta": settings.get("beta", 0.75)}
    importing.layer("LRN", inputs, outputs, lrn_param=own)


def _softmax(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    shape = importing.shape(inputs[0])
    axis = settings.get("axis", 1 if importing.opset < 13 else -1) % len(shape)
    if importing.opset < 13 and math.prod(shape[axis + 1 :]) != 1:
        raise NoLayer("is over several axes")
    importing.layer("Softmax", inputs, outputs, softmax_param={"axis": axis})


def _log_softmax(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    _softmax(importing, inputs, [f"{outputs[0]}/softmax"], settings)
    importing.layer("Log", [f"{outputs[0]}/softmax"], outputs)


def _global(method: str) -> Callable[..., None]:
    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        _four_axes(importing, inputs)
        importing.layer("Pooling", inputs, outputs, pooling_param={"pool": method, "global_pooling": True})

    return translate


def _four_axes(importing: Importing, inputs: list[str]) -> None:
    if len(importing.shape(inputs[0])) != 4:
        raise NoLayer(f"pools {describe(importing.shape(inputs[0]))}, expected 4 axes")


def _pooling(method: str) -> Callable[..., None]:
    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        if method == "AVE" and len(importing.shape(inputs[0])) != 4:
            _average(importing, inputs, outputs, settings)
            return
        _four_axes(importing, inputs)
        if any(name in importing.readers or name in importing.outputs for name in outputs[1:] if name):
            raise NoLayer("gives places, which ONNX counts through all images, and Caffe within one")
        if any(dilation != 1 for dilation in settings.get("dilations", ())):
            raise NoLayer("is dilated")
        size, pooled = importing.shape(inputs[0])[2:], importing.shape(outputs[0])[2:]
        kernel, stride = settings["kernel_shape"], settings.get("strides", [1, 1])
        pad, end = _pads(importing, inputs, outputs, settings)
        mode = next((mode for mode in ("CEIL", "FLOOR") if _pooled(size, kernel, stride, pad, mode) == pooled), None)
        if mode is None or any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise NoLayer(
                f"pads {describe(pad)} before and {describe(end)} behind, for which Caffe's counts windows otherwise"
            )
        own: dict[str, Any] = {"pool": method, "round_mode": mode}
        for name, pair in (("kernel", kernel), ("stride", stride), ("pad", pad)):
            own |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
        layer = importing.layer("Pooling", inputs, outputs[:1], pooling_param=own)
        if method == "AVE":
            missing = _missing(size, pooled, kernel, stride, pad, end, bool(settings.get("count_include_pad", 0)))
            if not np.allclose(missing, 1, atol=1e-6):
                importing.pending[outputs[0]] = layer, missing

    return translate


def _average(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Averages along other than two axes: a convolution of each channel by a constant."""
    begin, end = _pads(importing, inputs, outputs, settings)
    if settings.get("ceil_mode", 0) or (any(begin + end) and not settings.get("count_include_pad", 0)):
        raise NoLayer("divides by another number at the border, where a convolution divides by one")
    kernel, channels = settings["kernel_shape"], importing.shape(inputs[0])[1]
    weight = np.full((channels, 1, *kernel), 1 / math.prod(kernel), np.float32)
    own = {
        "dilations": settings.get("dilations", [1] * len(kernel)),
        "strides": settings.get("strides", [1] * len(kernel)),
    }
    importing.values[f"{outputs[0]}/weight"] = weight
    importing.fixed.add(f"{outputs[0]}/weight")
    own |= {"pads": [*begin, *end], "group": channels}
    _convolution("Convolution")(importing, [inputs[0], f"{outputs[0]}/weight"], outputs, own)


def _pooled(size: Shape, kernel: Sequence[int], stride: Sequence[int], pad: Shape, mode: str) -> Shape:
    """How many windows Caffe has."""
    counts = []
    for whole, k, s, p in zip(size, kernel, stride, pad, strict=True):
        span = (whole + 2 * p - k) / s
        count = (math.ceil(span) if mode == "CEIL" else math.floor(span)) + 1
        counts.append(count - 1 if any(pad) and (count - 1) * s >= whole + p else count)
    return tuple(counts)


def _missing(
    size: Shape, pooled: Shape, kernel: Sequence[int], stride: Sequence[int], pad: Shape, end: Shape, padding: bool
) -> Array:
    """By what ONNX's averages, with or without the padding, are to be multiplied to be Caffe's (height x width)."""
    factors = []
    for whole, windows, k, s, p, e in zip(size, pooled, kernel, stride, pad, end, strict=True):
        begin = np.arange(windows) * s - p
        ours = np.minimum(begin + k, whole + p) - begin
        theirs = np.minimum(begin + k, whole + e) - begin
        if not padding:
            theirs = np.minimum(begin + k, whole) - np.maximum(begin, 0)
        factors.append(theirs / ours)
    return np.outer(*factors)


def _reshape(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    before, after = importing.shape(inputs[0]), importing.shape(outputs[0])
    if inputs[0] in importing.unmade:
        importing.unmade[outputs[0]] = importing.unmade[inputs[0]]
    elif before == after:
        importing.alias(inputs[0], outputs[0])
    elif len(after) == 2 and before[:1] == after[:1]:
        importing.layer("Flatten", inputs[:1], outputs)
    else:
        importing.reshaped(inputs[0], outputs[0], after)


def _transpose(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    order = settings.get("perm") or range(len(importing.shape(inputs[0])))[::-1]
    importing.layer("Permute", inputs, outputs, permute_param={"order": order})


def _concat(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    importing.layer("Concat", inputs, outputs, concat_param={"axis": settings["axis"]})


def _split(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    axis = settings.get("axis", 0) % len(importing.shape(inputs[0]))
    points = np.cumsum([importing.shape(name)[axis] for name in outputs])[:-1].tolist()
    importing.layer("Slice", inputs[:1], outputs, slice_param={"axis": axis, "slice_point": points})


def _slice(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Along each axis, Slice, whose other parts nobody reads; by steps of images, Pooling of one element."""
    starts, ends = (importing.constant(inputs, 1 + i, settings.get(what)) for i, what in enumerate(("starts", "ends")))
    axes = importing.constant(inputs, 3, settings.get("axes", range(len(starts))))
    steps = importing.constant(inputs, 4, [1] * len(starts))
    shape, source, parts = importing.shape(inputs[0]), inputs[0], []
    if list(steps) == [-1] and int(starts[0]) in (-1, shape[axes[0]] - 1) and int(ends[0]) < -shape[axes[0]]:
        importing.unmade[outputs[0]] = Unmade("backwards", source, int(axes[0]) % len(shape))
        return
    by_axis = dict(zip((int(axis) % len(shape) for axis in axes), map(int, steps), strict=True))
    if max(by_axis.values(), default=1) > 1 and set(by_axis) <= {2, 3} and len(shape) == 4:
        bounds = zip(starts, ends, by_axis, strict=True)
        if all(slice(int(a), int(b)).indices(shape[axis])[:2] == (0, shape[axis]) for a, b, axis in bounds):
            stride = {"stride_h": by_axis.get(2, 1), "stride_w": by_axis.get(3, 1)}
            own = {"kernel_size": 1, **stride, "round_mode": "FLOOR"}
            importing.layer("Pooling", inputs[:1], outputs, pooling_param=own)
            return
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step != 1:
            raise NoLayer(f"has a step of {step}")
        begin, end, _ = slice(int(start), int(stop)).indices(shape[axis])
        if (begin, end) != (0, shape[axis]):
            parts.append((int(axis) % len(shape), begin, end))
    if not parts:
        importing.alias(source, outputs[0])
    for number, (axis, begin, end) in enumerate(parts, 1):
        name = outputs[0] if number == len(parts) else f"{outputs[0]}/{number}"
        tops = [f"{name}/before"] * (begin > 0) + [name] + [f"{name}/behind"] * (end < shape[axis])
        points = [point for point in (begin, end) if 0 < point < shape[axis]]
        made = importing.layer("Slice", [source], tops, slice_param={"axis": axis, "slice_point": points})
        made.name = name
        source = name


def _pad(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Shortcut, which adds channels of zeros behind; around images, a convolution of each channel by 1."""
    shape = importing.shape(inputs[0])
    axes = [int(axis) % len(shape) for axis in importing.constant(inputs, 3, range(len(shape)))]
    given = [int(pad) for pad in importing.constant(inputs, 1, settings.get("pads"))]
    begin, end = ([0] * len(shape) for _ in range(2))
    for axis, before, behind in zip(axes, given[: len(axes)], given[len(axes) :], strict=True):
        begin[axis], end[axis] = before, behind
    pads = [*begin, *end]
    is_zero = importing.constant(inputs, 2, settings.get("value", 0.0)) == 0
    if not any(pads):
        importing.alias(inputs[0], outputs[0])
    elif not is_zero or settings.get("mode", b"constant") != b"constant" or min(pads) < 0:
        raise NoLayer(f"pads by {', '.join(map(str, pads))}, by other than zeros, or cuts off")
    elif len(shape) == 4 and not any(begin + end[:1] + end[2:]):
        importing.layer("Shortcut", inputs[:1], outputs, shortcut_param={"num_output": importing.shape(outputs[0])[1]})
    elif len(shape) > 2 and not any(begin[:2] + end[:2]):
        ones = np.ones((shape[1], *[1] * (len(shape) - 1)), np.float32)
        weight = _padded_alike(ones, begin[2:], end[2:], ones.shape[2:], "Convolution")
        own: Any = {"num_output": shape[1], "group": shape[1], "bias_term": False, "kernel_size": weight.shape[2:]}
        own["pad"] = [max(pair) for pair in zip(begin[2:], end[2:], strict=True)]
        importing.layer("Convolution", inputs[:1], outputs, [weight], convolution_param=own)
    else:
        raise NoLayer(f"pads by {', '.join(map(str, pads))}; zeros can be added behind channels, or around images")


def _depth_to_space(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Reshape, Permute, Reshape."""
    (n, _, height, width), size = importing.shape(inputs[0]), settings["blocksize"]
    channels = importing.shape(outputs[0])[1]
    is_last = settings.get("mode", b"DCR") == b"DCR"
    parts = (n, size, size, channels, height, width) if is_last else (n, channels, size, size, height, width)
    order = (0, 3, 4, 1, 5, 2) if is_last else (0, 1, 4, 2, 5, 3)
    apart, turned = f"{outputs[0]}/parts", f"{outputs[0]}/turned"
    importing.reshaped(inputs[0], apart, parts)
    importing.layer("Permute", [apart], [turned], permute_param={"order": order})
    importing.values[turned] = importing.values[apart].transpose(order)
    importing.reshaped(turned, outputs[0], importing.shape(outputs[0]))


def _resize(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Upsample, by whole factors, or Interp, which has the corners coincide."""
    before, after = importing.shape(inputs[0]), importing.shape(outputs[0])
    mode = settings.get("mode", b"nearest").decode()
    place = settings.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = settings.get("nearest_mode", b"round_prefer_floor").decode()
    if importing.opset < 11:
        place, rounding = "asymmetric", "floor"
    if len(before) != 4 or before[:2] != after[:2]:
        raise NoLayer(f"makes {describe(after)} of {describe(before)}, expected height and width alone to change")
    (height, over), (width, beside) = (divmod(b, a) for a, b in zip(before[2:], after[2:], strict=True))
    if mode == "linear" and place == "align_corners":
        importing.layer("Interp", inputs[:1], outputs, interp_param={"height": after[2], "width": after[3]})
    elif mode == "nearest" and not over and not beside and (place, rounding) == ("asymmetric", "floor"):
        importing.layer("Upsample", inputs[:1], outputs, upsample_param={"scale_h": height, "scale_w": width})
    else:
        raise NoLayer(
            f"is {mode}, {place}, where Upsample takes the nearest by whole factors (asymmetric, floor), and Interp is "
            "linear with align_corners"
        )


def _reduce(operation: str) -> Callable[..., None]:
    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        before, after = importing.shape(inputs[0]), importing.shape(outputs[0])
        given = importing.constant(inputs, 1, settings.get("axes", range(len(before))))
        axes = sorted(int(axis) % len(before) for axis in given)
        kept, source, reduced = [axis for axis in range(len(before)) if axis not in axes], inputs[0], outputs[0]
        if axes != list(range(len(kept), len(before))):
            source = f"{reduced}/last"
            importing.layer("Permute", inputs[:1], [source], permute_param={"order": [*kept, *axes]})
        if len(after) != len(kept):
            reduced = f"{reduced}/reduced"
        importing.layer("Reduction", [source], [reduced], reduction_param={"operation": operation, "axis": len(kept)})
        if reduced != outputs[0]:
            importing.values[reduced] = importing.values[outputs[0]].reshape([before[axis] for axis in kept])
            importing.reshaped(reduced, outputs[0], after)

    return translate


def _largest(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Pooling of all of an image."""
    shape, after = importing.shape(inputs[0]), importing.shape(outputs[0])
    axes = importing.constant(inputs, 1, settings.get("axes", range(len(shape))))
    if len(shape) != 4 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        raise NoLayer("is of other axes than height and width")
    made = outputs[0] if len(after) == 4 else f"{outputs[0]}/kept"
    importing.values[made] = importing.values[outputs[0]].reshape(*shape[:2], 1, 1)
    importing.layer("Pooling", inputs[:1], [made], pooling_param={"pool": "MAX", "global_pooling": True})
    if made != outputs[0]:
        importing.reshaped(made, outputs[0], after)


def _length(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    squares = f"{outputs[0]}/squares"
    importing.values[squares] = importing.values[outputs[0]]
    _reduce("SUMSQ")(importing, inputs, [squares], settings)
    importing.layer("Power", [squares], outputs, power_param={"power": 0.5})


def _expand(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    if inputs[0] in importing.unmade:
        raise NoLayer("repeats what no blob holds")
    importing.alias(_repeated(importing, inputs[0], f"{outputs[0]}/of", outputs[0]), outputs[0])


def _greater(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    threshold = importing.constant(inputs, 1)
    if threshold.size != 1:
        raise NoLayer(f"compares with {describe(threshold.shape)}, expected a number")
    importing.layer("Threshold", inputs[:1], outputs, threshold_param={"threshold": float(threshold.ravel()[0])})
    importing.numbers.add(outputs[0])


def _roi_pool(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    height, width = settings["pooled_shape"]
    own = {"pooled_h": height, "pooled_w": width, "spatial_scale": settings.get("spatial_scale", 1.0)}
    importing.layer("ROIPooling", inputs, outputs, roi_pooling_param=own)


def _tile(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    copies = importing.constant(inputs, 1)
    source, axes = inputs[0], [axis for axis, count in enumerate(copies) if count != 1]
    if not axes:
        importing.alias(source, outputs[0])
    for axis in axes:
        name = outputs[0] if axis == axes[-1] else f"{outputs[0]}/{axis}"
        importing.layer("Tile", [source], [name], tile_param={"axis": axis, "tiles": int(copies[axis])})
        source = name


def _arithmetic(operator: str) -> Callable[..., None]:
    """Add, Sub, Mul, Div, Pow, Max, Min and Sum: of values, or of a value and constants."""

    def translate(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
        fixed = [name for name in inputs if name in importing.fixed]
        if operator == "Sub" and forwards(importing, inputs, outputs[0]):
            return
        if not fixed:
            _of_values(importing, operator, inputs, outputs)
        elif len(inputs) == 2:
            (source,) = (name for name in inputs if name not in importing.fixed)
            _with_constant(importing, operator, source, importing.values[fixed[0]], inputs[0] in fixed, outputs)
        else:
            raise NoLayer(f"takes {len(inputs)} inputs, some of them constants")

    return translate


def _of_values(importing: Importing, operator: str, inputs: list[str], outputs: list[str]) -> None:
    """Eltwise; where one is repeated along axes behind or before its own, Scale or Bias of two bottoms."""
    shapes = [importing.shape(name) for name in inputs]
    if len(inputs) == 1:
        importing.alias(inputs[0], outputs[0])
        return
    if operator == "Div" or (operator == "Sub" and len(set(shapes)) > 1):
        turned = f"{outputs[0]}/turned"
        turn = {"power": -1.0} if operator == "Div" else {"scale": -1.0}
        importing.layer("Power", inputs[1:], [turned], power_param=turn)
        importing.values[turned] = importing.values[inputs[1]]
        inputs, operator = [inputs[0], turned], "Mul" if operator == "Div" else "Add"
    operation = {"Mul": "PROD", "Max": "MAX", "Add": "SUM", "Sum": "SUM", "Sub": "SUM"}.get(operator)
    if len(set(shapes)) == 1 and operation is not None:
        own: dict[str, Any] = {"operation": operation}
        if operator == "Sub":
            own["coeff"] = [1.0, -1.0]
        importing.layer("Eltwise", inputs, outputs, eltwise_param=own)
        return
    whole, part = sorted(inputs, key=lambda name: -math.prod(importing.shape(name)))[:2]
    shape, given = importing.shape(whole), importing.shape(part)
    spread = (1,) * (len(shape) - len(given)) + given
    axes = [axis for axis, size in enumerate(spread) if size == shape[axis]] if len(spread) == len(shape) else []
    while len(axes) > 1 and spread[axes[-1]] == 1:
        axes.pop()
    kept = tuple(shape[axis] for axis in axes)
    joined = axes == list(range(axes[0], axes[0] + len(axes))) if axes else False
    if len(inputs) > 2 or operator not in ("Mul", "Add") or not joined or math.prod(kept) != math.prod(given):
        if operation is None:
            raise NoLayer(f"of {' and '.join(map(describe, shapes))}")
        alike = [_repeated(importing, name, f"{outputs[0]}/{i}", outputs[0]) for i, name in enumerate(inputs)]
        importing.layer("Eltwise", alike, outputs, eltwise_param={"operation": operation})
        return
    if kept != given:
        importing.reshaped(part, f"{outputs[0]}/narrow", kept)
        part = f"{outputs[0]}/narrow"
    kind, field = ("Scale", "scale_param") if operator == "Mul" else ("Bias", "bias_param")
    both: Any = {field: {"axis": axes[0]}}
    importing.layer(kind, [whole, part], outputs, **both)


def _repeated(importing: Importing, source: str, name: str, like: str) -> str:
    """The value, repeated to have the shape of another."""
    shape = importing.shape(like)
    given = (1,) * (len(shape) - len(importing.shape(source))) + importing.shape(source)
    if given != importing.shape(source):
        importing.reshaped(source, f"{name}/axes", given)
        source = f"{name}/axes"
    for axis in [axis for axis in range(len(shape)) if given[axis] != shape[axis]]:
        importing.layer("Tile", [source], [f"{name}/{axis}"], tile_param={"axis": axis, "tiles": shape[axis]})
        source = f"{name}/{axis}"
    return source


def _with_constant(
    importing: Importing, operator: str, source: str, value: Array, first: bool, outputs: list[str]
) -> None:
    """Power or Clip by a number, Scale or Bias by several; `first` says that the constant comes before the operator."""
    if source in importing.pending and operator in ("Mul", "Div") and not first:
        layer, missing = importing.pending[source]
        factor = (value if operator == "Mul" else 1 / value).astype(np.float64)
        lone = len(importing.readers[source]) == 1 and source not in importing.outputs
        if lone and factor.size == missing.size and np.allclose(factor.reshape(missing.shape), missing, rtol=1e-5):
            layer.name, layer.top[0] = outputs[0], outputs[0]
            del importing.pending[source]
            return
    if operator in ("Sub", "Div") and first:
        turned = f"{outputs[0]}/turned"
        importing.layer("Power", [source], [turned], power_param={"scale": -1} if operator == "Sub" else {"power": -1})
        source, operator, shape = turned, {"Sub": "Add", "Div": "Mul"}[operator], importing.shape(source)
    else:
        shape = importing.shape(source)
        if operator == "Sub":
            operator, value = "Add", -value
        elif operator == "Div":
            operator, value = "Mul", 1 / value
    operator = "Add" if operator == "Sum" else operator
    if value.size == 1:
        number = float(value.ravel()[0])
        if value.ndim > len(shape):
            raise NoLayer("adds axes")
        if operator == "Pow" and first:
            raise NoLayer("raises a number to a computed power")
        if operator in ("Max", "Min"):
            bounds = {"min": number, "max": _LARGEST} if operator == "Max" else {"min": -_LARGEST, "max": number}
            importing.layer("Clip", [source], outputs, clip_param=bounds)
        else:
            field = {"Add": "shift", "Mul": "scale", "Pow": "power"}[operator]
            importing.layer("Power", [source], outputs, power_param={field: number})
        return
    spread = (1,) * (len(shape) - value.ndim) + value.shape
    wide = [axis for axis, size in enumerate(spread) if size != 1]
    if operator not in ("Add", "Mul") or importing.shape(outputs[0]) != shape or len(spread) != len(shape):
        raise NoLayer(f"of {describe(shape)} and constants of {describe(value.shape)}")
    axes = range(wide[0], wide[-1] + 1)
    blob = np.broadcast_to(value.reshape(spread), [shape[a] if a in axes else 1 for a in range(len(shape))])
    kind, field = ("Scale", "scale_param") if operator == "Mul" else ("Bias", "bias_param")
    own: Any = {"axis": axes[0], "num_axes": len(axes)}
    importing.layer(kind, [source], outputs, [blob.reshape([shape[a] for a in axes])], **{field: own})


LAYERS: dict[str, Callable[[Importing, list[str], list[str], Settings], None]] = {
    "Abs": _simple("AbsVal"),
    "ArgMax": largest,
    "AveragePool": _pooling("AVE"),
    "BatchNormalization": _batch_norm,
    "Cast": cast,
    "Clip": _clip,
    "Compress": compress,
    "Concat": _concat,
    "Conv": _convolution("Convolution"),
    "ConvTranspose": _convolution("Deconvolution"),
    "DepthToSpace": _depth_to_space,
    "Dropout": cast,
    "Elu": _simple("ELU", "elu_param", alpha="alpha"),
    "Exp": _simple("Exp"),
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": gather,
    "GatherElements": gather_elements,
    "Gemm": _gemm,
    "GlobalAveragePool": _global("AVE"),
    "GlobalMaxPool": _global("MAX"),
    "Greater": _greater,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": cast,
    "LRN": _lrn,
    "LSTM": operator("LSTM"),
    "LeakyRelu": _leaky,
    "Log": _simple("Log"),
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _pooling("MAX"),
    "MaxRoiPool": _roi_pool,
    "Neg": _power(scale=-1.0),
    "PRelu": _prelu,
    "RNN": operator("RNN"),
    "Pad": _pad,
    "Reciprocal": _power(power=-1.0),
    "ReduceL1": _reduce("ASUM"),
    "ReduceL2": _length,
    "ReduceMax": _largest,
    "ReduceMean": _reduce("MEAN"),
    "ReduceSum": _reduce("SUM"),
    "ReduceSumSquare": _reduce("SUMSQ"),
    "Relu": _simple("ReLU"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Scan": scan,
    "Sigmoid": _simple("Sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _simple("BNLL"),
    "Split": _split,
    "Sqrt": _power(power=0.5),
    "Squeeze": _reshape,
    "Swish": _simple("Swish", "swish_param", beta="alpha"),
    "Tanh": _simple("TanH"),
    "Tile": _tile,
    "TopK": top_k,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Upsample": _resize,
} | {name: _arithmetic(name) for name in ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Sum")}
