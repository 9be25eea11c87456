"""The house's imports point down its table, and no file is part of a circle: imports inside functions included."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERED = {
    "prototxt_like": set(),
    "reports": set(),
    "layers": {"prototxt_like"},
    "nets": {"layers", "prototxt_like"},
    "solvers": {"nets", "layers", "prototxt_like"},
    "experiments": {"solvers", "reports", "nets", "layers", "prototxt_like"},
    "audit": {"solvers", "reports", "nets", "layers", "prototxt_like"},
    "examples": {"nets", "layers", "prototxt_like"},
    "pycaffe": {"solvers", "nets", "layers", "prototxt_like"},
    "cli": {"pycaffe", "experiments", "audit", "examples", "reports", "solvers", "nets", "layers", "prototxt_like"},
}
"""Each package, and those below it that it may import."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("imae", *(parts[:-1] if parts[-1] == "__init__" else parts)))


FILES = {module_of(path): path for package in LAYERED for path in sorted((ROOT / package).rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The files of the project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "imae":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "imae")


@cache
def graph() -> dict[str, list[str]]:
    """Each file of the project, and those that it imports."""
    return {module: sorted({name for name in imported(module) if name in FILES} - {module}) for module in FILES}


@pytest.mark.parametrize("package", LAYERED)
def test_imports_point_down_the_table(package: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in graph().items()
        for name in names
        if module.split(".")[1] == package and name.split(".")[1] not in LAYERED[package] | {package}
    ]
    assert not wrong


def circle(graph: dict[str, list[str]]) -> list[str]:
    """The files of a circle, if there is one."""
    done: set[str] = set()
    for first in graph:
        path: list[str] = []
        stack = [(first, iter(graph[first]))]
        path.append(first)
        while stack:
            module, names = stack[-1]
            name = next((name for name in names if name not in done), None)
            if name is None:
                done.add(module)
                stack.pop()
                path.pop()
            elif name in path:
                return path[path.index(name) :]
            else:
                stack.append((name, iter(graph[name])))
                path.append(name)
    return []


def test_no_file_is_part_of_a_circle() -> None:
    assert circle(graph()) == []
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c"]


def test_every_package_is_in_the_table() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    packages = {line.split('"')[1].split(".")[1] for line in text.splitlines() if line.strip().startswith('"imae.')}
    assert packages == set(LAYERED)
