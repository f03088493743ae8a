from __future__ import annotations

from pathlib import Path

import pytest

from reward_workers.prepared import prepare
from reward_workers.scorer_wire import Start
from reward_workers.scoring.spec import ScoringSpec
from tests.reward_workers.scoring_run import by_token_spec, write_tiny_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")


def start(spec: ScoringSpec, data: Path) -> Start:
    return Start(spec.to_bytes(), str(data), 1.0)


def refusal(spec: ScoringSpec, data: Path) -> str:
    prepared = prepare(start(spec, data))
    assert (prepared.scorer is None) == bool(prepared.started.refusal)
    return prepared.started.refusal


def test_a_scorer_that_agrees_with_the_spec_says_who_it_is(data: Path) -> None:
    spec = by_token_spec(data)
    prepared = prepare(start(spec, data))
    assert prepared.scorer is not None
    assert prepared.started.reward_digest == spec.reward_digest
    assert prepared.started.dataset_digest == spec.dataset_digest


def test_other_data_are_refused(data: Path, tmp_path: Path) -> None:
    other = write_tiny_data(tmp_path / "other", source="another")
    complaint = refusal(by_token_spec(data), other)
    assert f"data set in {other}" in complaint and "point --data at a copy" in complaint


def test_data_that_are_not_there_are_refused(data: Path, tmp_path: Path) -> None:
    assert "nowhere does not exist" in refusal(by_token_spec(data), tmp_path / "nowhere")


def test_another_reward_is_refused(data: Path) -> None:
    spec = by_token_spec(data).model_copy(update={"reward_digest": "f" * 64})
    assert "uses ffffffffffff: install the same sources" in refusal(spec, data)


def test_golden_rewards_that_differ_in_the_last_bit_are_refused(data: Path) -> None:
    spec = by_token_spec(data)
    first, *rest = spec.golden
    moved = first.model_copy(
        update={"rewards": (first.rewards[0] * (1 + 2**-52), first.rewards[1])}
    )
    complaint = refusal(spec.model_copy(update={"golden": (moved, *rest)}), data)
    assert complaint.startswith("golden example 0 (example 0) gets rewards (3.0,")


def test_a_task_that_cannot_be_loaded_is_refused_with_its_own_words(
    data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = by_token_spec(data).model_copy(update={"task": "poetry"})
    assert "task 'poetry' is neither a folder of rewardtune/tasks/ nor" in refusal(spec, data)
    assert "Traceback" in capfd.readouterr().err


def test_a_spec_that_cannot_be_read_is_refused(data: Path) -> None:
    prepared = prepare(Start(b"{}", str(data), 1.0))
    assert "scoring spec cannot be read" in prepared.started.refusal
