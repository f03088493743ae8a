"""Which results the learner takes from a queue, and which it refuses. Pure.

A queue's results come from machines that the run does not own. What can be known of one without
scoring it again is known here: that the group is the very one that the run drew for this place, by
its seal, and that its score is of the kind that the task promises. What cannot be known is whether
a reward within its bounds is the right one: for that a run trusts whoever has its worker's password
(docs/threat_model.md).
"""

from __future__ import annotations

import numpy as np

from rewardtune.records import Group, Score, ScoredGroup
from rewardtune.records.score_promise import ScorePromise, broken_promise
from rewardtune.transport.queue.job_queue import Result
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.wire import group_from_bytes, scored_group_with_body


class BadResult(ValueError):
    """A result that no honest worker reports; the message says what is wrong, in one line."""


class ForeignGroup(BadResult):
    """Its group is not the one that this run drew for this place."""


def accepted(
    result: Result, *, term: int, ordinal: int, seal: RunSeal | None, promise: ScorePromise
) -> ScoredGroup:
    """A result as the learner sees it: what nobody could score is there and not valid.

    Args:
        seal: None: nothing is sealed, as where no queue is between.

    Raises:
        BadResult: it is refused.
    """
    if result.scored is None:
        if result.dead is None:
            raise BadResult("it is neither a score nor a group that nobody could score")
        group = _group(result.dead)
        _check_group(group, result.dead, result.seal, term, ordinal, seal)
        nothing_S = np.zeros(len(group.tokens_ST))
        return ScoredGroup(group=group, score=Score(reward_S=nothing_S, is_valid=False))
    try:
        scored, body = scored_group_with_body(result.scored)
    except ValueError as error:
        raise BadResult(str(error)) from None
    _check_group(scored.group, body, result.seal, term, ordinal, seal)
    if not scored.score.is_valid:
        raise BadResult("it says that it is no score: who cannot score a group reports a failure")
    if broken := broken_promise(scored.score, promise):
        raise BadResult(broken)
    return scored


def _group(body: bytes) -> Group:
    try:
        return group_from_bytes(body)
    except ValueError as error:
        raise ForeignGroup(str(error)) from None


def _check_group(
    group: Group, body: bytes, told: bytes, term: int, ordinal: int, seal: RunSeal | None
) -> None:
    if group.ordinal != ordinal:
        raise ForeignGroup(f"it is of group {group.ordinal}")
    if seal is not None and not seal.is_of_group(told, term, ordinal, body):
        raise ForeignGroup("its group is not the one that was drawn")
