"""Power."""

import math

import pytest
import torch
from layer_cases import Case, Maker, first_top, normal, run

from imae.layers.gradient_check import build_layer

ANY: Maker = normal(4, 5)
ABOVE_0: Maker = lambda draw: draw.uniform(4, 5) + 0.5  # noqa: E731


def power(settings: str, power: float = 1, scale: float = 1, shift: float = 0, x: Maker = ANY) -> Case:
    return Case(
        f'type: "Power" power_param {{ {settings} }}', [x], lambda xs, blobs: [(shift + scale * xs[0]) ** power]
    )


CASES = [
    power(""),
    power("scale: -2 shift: 0.5", scale=-2, shift=0.5),
    power("power: 2 scale: 0.5", power=2, scale=0.5),
    power("power: 2 scale: 0.5 shift: -0.25", power=2, scale=0.5, shift=-0.25),
    power("power: 3 shift: 0.25", power=3, shift=0.25),
    power("power: 0.5 scale: 0.75 shift: 0.25", power=0.5, scale=0.75, shift=0.25, x=ABOVE_0),
    power("power: -1.5", power=-1.5, x=ABOVE_0),
    power("power: 0.5 scale: 2", power=0.5, scale=2, x=ABOVE_0),
    power("power: 0 shift: 2", power=0, shift=2),
    power("power: 3 scale: 0 shift: 2", power=3, scale=0, shift=2),
]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("power: 0 scale: 0 shift: 0", 1),
        ("power: 0 shift: -3", 1),
        ("scale: 0 shift: -3", -3),
        ("power: 3 scale: 0 shift: -2", -8),
        ("power: -1 scale: 0", math.inf),
        ("power: 0.5 scale: 0 shift: -2", math.nan),
    ],
)
def test_power_is_a_number_where_x_has_no_say(settings: str, expected: float) -> None:
    x = torch.tensor([0.0, -1.0, math.inf, math.nan])
    y = first_top(f'type: "Power" power_param {{ {settings} }}', x)
    torch.testing.assert_close(y, torch.full((4,), float(expected)), equal_nan=True)


def test_power_has_the_gradient_zero_at_zero_for_powers_above_one() -> None:
    for setting in ("power: 2", "power: 3", "power: 1.5"):
        layer = build_layer(f'type: "Power" power_param {{ {setting} }}', [(1,)])
        assert run(layer, [torch.zeros(1)], [torch.ones(1)])[1] == [torch.zeros(1)]
