"""``python -m tests.compare COMMIT``: which tests are gone since, and which assert less.

Both sides are read as syntax trees, nothing is run. A test is known by its name alone, as files
move; several of one name count together. What it holds are its ``assert`` statements and its
``pytest.raises``, those of its helpers not among them. A fall needs a reason in
``tests/fewer_asserts.toml``, in the table of the commit; one without ends with exit code 1.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REASONS = Path(__file__).with_name("fewer_asserts.toml")


@dataclass(frozen=True, slots=True)
class Held:
    """What all tests of one name hold."""

    tests: int
    asserts: int
    raises: int


@dataclass(frozen=True, slots=True)
class Fall:
    name: str
    before: Held
    now: Held | None
    """None: no test has the name any more."""

    def __str__(self) -> str:
        if self.now is None:
            return f"{self.name}: gone"
        counts = [
            f"{before} -> {now} {field.name}"
            for field in fields(Held)
            if (before := getattr(self.before, field.name)) > (now := getattr(self.now, field.name))
        ]
        return f"{self.name}: {', '.join(counts)}"


def main(arguments: Sequence[str] | None = None) -> int:
    told = sys.argv[1:] if arguments is None else list(arguments)
    if len(told) != 1:
        print("usage: python -m tests.compare COMMIT", file=sys.stderr)
        return 2
    try:
        commit = _git("rev-parse", "--verify", "--quiet", f"{told[0]}^{{commit}}").decode().strip()
    except subprocess.CalledProcessError:
        print(f"error: {told[0]} is no commit of this repository", file=sys.stderr)
        return 2
    before, now = held_by(sources_of(commit)), held_by(_sources_here())
    found = falls(before, now)
    reasons = reasons_for(commit, tomllib.loads(REASONS.read_text(encoding="utf-8")))
    for fall in found:
        print(f"{fall}: {reasons.get(fall.name, 'NO REASON')}")
    for name in sorted(reasons.keys() - {fall.name for fall in found}):
        print(f"{name}: holds what it held, its reason can go")
    unexplained = [fall for fall in found if fall.name not in reasons]
    print(f"{_total(before)} before, {_total(now)} now; {len(unexplained)} falls without a reason")
    return 1 if unexplained else 0


def held_by(sources: Iterable[str]) -> dict[str, Held]:
    """By name, of the text of test files."""
    tests, asserts, raises = Counter[str](), Counter[str](), Counter[str]()
    for source in sources:
        for function in _tests(ast.parse(source)):
            nodes = list(ast.walk(function))
            tests[function.name] += 1
            asserts[function.name] += sum(isinstance(node, ast.Assert) for node in nodes)
            raises[function.name] += sum(_is_raises(node) for node in nodes)
    return {name: Held(tests[name], asserts[name], raises[name]) for name in tests}


def falls(before: Mapping[str, Held], now: Mapping[str, Held]) -> list[Fall]:
    found = [Fall(name, held, now.get(name)) for name, held in sorted(before.items())]
    return [fall for fall in found if fall.now is None or _is_less(fall.now, fall.before)]


def reasons_for(commit: str, tables: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """Those of the table whose name the commit's begins with."""
    return next((table for name, table in tables.items() if commit.startswith(name)), {})


def sources_of(commit: str) -> Iterator[str]:
    """The text of every Python file below tests/ in a commit."""
    archive = _git("archive", "--format=tar", commit, "tests")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            if member.name.endswith(".py") and (file := files.extractfile(member)):
                yield file.read().decode()


def _sources_here() -> Iterator[str]:
    return (path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("tests/**/*.py")))


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions of the module and methods of its classes, as pytest collects them."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for body in (tree.body, *(node.body for node in classes)):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_test(node.name):
                yield node


def _is_test(name: str) -> bool:
    return name.startswith("test_")


def _is_raises(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name == "raises"


def _is_less(now: Held, before: Held) -> bool:
    return any(getattr(now, field.name) < getattr(before, field.name) for field in fields(Held))


def _total(held: Mapping[str, Held]) -> str:
    tests, asserts, raises = (
        sum(getattr(each, field.name) for each in held.values()) for field in fields(Held)
    )
    return f"{tests} tests, {asserts} asserts, {raises} raises"


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
