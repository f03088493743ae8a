"""What a run tells its reward workers: what to score, on what data, and what it must come to.

Axes: S rollouts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from reward_workers.scoring.config import RewardConfig
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.resolved import Resolved
from reward_workers.scoring.reward import Reward, RewardFailed
from reward_workers.scoring.score import BadScore, score_group
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.frame import Framed, Framing
from rewardtune.records import Group, Published, Score, View
from rewardtune.records.score_promise import (
    NOTHING_PROMISED,
    REWARD,
    ScorePromise,
    broken_promise,
    has_step_sums,
)
from rewardtune.tasks.task import BoundedTask, Task

MAX_SPEC_BYTES = 2**20
NUM_GOLDEN = 4
_MAX_GOLDEN_TRIES = 4
"""For each golden example wanted: others take the place of those that cannot be scored."""


class GoldenView(BaseModel):
    """The fields of ``records.View``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool
    scale: float
    offset_y: float
    offset_x: float


class GoldenExample(BaseModel):
    """A small group and the rewards it must get."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    example: int
    view: GoldenView
    tokens: tuple[tuple[int, ...], ...]
    """S rollouts of T tokens."""
    rewards: tuple[float, ...]

    def group(self) -> Group:
        """What to score."""
        tokens_ST = np.array(self.tokens, dtype=np.int32)
        return _group(self.example, View(**self.view.model_dump()), tokens_ST)


class ScoringSpec(BaseModel):
    """One run's, the same for all its workers. JSON in ``Term.spec``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    identity_hash: str
    task: str
    task_options: dict[str, JsonValue]
    reward: RewardConfig | None = None
    """None: the task's own."""
    framing: Framing
    """How the run's policy sees its pictures."""
    dataset_digest: str
    reward_digest: str
    scorer: ScorerSettings
    golden: tuple[GoldenExample, ...]
    promise: ScorePromise = NOTHING_PROMISED
    """What every score is like; the learner refuses others."""

    def to_bytes(self) -> bytes:
        """Raises ValueError if it is over ``MAX_SPEC_BYTES``."""
        data = self.model_dump_json().encode()
        if len(data) > MAX_SPEC_BYTES:
            raise ValueError(
                f"the scoring spec takes {len(data)} bytes, but may have {MAX_SPEC_BYTES}: take "
                f"fewer than {len(self.golden)} golden examples"
            )
        return data

    @staticmethod
    def from_bytes(data: bytes) -> ScoringSpec:
        """Raises ValueError, in one line, where ``data`` is not a spec that this program reads."""
        if len(data) > MAX_SPEC_BYTES:
            raise ValueError(
                f"refused a scoring spec of {len(data)} bytes: it may have {MAX_SPEC_BYTES}"
            )
        try:
            return ScoringSpec.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ValueError(
                f"the run's scoring spec cannot be read ({where}: {first['msg']}): start workers "
                "of the same version as the run"
            ) from None


def make_spec(
    resolved: Resolved,
    task: Task,
    dataset: Dataset,
    *,
    run: str,
    identity_hash: str,
    framing: Framing,
    scorer: ScorerSettings,
    reward: Reward | None = None,
    num_golden: int = NUM_GOLDEN,
) -> ScoringSpec:
    """Describe the run that is scored by ``resolved``.

    Args:
        task, reward: as ``resolved`` loaded them.

    Raises:
        RewardFailed, BadScore: the reward fails on every golden example.
    """
    # People would have to answer them, and need not answer the same twice.
    if reward is not None and reward.is_human:
        num_golden = 0
    golden = _scored_golden(task, dataset, framing=framing, num=num_golden, reward=reward)
    return ScoringSpec(
        run=run,
        identity_hash=identity_hash,
        task=resolved.task.name,
        task_options=dict(resolved.task.options),
        reward=resolved.reward,
        framing=framing,
        dataset_digest=dataset.digest,
        reward_digest=resolved.digest(scorer=scorer),
        scorer=scorer,
        golden=tuple(example for example, _ in golden),
        promise=make_promise(task, resolved.reward, [score for _, score in golden]),
    )


