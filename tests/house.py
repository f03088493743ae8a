"""``python -m tests.house``: the shape of the house in one page; ``tests/test_house.py`` holds it.

A room is a folder of modules; ``__init__.py`` counts. Imports are read, not run, also those for
types alone. ``--wheel FILE`` reads the names that a wheel installs off the wheel itself.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rewardtune", "sampler", "learner", "reward_workers", "protos")
PROGRAMS = ("bench", "studies")
"""Run from a clone and never installed."""
MAX_MODULES = 18
MAX_FILE_P90 = 300
MAX_FUNCTION_P95 = 40
_GENERATED = ("_pb2.py", "_pb2_grpc.py")

Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    room: str
    lines: int
    functions: tuple[int, ...]
    """Lines of each, decorators left out."""
    unannotated: tuple[str, ...]
    """Functions that lack the type of an argument or of what they return."""
    imports: frozenset[tuple[str, str]]
    """What is imported from where; ("json", "") is ``import json``."""


@dataclass(frozen=True, slots=True)
class House:
    modules: Mapping[str, Module]

    @property
    def rooms(self) -> Mapping[str, int]:
        """Modules in each."""
        return dict(sorted(Counter(module.room for module in self.modules.values()).items()))

    @property
    def file_lines(self) -> list[int]:
        return sorted(module.lines for module in self.modules.values())

    @property
    def function_lines(self) -> list[int]:
        return sorted(lines for module in self.modules.values() for lines in module.functions)

    @property
    def unannotated(self) -> list[str]:
        return [name for module in self.modules.values() for name in module.unannotated]

    @property
    def module_graph(self) -> Graph:
        """What each module imports of the others: of a package the module that is named there."""
        return {
            name: frozenset(self._targets(module)) - {name} for name, module in self.modules.items()
        }

    @property
    def room_graph(self) -> Graph:
        """What any module of a room imports of other rooms.

        Modules beside the rooms of rewardtune and bench stand in for rooms, as in the layers
        contract: some are the roof of their package, others its cellar.
        """
        arrows: dict[str, set[str]] = {}
        for name, targets in self.module_graph.items():
            here = self._room_of(name)
            found = arrows.setdefault(here, set())
            found |= {self._room_of(target) for target in targets} - {here}
        return {room: frozenset(targets) for room, targets in arrows.items()}

    def _room_of(self, name: str) -> str:
        room = self.modules[name].room
        return name if room in ("rewardtune", "bench") else room

    def _targets(self, module: Module) -> Iterator[str]:
        for base, name in module.imports:
            found = f"{base}.{name}" if f"{base}.{name}" in self.modules else base
            if found in self.modules:
                yield found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="by default what pyproject.toml says")
    told = parser.parse_args(arguments)
    house = read_house()
    print("\n".join(describe(house, names_in(told.wheel) if told.wheel else declared_names())))
    return 0


def describe(house: House, names: Iterable[str]) -> Iterator[str]:
    num_functions = len(house.function_lines)
    annotated = 1 - len(house.unannotated) / max(1, num_functions)
    for room, num_modules in house.rooms.items():
        yield f"{num_modules:4}  {room}"
    most = max(house.rooms.values())
    yield f"rooms                  {len(house.rooms)}, of at most {most} modules"
    yield f"modules                {len(house.modules)}"
    yield f"lines                  {sum(house.file_lines)}"
    yield f"file p50/p90/max       {_percentiles(house.file_lines, 90)}"
    yield f"function p50/p95/max   {_percentiles(house.function_lines, 95)}"
    yield f"functions annotated    {annotated:.1%} of {num_functions}"
    yield f"circles of modules     {_told(circles(house.module_graph))}"
    yield f"circles of rooms       {_told(circles(house.room_graph))}"
    yield f"names in the wheel     {' '.join(names)}"


def read_house(root: Path = ROOT, packages: Sequence[str] = (*PACKAGES, *PROGRAMS)) -> House:
    """Every module of these packages that a person wrote."""
    paths = (path for package in packages for path in sorted((root / package).rglob("*.py")))
    written = [path for path in paths if not path.name.endswith(_GENERATED)]
    modules = [_read(path, path.relative_to(root)) for path in written]
    return House({module.name: module for module in modules})


def declared_names() -> list[str]:
    """The top-level names that the wheel is told to hold."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return packages


def names_in(wheel: Path) -> list[str]:
    """The top-level names that a wheel does hold, its own metadata left out."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    return sorted(name for name in names if not name.endswith(".dist-info"))


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that lead back to themselves, each sorted (Tarjan's components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            start = stack.index(node)
            component = stack[start:]
            del stack[start:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def percentile(values: Sequence[int], percent: int) -> int:
    """Of sorted values: the smallest that so many percent do not exceed."""
    return values[max(0, -(-percent * len(values) // 100) - 1)]


def _percentiles(values: Sequence[int], tail: int) -> str:
    shown = (percentile(values, 50), percentile(values, tail), values[-1])
    return " / ".join(map(str, shown))


def _told(found: Sequence[Sequence[str]]) -> str:
    return "0" if not found else f"{len(found)}: {'; '.join(' '.join(each) for each in found)}"


def _read(path: Path, place: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    parts = place.with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return Module(
        name=name,
        room=".".join(parts[:-1]),
        lines=len(text.splitlines()),
        functions=tuple(_length(node) for node in functions),
        unannotated=tuple(
            f"{name}.{node.name}:{node.lineno}" for node in functions if not _is_annotated(node)
        ),
        imports=frozenset(_imports(tree, ".".join(parts[:-1]))),
    )


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _is_annotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    told = function.args
    arguments = [*told.posonlyargs, *told.args, *told.kwonlyargs, told.vararg, told.kwarg]
    named = [each for each in arguments if each is not None]
    own = named[1:] if named and named[0].arg in ("self", "cls") else named
    return function.returns is not None and all(each.annotation is not None for each in own)


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((base, alias.name) for alias in node.names)


if __name__ == "__main__":
    sys.exit(main())
