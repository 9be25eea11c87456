"""What a CUDA graph does, and what a GPU minds, shown on a CPU.

A tape records the operations of a function with their arguments as they are, and replays them on the same tensors, as a
CUDA graph does: a number that the host would have changed meanwhile keeps its value, and a result its place.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
FROM_HOST_OR_TO_IT = {
    aten._local_scalar_dense.default,
    aten.lift_fresh.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.is_nonzero.default,
}
"""What a CUDA graph cannot hold: values that go to the host, or come from it."""


def tensors(*values: Any) -> list[Tensor]:
    """Those among an operation's arguments or results, and in lists of them; PyTorch's own search takes far longer."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            found += tensors(*(value.values() if isinstance(value, dict) else value))
    return found


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Tape(TorchDispatchMode):
    """Records operations; `undo` takes their effect back, as capturing has none; `replay` does them again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.own: set[int] = set()
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in FROM_HOST_OR_TO_IT:
            raise RuntimeError(f"{function}: operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.before += [(x, x.clone()) for x in tensors(value) if storage(x) not in self.own]
        result = function(*args, **kwargs)
        outside = {storage(x) for x in tensors(args, kwargs)}
        self.own |= {storage(x) for x in tensors(result)} - outside
        self.calls.append((function, args, kwargs, result))
        return result

    def undo(self) -> None:
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tensors(result), tensors(again), strict=True):
                if storage(old) != storage(new):
                    old.copy_(new.reshape(old.shape))  # which `squeeze_` has changed meanwhile


class Tapes:
    """Records tapes, and counts."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            function()
        tape.undo()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return replay

    def pace(self) -> None:
        """A tape is replayed at once."""


class Watch(TorchDispatchMode):
    """Sees to it that all operations are the GPU's."""

    operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in FROM_HOST_OR_TO_IT
        result = function(*args, **(kwargs or {}))
        assert {x.device.type for x in tensors(args, kwargs, result)} <= {"cuda"}, function
        self.operations += 1
        return result


def pretend_on_gpu(value: Any, seen: dict[int, Any]) -> Any:
    """Replace all tensors that are within reach by fake ones, which have no values but a place: the GPU."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, Tensor):
        seen[id(value)] = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
        return seen[id(value)]
    if isinstance(value, tuple):
        return tuple(pretend_on_gpu(element, seen) for element in value)
    seen[id(value)] = value
    ours = str(type(value).__module__).startswith("imae.")
    container = vars(value) if ours and hasattr(value, "__dict__") else value
    if isinstance(container, dict):
        container.update({name: pretend_on_gpu(element, seen) for name, element in container.items()})
    elif isinstance(container, list):
        container[:] = [pretend_on_gpu(element, seen) for element in container]
    return value
