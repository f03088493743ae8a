from __future__ import annotations

from pathlib import Path

import pytest

from reward_workers.prepared import Scorer, prepare
from reward_workers.scorer_wire import Failed, Scored, Start, Unfit
from reward_workers.scoring.spec import ScoringSpec
from rewardtune.datasets.example import Example
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.datasets.shards.manifest import DatasetError
from rewardtune.tasks.task import load_task
from rewardtune.transport.wire import scored_group_from_bytes
from tests.reward_workers.scoring_run import by_token_spec, group_of, write_tiny_data
from tests.reward_workers.user_folder.by_token import FLOAT32, NAN, RAISE, SHORT


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")


@pytest.fixture
def scorer(data: Path) -> Scorer:
    by_token_spec(data)
    dataset = open_dataset(data)
    task = load_task("by_token", {}, categories=dataset.categories)
    return Scorer(task, dataset, input_size=8)


def start(spec: ScoringSpec, data: Path) -> Start:
    return Start(spec.to_bytes(), str(data), 1.0)


def refusal(spec: ScoringSpec, data: Path) -> str:
    prepared = prepare(start(spec, data))
    assert (prepared.scorer is None) == bool(prepared.started.refusal)
    return prepared.started.refusal


def test_a_group_comes_back_with_its_rewards_and_the_seconds_it_took(scorer: Scorer) -> None:
    reply = scorer.score(group_of(5, 1, 2, 3))
    assert isinstance(reply, Scored)
    scored = scored_group_from_bytes(reply.scored)
    assert scored.group.ordinal == 5
    assert scored.score.reward_S.tolist() == [6.0, 7.0]
    assert 0 < reply.load_seconds < 10 and 0 < reply.score_seconds < 10


def test_the_same_group_has_the_same_bytes_whatever_was_scored_before(scorer: Scorer) -> None:
    first = scorer.score(group_of(5, 1, 2, 3))
    scorer.score(group_of(6, RAISE, 2, 3))
    scorer.score(group_of(7, 3, 2, 1))
    again = scorer.score(group_of(5, 1, 2, 3))
    assert isinstance(first, Scored) and isinstance(again, Scored)
    assert first.scored == again.scored


def test_what_a_reward_raises_is_told_in_one_line_and_a_traceback(scorer: Scorer) -> None:
    reply = scorer.score(group_of(0, RAISE, 2, 3))
    assert isinstance(reply, Failed) and not reply.is_invalid
    assert reply.message.startswith("KeyError: 'no such word")
    assert "by_token.py" in reply.traceback


@pytest.mark.parametrize(
    ("token", "complaint"),
    [
        (NAN, "image 0.png (id 0): reward is nan"),
        (SHORT, "reward has shape [1] but 2 rollouts were given"),
        (FLOAT32, "reward must be float64, got float32"),
    ],
)
def test_a_score_that_cannot_be_trained_on_is_invalid(
    scorer: Scorer, token: int, complaint: str
) -> None:
    reply = scorer.score(group_of(0, token, 2, 3))
    assert isinstance(reply, Failed) and reply.is_invalid
    assert complaint in reply.message


def test_a_group_that_cannot_be_read_is_a_failure_of_the_group(scorer: Scorer) -> None:
    reply = scorer.score(b"rubbish")
    assert isinstance(reply, Failed) and not reply.is_invalid
    assert "are not a Group" in reply.message


@pytest.mark.parametrize("error", [DatasetError("shard-0 is damaged"), OSError("disk is gone")])
def test_data_that_cannot_be_read_is_no_failure_of_the_group(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def example(self: ShardDataset, index: int) -> Example:
        raise error

    monkeypatch.setattr(ShardDataset, "example", example)
    assert scorer.score(group_of(0, 1, 2, 3)) == Unfit(str(error))


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
