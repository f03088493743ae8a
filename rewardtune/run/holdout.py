"""How good a run's policy is on its holdout set."""

from __future__ import annotations

from collections.abc import Mapping

from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.policies.draw import GREEDY, Decoding
from rewardtune.run.assembly import Parts


def holdout_metrics(parts: Parts) -> Mapping[str, float] | None:
    """The official metrics, decoded and scored as the config says; None without a holdout set."""
    if parts.holdout is None:
        return None
    settings = parts.config.evaluation
    wanted = len(parts.holdout) if settings.num_examples is None else settings.num_examples
    evaluation = evaluate_policy(
        parts.policy,
        parts.task,
        parts.holdout,
        indices=range(min(wanted, len(parts.holdout))),
        score_rules=[settings.score_rule] if settings.score_rule else None,
        decoding=GREEDY
        if settings.decoding == "greedy"
        else Decoding(temperature=settings.temperature, top_p=settings.top_p),
        seed=parts.config.seed,
        view=parts.config.data.views.whole,
    )
    return evaluation.metrics
