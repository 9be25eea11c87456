"""InnerProduct."""

import torch.nn.functional as F
from layer_cases import Case, normal
from torch import Tensor


def inner_product(settings: str, axis: int, *shape: int) -> Case:
    def reference(xs: list[Tensor], blobs: list[Tensor]) -> list[Tensor]:
        weight, *bias = blobs
        x = xs[0].reshape(*xs[0].shape[:axis], -1)
        return [F.linear(x, weight.t() if "transpose: true" in settings else weight, *bias)]

    return Case(f'type: "InnerProduct" inner_product_param {{ {settings} }}', [normal(*shape)], reference)


CASES = [
    inner_product("num_output: 4", 1, 3, 5),
    inner_product("num_output: 4 bias_term: false", 1, 3, 2, 3, 2),
    inner_product("num_output: 4 transpose: true", 1, 3, 5),
    inner_product("num_output: 4 axis: 2", 2, 2, 3, 4, 2),
    inner_product("num_output: 4 axis: -1 transpose: true", 3, 2, 3, 2, 4),
    inner_product("num_output: 4 axis: 0", 0, 3, 2),
]

MISTAKES = [
    ('type: "InnerProduct"', [(2, 3)], "num_output is missing or 0"),
    (
        'type: "InnerProduct" inner_product_param { num_output: 2 axis: 3 }',
        [(2, 3)],
        "axis 3 is out of range for a bottom of shape 2x3",
    ),
    (
        'type: "InnerProduct" inner_product_param { num_output: 2 weight_filler { type: "xavir" } }',
        [(2, 3)],
        'unknown filler "xavir"',
    ),
]
