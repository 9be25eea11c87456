"""docs/layers.md: every layer type, its fields, gradient, ONNX form and differences from Caffe, as they are now."""

import re
from pathlib import Path

import pytest

from docs import layers as script
from imae.prototxt_like.schema import LayerParameter

PAGE = script.PAGE.read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]}


def test_the_page_is_what_its_script_writes() -> None:
    assert script.page() == PAGE, "docs/layers.md is out of date: run `make docs`, or `python docs/layers.py`"


def test_every_type_has_a_section_and_the_readme_names_the_page() -> None:
    assert list(SECTIONS) == [name for family in script.FAMILIES for name in script.types() if in_family(name, family)]
    links = set(re.findall(r"\]\(#(\w+)\)", PAGE))
    headings = [heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)", PAGE, re.MULTILINE)]
    assert links == {name.lower() for name in SECTIONS}
    assert len(set(headings)) == len(headings) and links <= set(headings)
    assert "](docs/layers.md)" in (Path(__file__).resolve().parents[2] / "README.md").read_text()


def in_family(name: str, family: str) -> bool:
    return script.types()[name].__module__.split(".")[2] == family


@pytest.mark.parametrize(
    ("name", "lines"),
    {
        "Convolution": [
            "`convolution_param`: `num_output`, `bias_term` true, `pad` (several)",
            "gradient: by all bottoms",
        ],
        "Pooling": ["`pool` MAX (or AVE, STOCHASTIC)", "ONNX: GlobalAveragePool", "[pooling, the last window begins"],
        "Accuracy": ["gradient: none", "`top_k` 1, `axis` 1, `ignore_label`", "](differences.md#values)"],
        "Filter": ["2 or more bottoms, 1 or more tops; gradient: by all bottoms but the last"],
        "LSTM": ["2 to 3 bottoms, 1 top; gradient: by all bottoms but 1", "`recurrent_param`: `num_output` 0"],
        "SoftmaxWithIMAELoss": ["not of BVLC's Caffe", "`T` 8, `epsilon` 1e-06", "`loss_param`", "`softmax_param`"],
        "DigitsData": ["`digits_data_param`", "`transform_param`", "ONNX: an input of the model"],
        "Data": ["`backend` LEVELDB (or LMDB)", "[a data set in LevelDB](differences.md#files-and-commands)"],
        "Sigmoid": ["`sigmoid_param`: `engine` DEFAULT (or CAFFE, CUDNN)"],
        "InnerProduct": ["`weight_filler` (a filler)", "`transpose` false"],
    }.items(),
)
def test_what_a_section_says(name: str, lines: list[str]) -> None:
    for line in lines:
        assert line in SECTIONS[name]


def test_every_field_of_a_listed_message_stands_there() -> None:
    for section in SECTIONS.values():
        for field in re.findall(r"^- `(\w+_param)`: ", section, re.MULTILINE):
            line = re.search(rf"^- `{field}`: (.*)$", section, re.MULTILINE)
            assert line and re.findall(r"`(\w+)`", line[1]) == list(
                getattr(LayerParameter(), field).DESCRIPTOR.fields_by_name
            )


def test_every_difference_of_a_layer_is_linked() -> None:
    linked = set(re.findall(r"\[([^\]]*)\]\(differences", PAGE))
    about = {script._escaped(what) for what, _ in script.rows() if script.named(what)}
    assert about == linked
    assert len(about) > 15
