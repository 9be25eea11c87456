"""Back from ONNX: layers that choose by numbers, of which ONNX makes integers first."""

from dataclasses import replace

import numpy as np

from imae.layers.layer import describe
from imae.nets.onnx_importing import Importing, NoLayer, Settings, Unmade


def cast(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Integers of a blob, the places of largest values as a blob, or the same numbers."""
    source, made = inputs[0], importing.values[outputs[0]].dtype
    known = importing.unmade.get(source)
    is_blob = importing.values[source].dtype == np.float32 or source in importing.numbers
    if known and known.what == "places" and made == np.float32:
        arg_max(importing, known, source, outputs[0])
    elif known and made != np.float32:
        importing.unmade[outputs[0]] = known
    elif is_blob and made == np.float32:
        importing.alias(source, outputs[0])
    elif is_blob and made.kind in "iub" and outputs[0] not in importing.outputs:
        importing.unmade[outputs[0]] = Unmade("integers", source)
    else:
        raise NoLayer("blobs are float32")


def arg_max(importing: Importing, known: Unmade, places: str, top: str, *, values: bool = False) -> None:
    """ArgMax of these places, or of the values there; the axis is dropped where the node has dropped it."""
    if known.backwards:
        raise NoLayer("counts places from the end")
    shape = importing.shape(known.source)
    kept = (*shape[: known.axis], known.k, *shape[known.axis + 1 :])
    own = {"axis": known.axis, "top_k": known.k, "out_max_val": values}
    made = top if importing.shape(top) == kept else f"{top}/kept"
    importing.layer("ArgMax", [known.source], [made], argmax_param=own)
    if made != top:
        importing.values[made] = importing.values[top].reshape(kept)
        importing.reshaped(made, top, importing.shape(top))


def largest(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """ONNX's ArgMax: places, which become a layer where they become a blob."""
    axis = settings.get("axis", 0) % len(importing.shape(inputs[0]))
    _places(importing, Unmade("places", inputs[0], axis), outputs[0])


def top_k(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """The values, by an ArgMax of their own, and the places, which are to come: in what is read backwards, too."""
    if not settings.get("largest", 1) or not settings.get("sorted", 1):
        raise NoLayer("takes the smallest, or in any order, where ArgMax has the largest first")
    axis = settings.get("axis", -1) % len(importing.shape(inputs[0]))
    known = importing.unmade.get(inputs[0])
    backwards = known is not None and known.what == "backwards" and known.axis == axis
    source = known.source if known is not None and backwards else inputs[0]
    k = int(np.ravel(importing.constant(inputs, 1, settings.get("k")))[0])
    found = Unmade("places", source, axis, k)
    if outputs[0] in importing.readers or outputs[0] in importing.outputs:
        arg_max(importing, found, outputs[1], outputs[0], values=True)
    if outputs[1:]:
        _places(importing, replace(found, backwards=backwards), outputs[1])


def forwards(importing: Importing, inputs: list[str], top: str) -> bool:
    """Whether a Sub makes of places that count from the end those that count from the beginning."""
    known = importing.unmade.get(inputs[1])
    if known is None or not known.backwards or inputs[0] not in importing.fixed:
        return False
    if not np.all(importing.values[inputs[0]] == importing.shape(known.source)[known.axis] - 1):
        return False
    _places(importing, replace(known, backwards=False), top)
    return True


def _places(importing: Importing, known: Unmade, top: str) -> None:
    importing.unmade[top] = known
    if top in importing.outputs:
        arg_max(importing, known, top, top)


def gather_elements(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """The largest values, by their places."""
    known = importing.unmade.get(inputs[1])
    axis = settings.get("axis", 0) % len(importing.shape(inputs[0]))
    if known is None or (known.what, known.source, known.axis) != ("places", inputs[0], axis):
        raise NoLayer("takes other values than the largest, which ArgMax has")
    arg_max(importing, known, inputs[1], outputs[0], values=True)


def gather(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Embed, rows of a matrix, or BatchReindex, items of a batch."""
    data, index = inputs
    if settings.get("axis", 0) % len(importing.shape(data)):
        raise NoLayer("gathers along an axis behind the first")
    bottom = _integers_of(importing, index)
    if data not in importing.fixed:
        if len(importing.shape(index)) != 1:
            raise NoLayer(f"has indices of {describe(importing.shape(index))}, where BatchReindex has one axis")
        importing.layer("BatchReindex", [data, bottom], outputs)
        return
    weight = importing.values[data]
    if weight.ndim != 2:
        raise NoLayer(f"chooses from {describe(weight.shape)}, where Embed has a matrix")
    own = {"input_dim": weight.shape[0], "num_output": weight.shape[1], "bias_term": False}
    importing.layer("Embed", [bottom], outputs, [weight], embed_param=own)


def compress(importing: Importing, inputs: list[str], outputs: list[str], settings: Settings) -> None:
    """Filter."""
    if settings.get("axis", -1) != 0:
        raise NoLayer("chooses along another axis than the first, which Filter has")
    importing.layer("Filter", [inputs[0], _integers_of(importing, inputs[1])], outputs)


def _integers_of(importing: Importing, name: str) -> str:
    """The blob of which these are the integers, in their shape."""
    known = importing.unmade.get(name)
    if known is None or known.what != "integers":
        raise NoLayer(f'its input "{name}" is no blob\'s integers')
    shape = importing.shape(name)
    if importing.shape(known.source) == shape:
        return known.source
    shaped = f"{name}/shaped"
    importing.reshaped(known.source, shaped, shape)
    importing.unmade[name] = Unmade("integers", shaped)
    return shaped
