"""What the learner takes from a queue: what was drawn for that place, scored as promised."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from learner.acceptance import BadResult, ForeignGroup, accepted
from rewardtune.records import Group, Published, Score, ScoredGroup, View
from rewardtune.records.score_promise import ScorePromise, broken_promise
from rewardtune.transport.queue.job_queue import Result
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.wire import group_to_bytes, scored_group_to_bytes
from tests.faults.forgeries import damaged_result, plausible_result

SEAL = RunSeal("run", b"secret")
TERM, ORDINAL, SIZE = 3, 7, 2
GROUP = Group(
    ordinal=ORDINAL,
    example=1,
    view=View(flip=True),
    published=Published(TERM, 1),
    tokens_ST=np.array([[1, 2, 0], [3, 0, 0]], dtype=np.int32),
    log_probs_ST=np.array([[-0.5, -0.25, -1.5], [-2.0, -0.1, -0.2]], dtype=np.float32),
    probe_log_probs_STQ=np.zeros((SIZE, 3, 1), dtype=np.float32),
)
BODY = group_to_bytes(GROUP)
PROMISE = ScorePromise(
    components=("match",),
    aux={"step_reward": (3,), "overlap": (3,)},
    bounds={"reward": (-1.0, 3.0), "overlap": (0.0, 1.0)},
    has_step_sums=True,
)


def score(**changes: object) -> Score:
    step_SP = np.array([[1.0, 0.5, 0.0], [0.0, -0.5, 0.0]])
    honest = Score(
        reward_S=step_SP.sum(axis=1),
        components={"match": np.ones(SIZE), "more": np.zeros(SIZE)},
        aux={"step_reward": step_SP, "overlap": np.full((SIZE, 3), 0.5)},
    )
    return replace(honest, **changes)  # type: ignore[arg-type]


def aux(**changes: NDArray[np.float64] | None) -> Mapping[str, NDArray[np.float64]]:
    return {
        name: values for name, values in {**score().aux, **changes}.items() if values is not None
    }


def result(of: Score, group: Group = GROUP, *, seal: bytes | None = None) -> Result:
    sealed = SEAL.of_group(TERM, ORDINAL, BODY) if seal is None else seal
    return Result(scored=scored_group_to_bytes(ScoredGroup(group, of)), seal=sealed, worker="w")


def take(result: Result, *, term: int = TERM, ordinal: int = ORDINAL) -> ScoredGroup:
    return accepted(result, term=term, ordinal=ordinal, seal=SEAL, promise=PROMISE)


def test_an_honest_result_is_taken_as_it_is() -> None:
    taken = take(result(score()))
    assert scored_group_to_bytes(taken) == scored_group_to_bytes(ScoredGroup(GROUP, score()))


def test_a_group_that_nobody_could_score_is_there_and_not_valid() -> None:
    taken = take(Result(dead=BODY, seal=SEAL.of_group(TERM, ORDINAL, BODY)))
    assert group_to_bytes(taken.group) == BODY
    assert not taken.score.is_valid
    assert taken.score.reward_S.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (score(reward_S=np.array([1.5, np.nan])), "reward is nan"),
        (score(reward_S=np.array([1.5, np.inf])), "reward is inf"),
        (score(components={"match": np.array([0.0, np.nan])}), "match is nan"),
        (score(components={}), "component 'match' is missing"),
        (score(aux=aux(overlap=None)), "aux 'overlap' is none, the task's is .S, 3."),
        (score(aux=aux(other=np.zeros(SIZE))), "aux 'other' is .S., the task's is none"),
        (score(aux=aux(overlap=np.zeros((SIZE, 4)))), "aux 'overlap' is .S, 4."),
        (score(aux=aux(overlap=np.full((SIZE, 3), 1.1))), "overlap is 1.1, outside 0 to 1"),
        (score(reward_S=np.array([187_502.0, 0.0])), "reward is 187502, outside -1 to 3"),
        (score(reward_S=np.array([1.25, -0.5])), "step_reward does not sum to the reward"),
        (score(is_valid=False), "it says that it is no score"),
    ],
)
def test_a_score_of_another_kind_is_refused_for_what_is_wrong(bad: Score, reason: str) -> None:
    with pytest.raises(BadResult, match=reason) as refused:
        take(result(bad))
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, ForeignGroup)


@pytest.mark.parametrize(
    "other",
    [
        replace(GROUP, example=2),
        replace(GROUP, view=View()),
        replace(GROUP, published=Published(TERM, 0)),
        replace(GROUP, tokens_ST=np.array([[1, 2, 0], [10**6, 0, 0]], dtype=np.int32)),
        replace(GROUP, log_probs_ST=np.zeros((SIZE, 3), dtype=np.float32)),
        replace(GROUP, ordinal=ORDINAL + 1),
    ],
)
def test_another_group_is_refused_however_well_it_is_scored(other: Group) -> None:
    with pytest.raises(ForeignGroup):
        take(result(score(), other))
    foreign = group_to_bytes(other)
    with pytest.raises(ForeignGroup):
        take(Result(dead=foreign, seal=SEAL.of_group(TERM, ORDINAL, BODY)))


def test_a_seal_of_another_place_or_run_is_none() -> None:
    for seal in (
        b"",
        SEAL.of_group(TERM, ORDINAL + 1, BODY),
        RunSeal("run", b"?").of_group(3, 7, BODY),
    ):
        with pytest.raises(ForeignGroup, match="not the one that was drawn"):
            take(result(score(), seal=seal))
    with pytest.raises(ForeignGroup):
        take(result(score()), term=TERM + 1)
    with pytest.raises(ForeignGroup):
        take(result(score()), ordinal=ORDINAL + 1)


def test_what_is_neither_score_nor_group_is_refused() -> None:
    for nothing in (Result(), Result(scored=b""), Result(scored=b"FORGED"), Result(dead=b"FORGED")):
        with pytest.raises(BadResult):
            take(nothing)


def test_damage_to_any_field_of_any_message_is_refused() -> None:
    seal = SEAL.of_group(TERM, ORDINAL, BODY)
    plausible = Result(scored=plausible_result(BODY, PROMISE), seal=seal)
    assert take(plausible).score.is_valid
    reasons = set()
    for seed in range(2000):
        damaged = damaged_result(random.Random(seed), BODY, PROMISE)
        with pytest.raises(BadResult) as refused:
            take(Result(scored=damaged, seal=seal))
        reasons.add(str(refused.value)[:20])
    assert len(reasons) > 20


def test_nothing_promised_asks_for_finite_numbers_alone() -> None:
    assert broken_promise(score(), ScorePromise()) is None
    bad = score(aux=aux(overlap=np.full((SIZE, 3), np.nan)))
    assert broken_promise(bad, ScorePromise()) == "overlap is nan, not a finite number"


def test_numbers_that_are_too_large_to_add_up_are_finite_all_the_same() -> None:
    huge = score(components={"match": np.array([1e308, 1e308])})
    assert broken_promise(huge, replace(PROMISE, bounds={})) is None
    bounded = replace(PROMISE, bounds={"match": (0.0, 1.0)})
    assert broken_promise(huge, bounded) == "match is 1e+308, outside 0 to 1"


def test_a_bound_that_is_met_exactly_is_kept() -> None:
    at_the_edge = score(reward_S=np.array([3.0, -1.0]), aux=aux(step_reward=None))
    promise = replace(PROMISE, aux=None, has_step_sums=False)
    assert broken_promise(at_the_edge, promise) is None
