"""Writes docs/layers.md: every layer type, from the registry, the schema, and what the layers' own files say.

python docs/layers.py
"""

import functools
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imae.layers.layer import Layer
from imae.layers.registry import FAMILIES, registry
from imae.nets.onnx_forms import onnx_form
from imae.prototxt_like.files import write_atomically
from imae.prototxt_like.known_names import CAFFE_LAYERS
from imae.prototxt_like.schema import FillerParameter, LayerParameter

PAGE = Path(__file__).with_name("layers.md")
DIFFERENCES = PAGE.with_name("differences.md")
CALLED = {"pooling": "Pooling", "LevelDB": "Data"}
"""What docs/differences.md calls layers beside their types."""
SETTINGS = {
    field.name: field.message_type.name
    for field in LayerParameter.DESCRIPTOR.fields
    if field.message_type and field.name.endswith("_param")
}
"""By its name in a layer: the message of its settings."""
HEAD = """# Layers

Every layer type that a prototxt can name, by Caffe's families; those that BVLC's Caffe has not are marked. A field
stands with its default, one of a choice with the choices; what has no default is given or left out. All layers have,
beside their own settings, `name`, `type`, `bottom`, `top`, `loss_weight`, `param` (`name`, `lr_mult`, `decay_mult`,
`share_mode`, for each blob that they learn), `propagate_down`, `phase`, `include` and `exclude`; an `engine` is read
and has no effect. What is learned has a gradient in every layer; "gradient" says by which bottoms there is one. "ONNX"
says what becomes of a layer in [`imae export`](../README.md#from-caffe-to-imae). Bottoms are counted from 0. Where a
difference from Caffe is known, it is linked. More of the data layers: [data.md](data.md).

Written by `make docs`: change the layers' files instead.
"""


@functools.cache
def types() -> dict[str, type[Layer]]:
    """Return the types of this package."""
    return {name: layer for name, layer in registry.items() if layer.__module__.startswith("imae.layers.")}


def page() -> str:
    """Return the whole page."""
    lines = [HEAD]
    families = {family: [n for n, c in types().items() if c.__module__.split(".")[2] == family] for family in FAMILIES}
    for family, names in families.items():
        lines.append(f"- **{family}**: {', '.join(f'[{name}](#{name.lower()})' for name in names)}")
    differences = rows()
    for family, names in families.items():
        lines.append(f"\n## {family} layers")
        for name in names:
            lines += ["", *section(name, types()[name], differences)]
    lines += ["", "## Fillers", "", "Where a field takes a filler, that is:", "", f"- {_fields(FillerParameter)}", ""]
    return "\n".join(lines)


