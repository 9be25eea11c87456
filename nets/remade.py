"""Values that are not kept for backward, but made again when the first step needs them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from imae.layers.layer import Saved


class Remade:
    """Stands for a value among what steps saved for backward."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        """The value is what `make` returns; it is called once at most."""
        self._make = make
        self._value: Tensor | None = None

    def value(self) -> Tensor:
        """Return the value."""
        if self._value is None:
            self._value = self._make()
        return self._value


def without(saved: Saved, values: Iterable[tuple[int, Tensor]], remade: Mapping[int, Remade]) -> Saved:
    """Return what a layer saved, with the tensors that are to be made again replaced by what makes them.

    `values` are the layer's bottoms and tops with their numbers, by which `remade` has those that are made again.
    """
    makers = {id(value): remade[number] for number, value in values if number in remade}
    return _mapped(saved, lambda element: makers.get(id(element), element)) if makers else saved


def with_values(saved: Saved) -> Saved:
    """Return the inverse of `without`: every tensor, made again where it has to be."""
    return _mapped(saved, lambda element: element.value() if isinstance(element, Remade) else element)


def _mapped(saved: Saved, function: Callable[[Any], Any]) -> Saved:
    """`function` of all that is saved, by itself or in a list."""
    return {name: [*map(function, kept)] if isinstance(kept, list) else function(kept) for name, kept in saved.items()}
