"""docs/data.md has every option of every data layer, with its default."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from imae.layers.data.data_layer import DataLayer
from imae.layers.registry import registry
from imae.prototxt_like.schema import LayerParameter, NoiseKind

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
TYPES = sorted(
    name for name, cls in registry.items() if issubclass(cls, DataLayer) and cls.__module__.startswith("imae.")
)


def options(section: str) -> dict[str, str]:
    """The options in the table of a section, with their defaults."""
    found = {}
    for names, default in re.findall(r"^\| (`.*?`) \| (.*?) \|", SECTIONS[section], re.MULTILINE):
        defaults = default.split(", ") if ", " in names else [default]
        found.update(zip(re.findall(r"`(\w+)`", names), defaults, strict=True))
    return found


def text_of(field: FieldDescriptor) -> str:
    """The default of a field as prototxt has it."""
    if field.enum_type:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if isinstance(field.default_value, bool):
        return str(field.default_value).lower()
    return f"{field.default_value:g}" if isinstance(field.default_value, float) else str(field.default_value)


@pytest.mark.parametrize("section", ["transform_param", *TYPES])
def test_every_option_of_a_data_layer_stands_in_the_page_with_its_default(section: str) -> None:
    name = section.lower() + ("" if section == "transform_param" else "param")
    fields = {field.name.replace("_", ""): field for field in LayerParameter.DESCRIPTOR.fields}
    message = fields[name.replace("_", "")].message_type
    written = options(section)
    noise = options("Label noise") if "Label noise" in SECTIONS[section] else {}
    for field in message.fields:
        assert field.name in written or field.name in noise, f"{section}: {field.name} is not in docs/data.md"
        default = {**noise, **written}[field.name]
        if field.has_default_value:
            text = text_of(field)
            assert default == text, f"{section}: the default of {field.name} is {text}, not {default}"
        for value in field.enum_type.values if field.enum_type and not noise.get(field.name) else []:
            assert value.name in SECTIONS[section]
    assert set(written) <= {field.name for field in message.fields}, "the page has options that there are not"


def test_every_kind_of_noise_stands_in_the_page() -> None:
    assert set(NoiseKind.keys()) == set(re.findall(r"^\| `([A-Z_]+)` \|", SECTIONS["Label noise"], re.MULTILINE))
