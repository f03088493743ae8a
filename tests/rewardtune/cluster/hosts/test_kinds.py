"""What crosses between the driver and its hosts, and how each kind of host is called."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from rewardtune.cluster.hosts import kinds
from rewardtune.cluster.hosts.kinds import HostKind
from rewardtune.cluster.hosts.replies import Claimed, Joined, Process, Stepped

ALL = [value for value in vars(kinds).values() if isinstance(value, HostKind)]


@pytest.mark.parametrize(
    "reply",
    [
        Claimed(Process(7, "127.0.0.1:9"), 2, ("forked",), Path("checkpoint"), "127.0.0.1:5"),
        Joined(3),
        Stepped(4, record={"step": 4.0}, num_invalid=1, candidate=Path("candidate")),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_a_reply_survives_its_way_to_the_driver(reply: object) -> None:
    assert pickle.loads(pickle.dumps(reply)) == reply


def test_every_role_of_a_host_is_one_kind() -> None:
    assert sorted(kind.role for kind in ALL) == [
        "evaluator",
        "learner",
        "learner_rank",
        "reward_worker",
        "sampler",
    ]


def test_only_a_reward_worker_is_called_while_another_call_is_on() -> None:
    assert {
        kind.role.value: kind.num_concurrent_calls for kind in ALL if "drain" in dir(kind.build)
    } == {"reward_worker": 2}
    assert [kind.role for kind in ALL if kind.num_concurrent_calls != 1] == ["reward_worker"]


def test_those_who_draw_or_score_are_not_needed_to_the_end() -> None:
    gone = {kind.role.value for kind in ALL if not kind.is_needed_to_the_end}
    assert gone == {"sampler", "reward_worker"}
