from __future__ import annotations

import numpy as np

from rewardtune.records import Group, Published, Score, View
from rewardtune.tasks.token_task import TokenLayout, TokenTask


class Words(TokenTask):
    name = "words"
    score_rules = ("plain",)


def test_a_task_speaks_the_tokens_of_its_layout() -> None:
    task = Words(TokenLayout(7, 3, stop_token=2, probe_tokens=(1, 4), meaning={"language": "eo"}))
    assert (task.vocab_size, task.sequence_length, task.stop_token) == (7, 3, 2)
    assert task.probe_tokens == (1, 4)
    assert list(task.describe_vocabulary().items()) == [
        ("task", "words"),
        ("vocab_size", 7),
        ("sequence_length", 3),
        ("language", "eo"),
    ]


def test_a_plain_layout_has_no_end_no_probes_and_no_soft_targets() -> None:
    task = Words(TokenLayout(vocab_size=7, sequence_length=3))
    assert task.stop_token is None and task.probe_tokens == ()
    tokens_ST = np.zeros((2, 3), dtype=np.int32)
    log_probs_ST = np.zeros((2, 3), dtype=np.float32)
    group = Group(
        0, 0, View(), Published(0, 0), tokens_ST, log_probs_ST, np.zeros((2, 3, 0), np.float32)
    )
    assert task.token_targets(group, Score(reward_S=np.zeros(2))) is None
