"""Recurrent layers in ONNX Runtime: hidden values go in and out, and cont begins sequences or is 1 throughout."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from imae.nets.net import Net
from imae.nets.onnx_export import compare_with_onnxruntime, export_onnx
from imae.nets.onnx_verify import verify
from imae.prototxt_like.text import parse_net

STEPS, SEQUENCES, SIZE = 4, 3, 5
FILLERS = 'weight_filler { type: "uniform" min: -0.5 max: 0.5 } bias_filler { type: "uniform" min: -0.3 max: 0.3 }'
STATIC = 'layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 3 dim: 2 dim: 2 } } }'


def recurrent(kind: str, *, static: bool = False, exposed: bool = False) -> Net:
    hidden = {"LSTM": "hc", "RNN": "h"}[kind] if exposed else ""
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {shape} }} }} }}'
        for name, shape in [("x", "dim: 4 dim: 3 dim: 2 dim: 3"), ("cont", "dim: 4 dim: 3")]
    )
    states = "".join(
        f'layer {{ name: "{v}0" type: "Input" top: "{v}0" input_param {{ shape {{ dim: 1 dim: 3 dim: 5 }} }} }}'
        for v in hidden
    )
    bottoms = " ".join(f'bottom: "{name}"' for name in ["x", "cont", *(["s"] * static), *(f"{v}0" for v in hidden)])
    tops = " ".join(f'top: "{name}"' for name in ["y", *(f"{v}1" for v in hidden)])
    settings = f"num_output: {SIZE} {FILLERS} expose_hidden: {str(exposed).lower()}"
    layer = f'layer {{ name: "layer" type: "{kind}" {bottoms} {tops} recurrent_param {{ {settings} }} }}'
    return Net(parse_net(inputs + (STATIC if static else "") + states + layer), backward=False)


def draw(net: Net, steps: int, sequences: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(steps)
    sizes = {"x": (steps, sequences, 2, 3), "cont": (steps, sequences), "s": (sequences, 2, 2)}
    drawn = {name: generator.standard_normal(sizes.get(name, (1, sequences, SIZE)), np.float32) for name in net.inputs}
    return drawn | {"cont": (drawn["cont"] > 0).astype(np.float32)}


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
@pytest.mark.parametrize("continuous", [False, True])
def test_two_passes_give_what_the_net_gives(
    kind: str, static: bool, exposed: bool, continuous: bool, tmp_path: Path
) -> None:
    """Each by other numbers of steps and sequences, the second beginning where the first ended."""
    net = recurrent(kind, static=static, exposed=exposed)
    report = export_onnx(net, None, tmp_path / "net.onnx", continuous=continuous)
    assert ("cont" in report.inputs) != continuous
    assert report.inputs["x"] == ("T", "N", 2, 3)
    if not exposed:
        hidden = ("h", "c")[: 1 + (kind == "LSTM")]
        assert report.states == {f"layer_{v}_T": (f"layer_{v}_0", "layer") for v in hidden}
    types = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert ((kind if continuous and not static else "Scan") in types) and types.isdisjoint({"Dropout", "Identity"})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for sequences in (SEQUENCES, 2):
        states = {name: np.zeros((1, sequences, SIZE), np.float32) for name, _ in report.states.values()}
        for steps in (STEPS, 7):
            fed = draw(net, steps, sequences)
            if continuous:
                fed["cont"][:] = 1
            expected = net.forward(**fed)
            given = {name: value for name, value in fed.items() if name in report.inputs}
            actual = dict(zip(report.outputs, session.run(None, given | states), strict=True))
            for name, value in expected.items():
                np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=1e-6)
            states = {before: actual[name] for name, (before, _) in report.states.items()}
    assert compare_with_onnxruntime(report.path, net, fed) <= 1e-6
    assert verify(report, net).difference <= 1e-5


def test_a_step_of_an_lstm(tmp_path: Path) -> None:
    sizes = {"c": "dim: 1 dim: 3 dim: 2", "g": "dim: 1 dim: 3 dim: 8", "cont": "dim: 1 dim: 3"}
    net = Net(
        parse_net(
            "".join(
                f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
                for name, dims in sizes.items()
            )
            + 'layer { name: "u" type: "LSTMUnit" bottom: "c" bottom: "g" bottom: "cont" top: "c1" top: "h1" }'
        ),
        backward=False,
    )
    export_onnx(net, None, tmp_path / "net.onnx")
    generator = torch.Generator().manual_seed(0)
    fed = {name: torch.randn(net.shape(name), generator=generator) for name in sizes}
    fed["cont"] = torch.tensor([[1.0, 0.0, 1.0]])
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    actual = session.run(["c1", "h1"], {name: value.numpy() for name, value in fed.items()})
    for value, expected in zip(actual, net.forward(**fed).values(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
