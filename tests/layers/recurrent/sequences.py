"""What LSTM and RNN are tested with: their steps in PyTorch's terms, and what holds for both."""

from collections.abc import Callable

import torch
from layer_cases import TRAIN, Case, Draw, Maker, normal
from torch import Tensor

from imae.layers.gradient_check import build_layer
from imae.layers.layer import Layer, Saved
from imae.nets.net import Net
from imae.prototxt_like.text import parse_net

Step = Callable[[Tensor, list[Tensor], list[Tensor]], tuple[Tensor, list[Tensor]]]
"""Output and hidden values, from the gates' input, the hidden values before, and the blobs after the inputs' own."""


def unrolled(xs: list[Tensor], blobs: list[Tensor], step: Step, hidden: int, exposed: bool) -> list[Tensor]:
    """The tops, a step at a time; hidden values begin at zero unless they are given."""
    x, cont, *others = xs
    static = len(others) > hidden * exposed
    weight, bias, *rest = blobs
    inputs = x.flatten(2) @ weight.t() + bias
    if static:
        inputs = inputs + others[0].flatten(1) @ rest[0].t()
    rest = rest[static:]
    zero = torch.zeros(x.shape[1], rest[0].shape[1], dtype=x.dtype)
    # The gradient stays in the pass, as in Caffe.
    values = [h[0].detach() for h in others[static:]] if exposed else [zero] * hidden
    tops = []
    for t in range(len(x)):
        values = [cont[t][:, None] * value for value in values]
        top, values = step(inputs[t] + values[0] @ rest[0].t(), values, rest)
        tops.append(top)
    return [torch.stack(tops), *([value[None] for value in values] if exposed else [])]


def cont(*shape: int, first: float = 0.0) -> Maker:
    """0 where a sequence begins, else 1; the first step as given."""

    def draw(draw: Draw) -> Tensor:
        drawn = (draw.uniform(*shape) < 0.7).double()
        drawn[0] = first
        return drawn

    return draw


def cases(type: str, step: Step, hidden: tuple[str, ...]) -> list[Case]:
    """The cases of a layer of this type."""

    def case(settings: str, *bottoms: Maker, exposed: bool = False) -> Case:
        tops = " ".join(f'top: "{name}"' for name in ("y", *hidden)) if exposed else ""
        text = f'type: "{type}" {tops} recurrent_param {{ {settings} {"expose_hidden: true" if exposed else ""} }}'
        return Case(text, bottoms, lambda xs, blobs: unrolled(xs, blobs, step, len(hidden), exposed))

    start = [normal(1, 2, 3)] * len(hidden)
    return [
        case("num_output: 3", normal(4, 2, 3), cont(4, 2)),
        case("num_output: 3 debug_info: true", normal(3, 2, 2), cont(3, 2, first=1.0)),
        case("num_output: 2", normal(3, 2, 2, 1, 2), cont(3, 2), normal(2, 3)),
        case("num_output: 1", normal(1, 3, 1), cont(1, 3), normal(3, 2, 2)),
        case("num_output: 3", normal(3, 2, 2), cont(3, 2, first=1.0), *start, exposed=True),
        case("num_output: 3", normal(2, 2, 2), cont(2, 2, first=1.0), normal(2, 2), *start, exposed=True),
        case("num_output: 2", normal(3, 2, 2), lambda draw: draw.uniform(3, 2)),
    ]


def layer(type: str, *shapes: tuple[int, ...], settings: str = "") -> Layer:
    """A layer of 3 outputs, whose weights are drawn, the same each time."""
    filler = 'weight_filler { type: "uniform" min: -0.7 max: 0.7 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
    return build_layer(f'type: "{type}" {settings} recurrent_param {{ num_output: 3 {filler} }}', shapes)


def assert_two_passes_are_one_of_twice_the_length(type: str) -> None:
    """With cont 1 at the second's first step; a sequence that begins there begins at zero in both."""
    x, cont = Draw(1).normal(6, 3, 2), torch.ones(6, 3).double()
    cont[0], cont[3, 1], cont[4, 2] = 0, 0, 0
    (whole,) = layer(type, (6, 3, 2), (6, 3)).forward([x, cont], {})
    halves = layer(type, (3, 3, 2), (3, 3))
    (first,) = halves.forward([x[:3], cont[:3]], {})
    (second,) = halves.forward([x[3:], cont[3:]], {})
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(layer(type, (3, 3, 2), (3, 3)).forward([x[3:], cont[3:]], {})[0], second)


