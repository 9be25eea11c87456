"""Tile."""

import torch
from layer_cases import Case, normal


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
