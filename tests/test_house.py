"""The shape of the house: what the packages are, and who can do without what."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

# Run beside the base dependencies alone, these must import: a reward worker is made of them.
BASE = [
    "rewardtune.records",
    "protos.v1.group_pb2",
    "rewardtune.transport.wire",
    "rewardtune.transport.queue.redis_queue",
    "rewardtune.tasks.task",
    "rewardtune.tasks.detection",
    "reward_workers.prepared",
    "reward_workers.service",
    "rewardtune.cluster.hosts.reward_worker",
    "rewardtune.cli.app",
    "rewardtune.evaluation.results_files",
    "rewardtune.reward_lab.probes",
    "reward_workers.scoring.reward",
]

# What only the extras install.
EXTRAS = ["torch", "ray", "transformers", "safetensors", "tensorboard", "matplotlib", "sklearn"]

WITHOUT_EXTRAS = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
importlib.import_module({module!r})
"""


def test_every_package_comes_from_this_root() -> None:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"{package} is not installed"
        assert spec.origin is not None, f"{package} has no __init__.py"
        assert Path(spec.origin).parent.parent == ROOT, f"{package} is shadowed by {spec.origin}"


def test_pyproject_lists_every_package_wherever_it_lists_packages() -> None:
    # bench and studies are run from a clone and never installed.
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "studies"}
    tool = PYPROJECT["tool"]
    assert set(PACKAGES) == found
    assert set(tool["importlinter"]["root_packages"]) == found
    assert set(tool["ruff"]["lint"]["isort"]["known-first-party"]) == found | {"bench", "studies"}
    assert found <= set(tool["mypy"]["files"])


def test_every_package_says_that_it_is_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


@pytest.mark.parametrize("module", BASE)
def test_a_reward_worker_needs_the_base_dependencies_alone(module: str) -> None:
    program = WITHOUT_EXTRAS.format(extras=EXTRAS, module=module)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_base_only_import_does_fail_where_an_extra_is_needed() -> None:
    program = WITHOUT_EXTRAS.format(extras=EXTRAS, module="torch")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "No module named 'torch'" in done.stderr


def _requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    found = [Requirement(line) for line in [*lines, *PYPROJECT["build-system"]["requires"]]]
    return [requirement for requirement in found if requirement.name != project["name"]]


def test_constraints_pin_every_dependency_to_a_version_that_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    for requirement in _requirements():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version} is pinned"


def test_constraints_name_versions_and_no_places() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
