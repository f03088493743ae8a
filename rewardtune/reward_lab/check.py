"""Checking a reward: score made predictions, and look for a rule that does not hold.

Every reward must be finite, the same for the same prediction whatever stands beside it, and
higher for perfect predictions than for empty ones. What else must hold is the task's to say
(``Probe.claims``).

Axes: S predictions of a group, N examples.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset, Example
from rewardtune.records import Score
from rewardtune.reward_lab.ranks import spearman
from rewardtune.tasks.probe import GROUP_KINDS, Claim, Kind, Probe

P = TypeVar("P")

TOLERANCE = 1e-9
"""Equal rewards may differ by this much (relative above 1): another order, another last digit."""


class UncheckableReward(RuntimeError):
    """The reward raised, or gave something else than one number for each prediction."""


@dataclass(frozen=True, slots=True)
class KindFigures:
    """What one kind of prediction is worth, means over the examples."""

    reward: float
    reward_std: float
    """Between examples."""
    components: Mapping[str, float]
    metrics: Mapping[str, float]
    """Official, over all examples together; the main one first."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that the reward broke, and the first case of it."""

    rule: str
    first: str
    num_cases: int

    def __str__(self) -> str:
        more = f" ({self.num_cases} cases in all)" if self.num_cases > 1 else ""
        return f"{self.rule}: {self.first}{more}"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a check."""

    task: str
    num_examples: int
    num_samples: int
    kinds: Mapping[Kind, KindFigures]
    rank_correlation: Mapping[str, float]
    """Spearman's, of the reward with each metric, over kinds and examples; NaN: nothing to rank."""
    seconds_per_sample: float
    """Processor time of the reward, in groups of ``num_samples``."""
    zero_advantage: Mapping[Kind, float]
    """Share of groups of such predictions whose rewards are all equal: they teach nothing."""
    violations: tuple[Violation, ...]


