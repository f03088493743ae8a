from __future__ import annotations

from typing import Any

import pytest

from rewardtune.tasks.vocabulary import Vocabulary


def test_a_plain_vocabulary_has_no_end_no_probes_and_nothing_to_read_out() -> None:
    plain = Vocabulary(task="words", size=7, max_tokens=3)
    assert (plain.stop_tokens, plain.probe_tokens, plain.step_length) == ((), (), 1)
    assert not plain.has_readout and plain.readout_seen_as is None


def test_what_a_policy_file_keeps_is_what_tells_tokens_apart() -> None:
    plain = Vocabulary(task="words", size=7, max_tokens=4, meaning={"language": "eo"})
    kept = {"task": "words", "vocab_size": 7, "sequence_length": 4, "language": "eo"}
    assert list(plain.describe().items()) == list(kept.items())
    other = Vocabulary(
        task="words",
        size=7,
        max_tokens=4,
        stop_tokens=(2, 5),
        probe_tokens=(1,),
        step_length=2,
        has_readout=True,
        readout_seen_as=2,
        meaning={"language": "eo"},
    )
    assert other.describe() == kept


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stop_tokens": (2, 7)}, "stop_tokens of task 'words' has 7, which is no token"),
        ({"probe_tokens": (-1,)}, "probe_tokens of task 'words' has -1, which is no token"),
        ({"levels": (range(2, 9),)}, "levels of task 'words' has 8, which is no token"),
        ({"levels": (range(2, 3),)}, "name runs of two tokens or more"),
        ({"levels": (range(0, 6, 2),)}, "each the one before plus 1"),
        ({"step_length": 4}, "have 6 tokens, which are no whole steps of 4"),
        ({"step_length": 0}, "no whole steps of 0"),
        ({"has_readout": True}, "reads out the last token of steps of 1: set step_length"),
        ({"step_length": 3, "readout_seen_as": 2}, "readout_seen_as = 2 but reads nothing out"),
        (
            {"step_length": 3, "has_readout": True, "readout_seen_as": 9},
            "readout_seen_as of task 'words' has 9, which is no token",
        ),
    ],
)
def test_a_vocabulary_that_cannot_be_is_one_clear_error(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Vocabulary(task="words", size=7, max_tokens=6, **changed)
