"""What the files, functions and servers that a run's config names were found to hold.

A path, a module's name or an address says where something is; a run's identity and its reward
digest speak of what is there. Contents are texts by the key of the config whose value they stand
for: "task" (of a task of the user's), "task_options.statistics", "reward.parts.NAME.use",
"reward.parts.NAME.options.KEY".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_workers.scoring.config import RewardConfig, Source
from reward_workers.scoring.digest import OURS, function_sources, scoring_sources
from reward_workers.scoring.reward import reward_artefacts
from rewardtune.tasks.artefacts import artefact_digest
from rewardtune.tasks.task import task_artefacts


def found_contents(
    task_name: str,
    task_options: Mapping[str, Any],
    reward: RewardConfig | None,
    *,
    artefacts: Path | None = None,
    search_path: Sequence[str] | None = None,
) -> dict[str, str]:
    """Read files and sources, and ask servers what they are.

    Args:
        artefacts: folder in which files are looked for first.
        search_path: where to look for modules of the user's; ``sys.path`` by default.

    Raises:
        ValueError: a file or module that is missing.
        RewardUnavailable, RewardServerError: a server does not answer, or fails to.
    """
    files = task_artefacts(task_name, task_options, folder=artefacts)
    found = {f"task_options.{key}": _held_by(path) for key, path in files.items()}
    if own := _own(scoring_sources(task_name, search_path=search_path)):
        found["task"] = f"{task_name}@{_digest_of(own)}"
    if reward is None:
        return found
    for name, part in reward.of_source(Source.FUNCTION):
        assert part.use is not None
        where = f"reward.parts.{name}"
        own = _own(function_sources(part.use, search_path=search_path))
        found[f"{where}.use"] = f"{part.use}@{_digest_of(own)}"
        for key, path in reward_artefacts(part, folder=artefacts).items():
            found[f"{where}.options.{key}"] = _held_by(path)
    for name, part in reward.of_source(Source.SERVER):
        from rewardtune.transport.reward_service.client import RewardClient

        client = RewardClient(part.address)
        try:
            found[f"reward.parts.{name}.use"] = f"grpc:{client.describe().reward_digest}"
        finally:
            client.close()
    return found


def _held_by(path: Path) -> str:
    return f"sha256:{artefact_digest(path)}"


def _own(sources: Mapping[str, Path]) -> dict[str, Path]:
    """The user's files alone: another version of this project is not another run."""
    ours = {*OURS, "reward_workers"}
    return {name: path for name, path in sources.items() if name.partition(".")[0] not in ours}


def _digest_of(sources: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(sources.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
