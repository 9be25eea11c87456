"""Tile."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import Case, normal

from imae.layers.gradient_check import build_layer


def tile(settings: str, axis: int, tiles: int, *shape: int) -> Case:
    text = f'type: "Tile" tile_param {{ {settings} }}'
    return Case(text, [normal(*shape)], lambda xs, blobs: [torch.cat(xs * tiles, axis)])


CASES = [
    tile("tiles: 3", 1, 3, 2, 3, 2),
    tile("tiles: 2 axis: 0", 0, 2, 3),
    tile("tiles: 2 axis: -1", 3, 2, 2, 3, 2, 2),
    tile("tiles: 1", 1, 1, 2, 3),
]

MISTAKES = [
    ('type: "Tile"', [(2, 3)], "tiles, the number of copies, is missing or below 1"),
    ('type: "Tile" tile_param { tiles: -1 }', [(2, 3)], "tiles, the number of copies, is missing or below 1"),
    ('type: "Tile" tile_param { tiles: 2 axis: 2 }', [(2, 3)], "axis 2 is out of range for a bottom of shape 2x3"),
    ('type: "Tile" tile_param { tiles: 2147483647 }', [(2, 3)], "more than the 2147483647 numbers of a blob"),
]


@given(st.data())
def test_copies_follow_each_other_along_any_axis(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis, tiles = data.draw(st.integers(-len(shape), len(shape) - 1)), data.draw(st.integers(1, 4))
    layer = build_layer(f'type: "Tile" tile_param {{ axis: {axis} tiles: {tiles} }}', [tuple(shape)])
    x = torch.arange(float(math.prod(shape))).view(shape)
    (y,) = layer.forward([x], {})
    assert torch.equal(y, torch.cat([x] * tiles, axis))
    dx = layer.backward([x], [y], [torch.arange(float(y.numel())).view(y.shape)], {}, [True])[0]
    assert torch.equal(dx, sum(torch.arange(float(y.numel())).view(y.shape).chunk(tiles, axis)))
