"""A run on disk: its config, terms, checkpoints and policies.

RUN/config.json       the pinned config; a changed identity is refused
RUN/terms/N           one file per start
RUN/checkpoints/      see learner.checkpoint
RUN/candidates/       policies that wait to be measured
RUN/evaluations.json  holdout metrics by step
RUN/policy.safetensors, RUN/best.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from learner.checkpoint import Checkpoint, clear_unfinished, latest_checkpoint
from learner.term import claim_term, latest_term
from rewardtune.config import ConfigError, RunConfig


@dataclass(frozen=True, slots=True)
class RunDirectory:
    path: Path
    term: int
    checkpoint: Checkpoint | None
    """Where to continue; None at the beginning."""

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def policy_path(self) -> Path:
        """The last weights."""
        return self.path / "policy.safetensors"

    @property
    def best_policy_path(self) -> Path:
        """The weights that were best on the holdout set."""
        return self.path / "best.safetensors"

    def candidate_path(self, step: int) -> Path:
        """Weights of a step, until they are measured."""
        return self.path / "candidates" / f"step-{step:08d}.safetensors"

    def is_superseded(self) -> bool:
        """Whether a newer start has taken the run over; this one must then write no more."""
        return latest_term(self.path) > self.term


def open_run(config: RunConfig, tell: Callable[[str], None], *, fork: bool = False) -> RunDirectory:
    """Start a run, or take it up where its last good checkpoint stands.

    Args:
        config: pinned.
        tell: hears of checkpoints that are damaged and passed over.
        fork: go on from the directory's checkpoint although the identity differs.

    Raises:
        ConfigError: the directory holds a run of another identity; lists what differs.
        CheckpointError: there are checkpoints and none of them is whole.
    """
    path = config.operations.directory
    config_path = path / "config.json"
    if config_path.exists():
        earlier = RunConfig.model_validate(json.loads(config_path.read_text()))
        changes = earlier.diff(config)
        if changes and not fork:
            raise ConfigError(
                f"{path} holds another run, which differs in {'; '.join(changes)}: set "
                "operations.directory to a new folder, undo the change, or continue from its "
                "checkpoint under the new config with --fork"
            )
    path.mkdir(parents=True, exist_ok=True)
    term = claim_term(path)
    partial = path / f".config-{term}.json"
    partial.write_text(config.model_dump_json(indent=1))
    partial.replace(config_path)
    run = RunDirectory(path=path, term=term, checkpoint=None)
    clear_unfinished(run.checkpoints)
    found = latest_checkpoint(run.checkpoints, tell)
    return RunDirectory(path=path, term=term, checkpoint=found)
