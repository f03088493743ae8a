"""A run on disk: its config, terms, checkpoints and policies.

RUN/config.json       the pinned config; a changed identity is refused
RUN/terms/N           one file per start
RUN/checkpoints/      see learner.checkpoint
RUN/candidates/       policies that wait to be measured
RUN/evaluations.json  holdout metrics by step
RUN/policy.safetensors, RUN/best.safetensors
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from learner.checkpoint import Checkpoint, clear_unfinished, latest_checkpoint
from learner.term import claim_term, latest_term
from rewardtune.config.run_config import ConfigError, RunConfig

_CONFIG_NAME = "config.json"


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


def check_run(config: RunConfig, *, fork: bool = False) -> None:
    """Raise what ``open_run`` would, and change nothing.

    Raises:
        As ``open_run``.
    """
    _check_identity(config, fork=fork)
    run = RunDirectory(path=config.operations.directory, term=-1, checkpoint=None)
    latest_checkpoint(run.checkpoints, lambda damaged: None)


def open_run(config: RunConfig, tell: Callable[[str], None], *, fork: bool = False) -> RunDirectory:
    """Start a run, or take it up where its last good checkpoint stands.

    Args:
        config: pinned.
        tell: hears of checkpoints that are damaged and passed over.
        fork: go on from the directory's checkpoint although the identity differs.

    Raises:
        ConfigError: the directory holds a run of another identity, or a config that cannot be
            read; says what differs.
        CheckpointError: there are checkpoints and none of them is whole.
    """
    path = config.operations.directory
    _check_identity(config, fork=fork)
    path.mkdir(parents=True, exist_ok=True)
    term = claim_term(path)
    partial = path / f".config-{term}.json"
    partial.write_text(config.model_dump_json(indent=1))
    partial.replace(path / _CONFIG_NAME)
    run = RunDirectory(path=path, term=term, checkpoint=None)
    clear_unfinished(run.checkpoints)
    found = latest_checkpoint(run.checkpoints, tell)
    return RunDirectory(path=path, term=term, checkpoint=found)


def _check_identity(config: RunConfig, *, fork: bool) -> None:
    path = config.operations.directory
    try:
        earlier = RunConfig.model_validate_json((path / _CONFIG_NAME).read_text())
    except FileNotFoundError:
        return
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path / _CONFIG_NAME} cannot be read ({reason}): restore it, or set "
            "operations.directory to a new folder"
        ) from None
    changes = earlier.diff(config)
    if changes and not fork:
        raise ConfigError(
            f"{path} holds another run, which differs in {'; '.join(changes)}: set "
            "operations.directory to a new folder, undo the change, or continue from its "
            "checkpoint under the new config with --fork"
        )