def assert_no_gradient_goes_from_pass_to_pass(type: str) -> None:
    """The second pass's is that of its own steps, from hidden values that are held fixed."""
    x, cont = Draw(1).normal(4, 2, 2), torch.ones(4, 2).double()
    layers = [layer(type, (4, 2, 2), (4, 2)) for _ in range(2)]
    for value in layers[1].state:
        value.fill_(0.25)
    layers[0].forward([x, cont], {})
    diffs = []
    for each in layers:
        saved: Saved = {}
        tops = each.forward([x, cont], saved)
        diffs.append(each.backward([x, cont], tops, [torch.ones(4, 2, 3).double()], saved, [True, False]))
        assert diffs[-1][1] is None
    assert not torch.allclose(diffs[0][0], diffs[1][0])  # type: ignore[arg-type]


def assert_other_numbers_of_sequences_begin_anew(type: str) -> None:
    """Their state finds its place again, and is zero."""
    several = layer(type, (2, 3, 2), (2, 3))
    places = [value.data_ptr() for value in several.state]
    x, cont = Draw(1).normal(2, 3, 2), torch.ones(2, 3).double()
    (first,) = several.forward([x, cont], {})
    several.reshape([(5, 3, 2), (5, 3)])
    assert all(value.any() for value in several.state)  # only the number of steps has changed
    several.reshape([(2, 1, 2), (2, 1)])
    several.forward([x[:, :1], cont[:, :1]], {})
    several.reshape([(2, 3, 2), (2, 3)])
    assert [value.data_ptr() for value in several.state] == places
    assert torch.equal(several.forward([x, cont], {})[0], first)


def assert_an_encoders_hidden_values_begin_a_decoder(type: str, hidden: tuple[str, ...]) -> None:
    """By `expose_hidden`, whose tops and bottoms pass no gradient, as in Caffe; two are one of twice the length."""
    filler = 'weight_filler { type: "uniform" min: -0.7 max: 0.7 }'
    names = [f'name: "{name}"' for name in ("wx", "b", "wh", "wo", "bo")]
    params = " ".join(f"param {{ {name} }}" for name in names[: 3 if type == "LSTM" else 5])

    def exposed(name: str, bottoms: list[str], tops: list[str]) -> str:
        places = " ".join([*(f'bottom: "{bottom}"' for bottom in bottoms), *(f'top: "{top}"' for top in tops)])
        return (
            f'layer {{ name: "{name}" type: "{type}" bottom: "{name}_x" bottom: "{name}_cont" {places} {params} '
            f"recurrent_param {{ num_output: 3 expose_hidden: true {filler} }} }}"
        )

    starts = [f"{value}_0" for value in hidden]
    middles, ends = ([f"{value}_{when}" for value in hidden] for when in ("middle", "end"))
    sizes = {"first_x": (3, 2, 2), "first_cont": (3, 2), "second_x": (3, 2, 2), "second_cont": (3, 2)}
    sizes |= dict.fromkeys(starts, (1, 2, 3))
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {size}' for size in shape)} }} }} }}"
        for name, shape in sizes.items()
    )
    layers = exposed("first", starts, ["y", *middles]) + exposed("second", middles, ["z", *ends])
    net = Net(parse_net("force_backward: true " + inputs + layers), TRAIN)
    fed = {name: torch.zeros(shape) for name, shape in sizes.items()}
    x, cont = Draw(1).normal(6, 2, 2).float(), torch.ones(6, 2)
    fed |= {"first_x": x[:3], "second_x": x[3:], "first_cont": cont[:3], "second_cont": cont[3:]}
    net.forward(**fed)
    whole = layer(type, (6, 2, 2), (6, 2))
    for blob, given in zip(whole.blobs, net.learnable, strict=True):
        blob.data.copy_(given.data)
    (y,) = whole.forward([x.double(), cont.double()], {})
    torch.testing.assert_close(torch.cat([net.blobs["y"], net.blobs["z"]]), y.float())
    net.backward({"z": torch.ones(3, 2, 3)})
    gradient = [blob.diff.clone() for blob in net.learnable]
    assert all(diff.any() for diff in gradient)
    net.clear_diffs()
    net.backward({"z": torch.ones(3, 2, 3), **{end: torch.ones(1, 2, 3) for end in ends}})
    torch.testing.assert_close([blob.diff for blob in net.learnable], gradient)