def make_promise(task: Task, reward: RewardConfig | None, scores: Sequence[Score]) -> ScorePromise:
    """What every score of a run is like, by what the task declares and some scores showed.

    Args:
        reward: None: the task's own.
        scores: of examples; of none, names and shapes stay unknown.

    Raises:
        BadScore: they lie beyond what the task declares.
    """
    bounds = _own_bounds(task)
    if reward is not None:
        bounds.pop(REWARD, None)
        if reward.bounds is not None:
            bounds[REWARD] = reward.bounds
    if not scores:
        return ScorePromise(bounds=bounds)
    promise = ScorePromise(
        components=tuple(sorted(set.intersection(*(set(score.components) for score in scores)))),
        aux={name: values.shape[1:] for name, values in scores[0].aux.items()},
        bounds=bounds,
        has_step_sums=all(has_step_sums(score) for score in scores),
    )
    for score in scores:
        if broken := broken_promise(score, promise):
            raise BadScore(f"task '{task.name}' does not keep to its own score_bounds: {broken}")
    return promise


def _own_bounds(task: Task) -> dict[str, tuple[float, float]]:
    """What the task declares; nothing where a subclass scores anew and inherits the bounds."""
    if not isinstance(task, BoundedTask):
        return {}
    for each in type(task).__mro__:
        if "score_bounds" in vars(each):
            break
        if "score" in vars(each):
            return {}
    return dict(task.score_bounds)


def make_golden(
    task: Task, dataset: Dataset, *, framing: Framing, num: int, reward: Reward | None = None
) -> tuple[GoldenExample, ...]:
    """Score the annotation and a damaged copy of it, for the first ``num`` examples.

    Every second view is flipped. The same each time for the same task and data. An example that
    the reward fails on is passed over.

    Raises:
        RewardFailed, BadScore: the reward fails on all of them.
    """
    scored = _scored_golden(task, dataset, framing=framing, num=num, reward=reward)
    return tuple(example for example, _ in scored)


def _scored_golden(
    task: Task, dataset: Dataset, *, framing: Framing, num: int, reward: Reward | None
) -> list[tuple[GoldenExample, Score]]:
    golden: list[tuple[GoldenExample, Score]] = []
    failure: Exception | None = None
    for index in range(min(_MAX_GOLDEN_TRIES * num, len(dataset))):
        if len(golden) == num:
            break
        rng = np.random.default_rng(index)
        view = View(flip=index % 2 == 1)
        example = dataset.example(index)
        target_T = task.target_tokens(Framed.of(example, view, framing), rng=rng)
        damaged_T = target_T.copy()
        is_hit_T = rng.random(len(target_T)) < 0.2
        damaged_T[is_hit_T] = rng.integers(task.vocabulary.size, size=int(is_hit_T.sum()))
        group = _group(index, view, np.stack([target_T, damaged_T]).astype(np.int32))
        try:
            scored = score_group(group, task=task, dataset=dataset, framing=framing, reward=reward)
        except (RewardFailed, BadScore) as error:
            failure = failure or error
            continue
        made = GoldenExample(
            example=index,
            view=GoldenView(
                flip=view.flip,
                scale=view.scale,
                offset_y=view.offset_y,
                offset_x=view.offset_x,
            ),
            tokens=tuple(map(tuple, group.tokens_ST.tolist())),
            rewards=tuple(scored.score.reward_S.tolist()),
        )
        golden.append((made, scored.score))
    if failure is not None and not golden:
        raise failure
    return golden


def _group(example: int, view: View, tokens_ST: NDArray[np.int32]) -> Group:
    # Nobody drew these tokens: rewards do not look at how likely they were.
    return Group(
        ordinal=0,
        example=example,
        view=view,
        published=Published(term=0, policy_version=0),
        tokens_ST=tokens_ST,
        log_probs_ST=np.zeros(tokens_ST.shape, dtype=np.float32),
        probe_log_probs_STQ=np.zeros((*tokens_ST.shape, 0), dtype=np.float32),
    )
