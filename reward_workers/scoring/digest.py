"""A name for how groups are scored: equal digests mean equal rewards.

It covers source, options and the scorer's settings. The sources are

- every ``.py`` file in the folder of the task's module, or the module itself if it is one file;
- the same of the module of every function that the reward is composed of;
- ``reward_workers/scoring/score.py``, and ``reward_workers/scoring/reward.py`` for a composed
  reward;
- whatever these import, directly or through others, from ``SCORING_ROOMS``, from the module's own
  top package, or, if it is a file or package in a folder of the user's, from that folder.

Files and servers that options name count by what ``reward_workers.scoring.resolved`` found them to
hold. Imports are read, not run. Libraries, and modules imported by a name made up at run time, are
not
covered: that they give the same rewards is what the golden examples are for.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from reward_workers.scoring.config import RewardConfig, Source, module_of
from rewardtune.tasks.artefacts import with_options

SCORING_ROOMS = (
    "reward_workers",
    "rewardtune.tasks",
    "rewardtune.datasets",
    "rewardtune.records",
    "rewardtune.layers",
)
"""Nothing else of ours decides a reward, wherever it is imported."""
OURS = ("rewardtune", "sampler", "learner", "reward_workers", "protos")
ROOT = Path(__file__).resolve().parents[2]
# Where installers put packages: there, a task's neighbours are not its own.
INSTALLED = ("site-packages", "dist-packages")
_OUR_ROOTS: Mapping[str, Path | None] = {**dict.fromkeys(OURS, ROOT), "": None}


class ScorerSettings(BaseModel):
    """What else can move a reward's bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cpu"] = "cpu"
    threads: PositiveInt = 1


def reward_digest(
    task_name: str,
    task_options: Mapping[str, Any],
    *,
    scorer: ScorerSettings,
    reward: RewardConfig | None = None,
    contents: Mapping[str, str] | None = None,
    search_path: Sequence[str] | None = None,
) -> str:
    """Hex SHA-256 of everything that decides a run's rewards.

    Args:
        task_options: must be JSON; the order of its keys does not matter.
        reward: None: the task's own.
        contents: of what task_options and reward name, as ``reward_workers.scoring.resolved``
            found it.
        search_path: where to look for modules that are not ours; ``sys.path`` by default.

    Raises:
        ValueError: no such task or module, or options that are not JSON.
    """
    told = {
        "task_options": dict(task_options),
        "reward": None if reward is None else reward.model_dump(mode="json"),
    }
    try:
        options = json.dumps(
            with_options(told, contents or {}),
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"options of task '{task_name}' are not JSON ({error}): use numbers, texts, lists "
            "and tables"
        ) from None
    content = {
        "task": task_name,
        "options": options,
        "scorer": scorer.model_dump(mode="json"),
        "sources": {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in run_sources(task_name, reward, search_path=search_path).items()
        },
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def run_sources(
    task_name: str, reward: RewardConfig | None, *, search_path: Sequence[str] | None = None
) -> dict[str, Path]:
    """The files that decide a run's rewards, by the name of their module.

    Raises:
        ValueError: a module that is not there.
    """
    found = scoring_sources(task_name, search_path=search_path)
    if reward is not None:
        found |= _followed(["reward_workers.scoring.reward"], dict(_OUR_ROOTS))
        for _, part in reward.of_source(Source.FUNCTION):
            found |= function_sources(part.use or "", search_path=search_path)
    return found


def scoring_sources(task_name: str, *, search_path: Sequence[str] | None = None) -> dict[str, Path]:
    """The files that decide a task's own reward, by the name of their module.

    Raises:
        ValueError: there is no such task.
    """
    module_name, roots = _find_task(task_name, search_path)
    start = [module_name, *_inside(module_name, roots), "reward_workers.scoring.score"]
    return _followed(start, roots)


def function_sources(use: str, *, search_path: Sequence[str] | None = None) -> dict[str, Path]:
    """The files that decide what the function "module:name" gives, by the name of their module.

    Raises:
        ValueError: there is no such module.
    """
    return class_sources(use, of=f"reward '{use}'", search_path=search_path)


def class_sources(
    name: str, *, of: str, search_path: Sequence[str] | None = None
) -> dict[str, Path]:
    """The files of whatever is named as "module:name", by the name of their module.

    Args:
        of: what names it, for errors.

    Raises:
        ValueError: there is no such module.
    """
    module_name, _ = module_of(name)
    roots = _roots_of(module_name, search_path)
    if _file_of(module_name, roots) is None:
        raise ValueError(
            f"{of}: there is no module {module_name} with a source file here: put its "
            "folder on PYTHONPATH, or start the reward worker with --code and the folder "
            "(RUN/code of the run has a copy)"
        )
    return _followed([module_name, *_inside(module_name, roots)], roots)


def _followed(waiting: list[str], roots: Mapping[str, Path | None]) -> dict[str, Path]:
    """These modules and all that they import, as far as ``roots`` go."""
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = _file_of(name, roots)
        if path is None or name in found:
            continue
        found[name] = path
        is_package = path.name == "__init__.py"
        package = name if is_package else name.rpartition(".")[0]
        # A module's packages run before it does.
        waiting += [name.rpartition(".")[0], *_imports(path, package)]
    return found


def _find_task(
    task_name: str, search_path: Sequence[str] | None
) -> tuple[str, Mapping[str, Path | None]]:
    """The task's module, and the folders of top-level names."""
    if _file_of(f"rewardtune.tasks.{task_name}", _OUR_ROOTS) is not None:
        return f"rewardtune.tasks.{task_name}", _OUR_ROOTS
    roots = _roots_of(task_name, search_path)
    if _file_of(task_name, roots) is None:
        raise ValueError(
            f"task '{task_name}' is neither a folder of rewardtune/tasks/ nor a module with a "
            "source file on the path: put the folder of your own module on PYTHONPATH"
        )
    return task_name, roots


def _roots_of(module_name: str, search_path: Sequence[str] | None) -> Mapping[str, Path | None]:
    """The folders of top-level names for a module; under "" that of any other name."""
    roots = dict(_OUR_ROOTS)
    top = module_name.partition(".")[0]
    spec = PathFinder.find_spec(top, None if search_path is None else list(search_path))
    if spec is not None and top not in roots:
        places = spec.submodule_search_locations
        place = Path(places[0]) if places else Path(spec.origin or "")
        roots[top] = place.parent
        if place.parent.name not in INSTALLED:
            roots[""] = place.parent
    return roots


def _file_of(module_name: str, roots: Mapping[str, Path | None]) -> Path | None:
    top = module_name.partition(".")[0]
    if top in OURS and not _is_in_a_scoring_room(module_name):
        return None
    root = roots.get(top, roots[""])
    if root is None or not module_name:
        return None
    place = root.joinpath(*module_name.split("."))
    for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if path.is_file():
            return path
    return None


def _is_in_a_scoring_room(module_name: str) -> bool:
    return any(f"{module_name}.".startswith(f"{room}.") for room in SCORING_ROOMS)


def _inside(module_name: str, roots: Mapping[str, Path | None]) -> Iterator[str]:
    """Names of the modules in the folder of a package, at any depth."""
    path = _file_of(module_name, roots)
    if path is None or path.name != "__init__.py":
        return
    for file in path.parent.rglob("*.py"):
        parts = file.relative_to(path.parent).with_suffix("").parts
        yield ".".join([module_name, *(part for part in parts if part != "__init__")])


def _imports(path: Path, package: str) -> Iterator[str]:
    """Names that may be modules, of all import statements of a file."""
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
