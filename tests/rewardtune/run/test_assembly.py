"""Who looks for files and hashes them, and who is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import rewardtune.run.assembly
from reward_workers.scoring import resolved
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.policies.policy_file import load_policy, save_policy
from rewardtune.run.assembly import assemble, assemble_service
from tests.rewardtune.tiny_run import tiny_tune


@pytest.fixture
def config(data: Path, pretrained: Path, tmp_path: Path) -> RunConfig:
    """Of a run whose checkpoint is its own copy."""
    checkpoint = shutil.copy(pretrained, tmp_path / "start.safetensors")
    return tiny_tune(data, Path(checkpoint), tmp_path / "run")


def test_a_service_is_told_what_files_hold_and_hashes_none(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = assemble(config).config
    assert pinned.policy.checkpoint_digest is not None

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("hashed again")

    monkeypatch.setattr(rewardtune.run.assembly, "policy_digest", refuse)
    monkeypatch.setattr(rewardtune.run.assembly, "artefact_digest", refuse)
    monkeypatch.setattr(resolved, "scoring_sources", refuse)
    monkeypatch.setattr(resolved, "artefact_digest", refuse)
    assert assemble_service(pinned).config == pinned
    with pytest.raises(AssertionError, match="hashed again"):
        assemble(pinned)


def test_whoever_begins_with_the_policy_file_refuses_another(config: RunConfig) -> None:
    pinned = assemble(config).config
    assert pinned.policy.checkpoint is not None
    other = load_policy(pinned.policy.checkpoint)
    with torch.no_grad():
        next(other.policy.parameters()).mul_(0.5)
    save_policy(
        pinned.policy.checkpoint,
        other.policy,
        vocabulary=other.vocabulary,
        provenance=other.provenance,
    )
    assert assemble_service(pinned).config == pinned  # its weights come from the learner
    with pytest.raises(ConfigError, match=r"policy\.checkpoint = .* has digest .* but this run"):
        assemble_service(pinned, begins_with_policy=True)
