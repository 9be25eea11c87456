"""Fields of forks that say how to compute a net are left out of a prototxt, with a warning for each."""

import logging

import pytest

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.text import parse_net

GIVEN = """
name: "cache: 1"
default_forward_type: FLOAT16 global_grad_scale: 1000
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" # engine: "x"
  backward_math: FLOAT
  engine: "MKLDNN"
  quantization_param { bw_params: 8 scale_in: 1 scale_in: 2 precision: DYNAMIC_FIXED_POINT }
  convolution_param { num_output: 2 kernel_size: 1 engine: MKL2017 conv_algorithm: "winograd" } }
layer { name: "other" type: "Convolution" bottom: "conv" top: "other"
  convolution_param { engine: CAFFE kernel_size: 1 } quantization_param: < bw_params: 8 > }
layer { name: "data" type: "Data" top: "data" data_param { cache: true source: "cache" } }
"""
KEPT = """
name: "cache: 1"
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "other" type: "Convolution" bottom: "conv" top: "other"
  convolution_param { engine: CAFFE kernel_size: 1 } }
layer { name: "data" type: "Data" top: "data" data_param { source: "cache" } }
"""


def test_they_are_left_out_and_the_rest_stays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert parse_net(GIVEN, "n.prototxt") == parse_net(KEPT)
    said = "\n".join(caplog.messages)
    for name in ("default_forward_type", "global_grad_scale", "backward_math", "conv_algorithm", "cache"):
        assert f"n.prototxt: {name} is left out: " in said
    assert "quantization_param is left out: a net computes in floating point" in said
    assert said.count("(2 times)") == 2  # of quantization_param and of engine
    caplog.clear()
    parse_net(KEPT)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("wrong", "place", "said"),
    [
        ("convolution_param { num_outputs: 2 }", "2:21", '"num_outputs" is no field of ConvolutionParameter'),
        ("convolution_param { engine: CUDN }", "2:29", '"CUDN" is none of its values'),
        ("quantization_param { bw_params: 8", "1:7", 'Expected "}"'),
    ],
)
def test_other_errors_are_said_where_they_stand(wrong: str, place: str, said: str) -> None:
    with pytest.raises(InputError) as found:
        parse_net("layer { quantization_param { bw_params: 8 }\n" + wrong + "\n}", "n.prototxt")
    assert str(found.value).startswith(f"n.prototxt:{place}") and said in str(found.value)
