from __future__ import annotations

from pathlib import Path

import pytest

from reward_workers.group_scorer import GroupScorer
from reward_workers.scorer_wire import Failed, Scored, Unfit
from rewardtune.datasets.example import Example
from rewardtune.datasets.frame import Square
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
def scorer(data: Path) -> GroupScorer:
    by_token_spec(data)
    dataset = open_dataset(data)
    task = load_task("by_token", {}, categories=dataset.categories)
    return GroupScorer(task, dataset, framing=Square(side=8))


def test_a_group_comes_back_with_its_rewards_and_the_seconds_it_took(scorer: GroupScorer) -> None:
    reply = scorer.score(group_of(5, 1, 2, 3))
    assert isinstance(reply, Scored)
    scored = scored_group_from_bytes(reply.scored)
    assert scored.group.ordinal == 5
    assert scored.score.reward_S.tolist() == [6.0, 7.0]
    assert 0 < reply.load_seconds < 10 and 0 < reply.score_seconds < 10


def test_the_same_group_has_the_same_bytes_whatever_was_scored_before(scorer: GroupScorer) -> None:
    first = scorer.score(group_of(5, 1, 2, 3))
    scorer.score(group_of(6, RAISE, 2, 3))
    scorer.score(group_of(7, 3, 2, 1))
    again = scorer.score(group_of(5, 1, 2, 3))
    assert isinstance(first, Scored) and isinstance(again, Scored)
    assert first.scored == again.scored


def test_what_a_reward_raises_is_told_in_one_line_and_a_traceback(scorer: GroupScorer) -> None:
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
    scorer: GroupScorer, token: int, complaint: str
) -> None:
    reply = scorer.score(group_of(0, token, 2, 3))
    assert isinstance(reply, Failed) and reply.is_invalid
    assert complaint in reply.message


def test_a_group_that_cannot_be_read_is_a_failure_of_the_group(scorer: GroupScorer) -> None:
    reply = scorer.score(b"rubbish")
    assert isinstance(reply, Failed) and not reply.is_invalid
    assert "are not a Group" in reply.message


@pytest.mark.parametrize("error", [DatasetError("shard-0 is damaged"), OSError("disk is gone")])
def test_data_that_cannot_be_read_is_no_failure_of_the_group(
    scorer: GroupScorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def example(self: ShardDataset, index: int) -> Example:
        raise error

    monkeypatch.setattr(ShardDataset, "example", example)
    assert scorer.score(group_of(0, 1, 2, 3)) == Unfit(str(error))
