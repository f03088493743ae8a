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

from tests import house

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


@pytest.fixture(scope="module")
def whole() -> house.House:
    return house.read_house()


def test_a_room_holds_at_most_eighteen_modules(whole: house.House) -> None:
    assert {r: num for r, num in whole.rooms.items() if num > house.MAX_MODULES} == {}


def test_no_module_and_no_room_leads_back_to_itself(whole: house.House) -> None:
    assert house.circles(whole.module_graph) == []
    assert house.circles(whole.room_graph) == []


def test_files_and_functions_are_read_in_one_sitting(whole: house.House) -> None:
    assert house.percentile(whole.file_lines, 90) < house.MAX_FILE_P90
    assert house.percentile(whole.function_lines, 95) < house.MAX_FUNCTION_P95


def test_every_function_is_annotated(whole: house.House) -> None:
    assert whole.unannotated == []


def test_the_wheel_is_told_to_hold_five_names() -> None:
    assert house.declared_names() == list(house.PACKAGES)


def test_the_layers_contract_names_every_room_of_rewardtune() -> None:
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    folders = {path.parent.name for path in ROOT.glob("rewardtune/*/__init__.py")}
    # The package itself, which is above nothing: what it imports, it imports when asked.
    modules = {path.stem for path in ROOT.glob("rewardtune/*.py")}
    modules -= {"__init__", "__main__", "own_packages"}
    others = set(PACKAGES) - {"rewardtune"}
    assert named == {f"rewardtune.{name}" for name in folders | modules} | others


def test_the_house_is_read_with_imports_for_types_and_of_packages(tmp_path: Path) -> None:
    files = {
        "roof/__init__.py": "",
        "roof/a.py": "if TYPE_CHECKING:\n    from roof import b\n",
        "roof/b.py": "import json\n\ndef f(x):\n    from cellar.deep.c import g\n",
        "cellar/__init__.py": "",
        "cellar/deep/__init__.py": "from .c import g\n",
        "cellar/deep/c.py": "from roof.a import what\n\n\nclass C:\n    def m(self) -> None: ...\n",
        "cellar/c_pb2.py": "import roof.b\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = house.read_house(tmp_path, ["roof", "cellar"])
    assert found.rooms == {"cellar": 1, "cellar.deep": 2, "roof": 3}
    assert found.module_graph["roof.a"] == {"roof.b"}
    assert found.module_graph["cellar.deep"] == {"cellar.deep.c"}
    assert house.circles(found.module_graph) == [["cellar.deep.c", "roof.a", "roof.b"]]
    assert house.circles(found.room_graph) == [["cellar.deep", "roof"]]
    assert found.unannotated == ["roof.b.f:3"]
    assert found.function_lines == [1, 2]


def test_percentiles_are_of_values_that_there_are() -> None:
    assert [house.percentile(range(1, 11), percent) for percent in (50, 90, 95)] == [5, 9, 10]


def test_the_house_is_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert house.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "circles of modules     0" in lines and "functions annotated    100.0%" in lines[-4]
    assert lines[-1].split()[4:] == list(house.PACKAGES)