def section(name: str, layer: type[Layer], differences: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines about one type."""
    yield f"### {name}"
    yield ""
    yield _escaped(inspect.getdoc(layer) or "")
    yield ""
    whose, made = "" if name in CAFFE_LAYERS else "not of BVLC's Caffe; ", example(layer)
    yield f"- {whose}{_count(made.bottoms, 'bottom')}, {_count(made.tops, 'top')}; gradient: {gradient(made)}"
    for field in settings(layer):
        yield f"- `{field}`: {_fields(getattr(LayerParameter(), field))}"
    yield f"- ONNX: {_escaped(onnx_form(layer))}"
    if links := [f"[{_escaped(what)}]({link})" for what, link in differences if name in named(what)]:
        yield f"- differs from Caffe: {'; '.join(links)}"


def settings(layer: type[Layer]) -> list[str]:
    """Return the fields with a layer's settings: of its type's name, and what its code, or what it uses, reads."""
    found = {field for text in _code(layer) for field in re.findall(r"\b\w+_param\b", text)}
    found |= {name for name, kind in SETTINGS.items() if kind == f"{layer.type}Parameter"}
    return sorted((found | {str(getattr(layer, "field", ""))}) & set(SETTINGS))


def example(layer: type[Layer]) -> Layer:
    """Return a layer, not set up, with as many bottoms as it takes, of an open number three or so."""
    made = layer(LayerParameter(type=layer.type))
    for _ in range(2):  # as how many it takes may depend on how many it has
        least, most = made.bottoms
        made = layer(LayerParameter(type=layer.type, bottom=["x"] * (max(least, 3) if most is None else most)))
    return made


def gradient(layer: Layer) -> str:
    """Return, in words, by which bottoms a layer has a derivative."""
    count, (_, most) = len(layer.param.bottom), layer.bottoms
    without = layer.no_gradient_to & set(range(count))
    if not count:
        return "none, it has no bottoms"
    if len(without) == count:
        return "none"
    if not without:
        return "by its bottom" if most == 1 else "by all bottoms"
    numbers = ["the last"] if most is None and without == {count - 1} else [str(i) for i in sorted(without)]
    return f"by all bottoms but {' and '.join(numbers)}"


def rows() -> list[tuple[str, str]]:
    """Return what the rows of docs/differences.md are about, each with a link to its section."""
    found, link = [], ""
    for line in DIFFERENCES.read_text().splitlines():
        if line.startswith("## "):
            link = f"{DIFFERENCES.name}#{line[3:].lower().replace(' ', '-')}"
        elif line.startswith("| ") and "::" in line:
            found.append((line.split(" | ")[0].removeprefix("| "), link))
    return found


def named(row: str) -> set[str]:
    """Return the types that a row of docs/differences.md is about."""
    return {CALLED.get(word, word) for word in re.findall(r"\w+", row)} & set(types())


def _code(layer: type[Layer]) -> Iterator[str]:
    """The code, without its docstrings, of a layer's classes and of what they use by name that is no layer."""
    for cls in layer.__mro__:
        if cls is Layer or not cls.__module__.startswith("imae.layers."):
            continue
        yield (own := _without_docstrings(cls))
        for name in set(re.findall(r"\b[A-Za-z_]\w*\b", own)):
            used = vars(sys.modules[cls.__module__]).get(name)
            if _is_part(used):
                yield _without_docstrings(used)


def _is_part(used: Any) -> bool:
    """Whether it is a function, or a class but no layer, of this package's layers."""
    if not str(getattr(used, "__module__", "")).startswith("imae.layers."):
        return False
    return inspect.isfunction(used) or (inspect.isclass(used) and not issubclass(used, Layer))


@functools.cache
def _without_docstrings(code: Any) -> str:
    return re.sub(r'""".*?"""', "", inspect.getsource(code), flags=re.DOTALL)


def _count(limits: tuple[int, int | None], what: str) -> str:
    least, most = limits
    if most is None:
        return f"{least} or more {what}s" if least else f"any number of {what}s"
    number = str(least) if least == most else f"{least} to {most}"
    return f"{number} {what}{'' if number == '1' else 's'}" if most else f"no {what}s"


def _fields(message: Any) -> str:
    """The fields of a message with their defaults."""
    return ", ".join(f"`{field.name}`{_default(field)}" for field in message.DESCRIPTOR.fields)


def _default(field: Any) -> str:
    if field.message_type:
        kind = {"FillerParameter": "a filler", "BlobShape": "a shape"}.get(field.message_type.name, "settings")
        return f" ({'several, each ' if field.is_repeated else ''}{kind})"
    if field.is_repeated:
        return " (several)"
    if field.enum_type:
        chosen = field.enum_type.values_by_number[field.default_value].name
        others = [value.name for value in field.enum_type.values if value.name != chosen]
        return f" {chosen} (or {', '.join(others)})"
    if not field.has_default_value:
        return ""
    value = field.default_value
    return (
        f" {str(value).lower()}" if isinstance(value, bool) else f' "{value}"' if value == "" else f" {_number(value)}"
    )


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _escaped(docstring: str) -> str:
    """The first paragraph of a docstring as Markdown, in which what is not between backticks is no markup."""
    parts = " ".join(docstring.partition("\n\n")[0].split()).split("`")
    parts[::2] = [re.sub(r"([*<|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    write_atomically(PAGE, page().encode())
