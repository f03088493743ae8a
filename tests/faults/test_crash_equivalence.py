"""The check can fail: what it calls equal is equal, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rewardtune.records import Group, Published, Score, ScoredGroup, View
from rewardtune.transport.queue.job_queue import CommitOutcome, Result, Term
from rewardtune.transport.wire import scored_group_from_bytes, scored_group_to_bytes
from tests.faults import two_writes
from tests.faults.crash_equivalence import chosen, is_unnoticed, verdict
from tests.faults.crash_runs import KINDS
from tests.faults.slow_panoptic import LONG_SECONDS
from tests.faults.two_writes import TwoWritesQueue
from tests.rewardtune.transport.redis_server import redis_binaries, running

STRANGERS = {"initial": "i", "other seed": "o"}


def test_one_digest_per_depth_that_nobody_else_has_is_right() -> None:
    assert (
        verdict({"depth0": {"a": "x", "b": "x"}, "depth1": {"a": "y", "b": "y"}}, STRANGERS) == []
    )


def test_a_way_that_ended_elsewhere_is_found() -> None:
    (problem,) = verdict({"depth0": {"a": "x", "c": "z"}, "depth1": {"a": "y"}}, STRANGERS)
    assert "depth0" in problem and "z" in problem


def test_depths_must_differ() -> None:
    (problem,) = verdict({"depth0": {"a": "x"}, "depth1": {"a": "x"}}, STRANGERS)
    assert "two depths" in problem


def test_a_run_that_learned_nothing_or_ignored_its_seed_is_found() -> None:
    (nothing,) = verdict({"depth0": {"a": "i"}, "depth1": {"a": "y"}}, STRANGERS)
    (ignored,) = verdict({"depth0": {"a": "x"}, "depth1": {"a": "o"}}, STRANGERS)
    assert "initial" in nothing
    assert "other seed" in ignored


def test_a_build_that_breaks_the_rules_must_end_elsewhere() -> None:
    """Or the check cannot fail."""
    assert is_unnoticed("x", {"a": "x", "b": "x"})
    assert not is_unnoticed("z", {"a": "x", "b": "x"})


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "detection"),
        (["--task", "captioning"], "captioning"),
        (["--task", "panoptic"], "panoptic"),
        (["--policy", "hugging-face"], "hugging_face"),
        (["--task", "captioning", "--policy", "hugging-face"], "hugging_face"),
    ],
)
def test_the_command_line_chooses_the_run(arguments: list[str], name: str) -> None:
    assert chosen(arguments) is KINDS[name]


def test_a_model_of_transformers_speaks_no_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chosen(["--task", "detection", "--policy", "hugging-face"])
    assert "writes captions" in capsys.readouterr().err


def test_panoptic_workers_decode_for_longer_than_a_lease_lasts() -> None:
    assert 1.5 * KINDS["panoptic"].lease_seconds < LONG_SECONDS


def test_a_commit_of_two_writes_can_be_seen_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, binary = sorted(redis_binaries().items())[-1]
    with running(binary, tmp_path) as server:
        queue = TwoWritesQueue.connect(server.url, run="run")
        queue.open_term(Term(0, b"spec", capacity=8), frontier=0)
        whole = scored_group_to_bytes(scored_group(rewards=(1.0, 2.0)))
        queue.put(0, 0, b"group")
        (job,) = queue.lease("worker", reward_digest="", max_jobs=1, timeout_seconds=0)
        seen: list[Result] = []
        monkeypatch.setattr(two_writes, "pause", lambda: seen.append(queue.results(0, [0])[0]))
        assert queue.commit(job, "worker", whole) is CommitOutcome.ACCEPTED
        assert queue.results(0, [0])[0].scored == whole
        queue.close()
    (half,) = seen
    assert half.scored is not None
    assert scored_group_from_bytes(half.scored).score.reward_S.tolist() == [0.0, 0.0]


def scored_group(*, rewards: tuple[float, ...]) -> ScoredGroup:
    num = len(rewards)
    group = Group(
        ordinal=0,
        example=0,
        view=View(),
        published=Published(0, 0),
        tokens_ST=np.zeros((num, 3), np.int32),
        log_probs_ST=np.zeros((num, 3), np.float32),
        probe_log_probs_STQ=np.zeros((num, 3, 1), np.float32),
    )
    return ScoredGroup(group, Score(reward_S=np.array(rewards)))