def check_reward(
    probe: Probe[P],
    dataset: Dataset,
    *,
    indices: Sequence[int],
    num_samples: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score every kind of prediction on examples of a data set.

    Args:
        indices: the examples.
        num_samples: predictions of a group, as many as the run is to draw.
        seed: of the made predictions; the same seed, the same report but for the time.
        progress: called with examples done and to do; measuring afterwards counts as one more
            for every kind.

    Raises:
        UncheckableReward: the reward raised, or gave no number for some prediction; names the
            example.
        ValueError: no examples, or examples without the annotation that the task is about.
    """
    if not indices:
        raise ValueError("a reward is checked on examples: the data set has none")
    bench = _Bench(probe, num_samples=num_samples)
    total = len(indices) + len(probe.kinds)
    for done, index in enumerate(indices, start=1):
        bench.add(dataset.example(index), np.random.default_rng([seed, index]))
        if progress is not None:
            progress(done, total)
    kinds: dict[Kind, KindFigures] = {}
    metrics: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for done, kind in enumerate(probe.kinds, start=len(indices) + 1):
        measured = probe.measure(bench.predictions[kind], indices)
        for name, value_N in measured.per_example_N.items():
            metrics[name].append(value_N)
        rewards = np.array(bench.rewards[kind])
        kinds[kind] = KindFigures(
            reward=float(rewards.mean()),
            reward_std=float(rewards.std()),
            components={
                name: float(np.mean(values)) for name, values in bench.components[kind].items()
            },
            metrics=measured.overall,
        )
        if progress is not None:
            progress(done, total)
    bench.compare_means(kinds)
    reward = np.concatenate([bench.rewards[kind] for kind in probe.kinds])
    return Report(
        task=probe.task,
        num_examples=len(indices),
        num_samples=num_samples,
        kinds=kinds,
        rank_correlation={
            name: spearman(reward, np.concatenate(values)) for name, values in metrics.items()
        },
        seconds_per_sample=bench.seconds / bench.num_timed,
        zero_advantage={kind: float(np.mean(flat)) for kind, flat in bench.is_flat.items()},
        violations=tuple(
            Violation(rule=rule, first=cases[0], num_cases=len(cases))
            for rule, cases in bench.broken.items()
        ),
    )


class _Bench(Generic[P]):
    """Scores example by example, and keeps what comes of it."""

    def __init__(self, probe: Probe[P], *, num_samples: int) -> None:
        self._probe = probe
        self._num_samples = num_samples
        self.predictions: dict[Kind, list[P]] = {kind: [] for kind in probe.kinds}
        self.rewards: dict[Kind, list[float]] = {kind: [] for kind in probe.kinds}
        self.components: dict[Kind, dict[str, list[float]]] = {
            kind: defaultdict(list) for kind in probe.kinds
        }
        self.is_flat: dict[Kind, list[bool]] = {
            kind: [] for kind in GROUP_KINDS if kind in probe.kinds
        }
        self.seconds = 0.0
        self.num_timed = 0
        self.broken: dict[str, list[str]] = defaultdict(list)

    def add(self, example: Example, rng: np.random.Generator) -> None:
        made = {kind: self._probe.draw(kind, example, rng) for kind in self._probe.kinds}
        group = list(made.values())
        score = self._score(group, example)
        for s, (kind, prediction) in enumerate(made.items()):
            self.predictions[kind].append(prediction)
            self.rewards[kind].append(float(score.reward_S[s]))
            for name, value_S in score.components.items():
                self.components[kind][name].append(float(value_S[s]))
        self._look_for_impurity(group, score.reward_S, example)
        self._hold(
            "perfect beats empty",
            self.rewards["empty"][-1] - self.rewards["perfect"][-1] <= TOLERANCE,
            example,
            f"perfect earns {self.rewards['perfect'][-1]:.6g}, empty "
            f"{self.rewards['empty'][-1]:.6g}: perfect must earn as much at least",
        )
        for claim in self._probe.claims(example, rng):
            self._compare(claim, example)
        for kind, is_flat in self.is_flat.items():
            drawn = [self._probe.draw(kind, example, rng) for _ in range(self._num_samples)]
            began = time.process_time()
            reward_S = self._score(drawn, example).reward_S
            self.seconds += time.process_time() - began
            self.num_timed += len(drawn)
            is_flat.append(bool(np.ptp(reward_S) == 0))

    def compare_means(self, kinds: Mapping[Kind, KindFigures]) -> None:
        """On single examples perfect and empty may tie, where there is nothing to find."""
        perfect, empty = kinds["perfect"].reward, kinds["empty"].reward
        if not perfect > empty:
            self.broken["perfect beats empty"].append(
                f"over all examples perfect predictions earn {perfect:.6g} and empty ones "
                f"{empty:.6g}: perfect must earn more"
            )

    def _look_for_impurity(
        self, group: Sequence[P], reward_S: NDArray[np.float64], example: Example
    ) -> None:
        again_S = self._score(group, example).reward_S
        changed = np.flatnonzero(~_same(reward_S, again_S, tolerance=0.0))
        self._hold(
            "same in, same out",
            len(changed) == 0,
            example,
            _difference(reward_S, again_S, changed)
            + " when it was scored again: a reward must be a function of its input",
        )
        turned_S = self._score(group[::-1], example).reward_S[::-1]
        alone_S = np.array([self._score([group[0]], example).reward_S[0], *turned_S[1:]])
        for other_S in (turned_S, alone_S):
            changed = np.flatnonzero(~_same(reward_S, other_S))
            self._hold(
                "company",
                len(changed) == 0,
                example,
                _difference(reward_S, other_S, changed)
                + " in a group of other predictions: identical rollouts are scored once, so a "
                "reward must not look at its neighbours",
            )

    def _compare(self, claim: Claim[P], example: Example) -> None:
        before = float(self._score([claim.before], example).reward_S[0])
        other = claim.example_after or example
        after = float(self._score([claim.after], other).reward_S[0])
        slack = TOLERANCE * max(1.0, abs(before))
        if claim.relation == "equal":
            is_kept, must = abs(after - before) <= slack, "it must not change"
        else:
            is_kept, must = after <= before + slack, "it must not rise"
        self._hold(
            claim.name, is_kept, example, f"the reward was {before:.6g} and is {after:.6g}: {must}"
        )

    def _hold(self, rule: str, is_kept: bool, example: Example, problem: str) -> None:
        if not is_kept:
            self.broken[rule].append(f"{_name(example)}: {problem}")

    def _score(self, predictions: Sequence[P], example: Example) -> Score:
        try:
            score = self._probe.score(predictions, example)
        # Whatever a reward of the user's may raise: it is to be told with its example.
        except Exception as error:
            raise UncheckableReward(
                f"the reward raised on {_name(example)}: {type(error).__name__}: {error}"
            ) from error
        if np.shape(score.reward_S) != (len(predictions),):
            raise UncheckableReward(
                f"the reward of {len(predictions)} predictions of {_name(example)} has shape "
                f"{list(np.shape(score.reward_S))}: return one number for each"
            )
        self._hold(
            "finite",
            bool(np.isfinite(score.reward_S).all()),
            example,
            f"the reward is {score.reward_S[~np.isfinite(score.reward_S)][:1]}, not a number",
        )
        return score


def _same(
    one_S: NDArray[np.float64], other_S: NDArray[np.float64], *, tolerance: float = TOLERANCE
) -> NDArray[np.bool_]:
    # NaN is reported as such, not as a change.
    return np.isclose(one_S, other_S, rtol=tolerance, atol=tolerance, equal_nan=True)


def _difference(
    one_S: NDArray[np.float64], other_S: NDArray[np.float64], changed: NDArray[np.intp]
) -> str:
    return (
        f"the reward was {one_S[changed[0]]!r} and is {other_S[changed[0]]!r}"
        if len(changed)
        else ""
    )


def _name(example: Example) -> str:
    return f"image {example.file_name} (id {example.image_id})"
