"""The names that ``import rewardtune`` has: documented, typed, and cheap until they are used."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rewardtune
import rewardtune.tasks

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", rewardtune.__all__)
def test_a_public_name_says_what_it_does_takes_and_raises(name: str) -> None:
    named = getattr(rewardtune, name)
    text = inspect.getdoc(named) or ""
    assert len(text.splitlines()) > 1
    if callable(named) and not inspect.isclass(named):
        assert "Args:" in text and ("Raises:" in text or name == "open_run_log")


def test_the_page_has_every_public_name_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(rewardtune.__all__)


@pytest.mark.parametrize("module", [rewardtune, rewardtune.tasks])
def test_the_types_of_lazy_names_are_those_of_what_they_lead_to(module: object) -> None:
    source = Path(inspect.getfile(module)).with_suffix(".pyi")  # type: ignore[arg-type]
    stub = ast.parse(source.read_text(encoding="utf-8"))
    places = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(places) == sorted(module.__all__)  # type: ignore[attr-defined]
    for name, (home, original) in places.items():
        found = getattr(module, name)
        assert (found.__module__, found.__name__) == (home, original)


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, rewardtune; print([m for m in ('numpy', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
