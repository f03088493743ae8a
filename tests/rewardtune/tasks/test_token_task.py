from __future__ import annotations

import numpy as np

from rewardtune.records import Group, Published, Score, View
from rewardtune.tasks.token_task import TokenTask
from rewardtune.tasks.vocabulary import Vocabulary


class Words(TokenTask):
    name = "words"
    score_rules = ("plain",)


def test_a_plain_task_has_its_vocabulary_and_no_soft_targets() -> None:
    vocabulary = Vocabulary(task="words", size=7, max_tokens=3)
    task = Words(vocabulary)
    assert task.vocabulary is vocabulary
    tokens_ST = np.zeros((2, 3), dtype=np.int32)
    log_probs_ST = np.zeros((2, 3), dtype=np.float32)
    group = Group(
        0, 0, View(), Published(0, 0), tokens_ST, log_probs_ST, np.zeros((2, 3, 0), np.float32)
    )
    assert task.token_targets(group, Score(reward_S=np.zeros(2))) is None
