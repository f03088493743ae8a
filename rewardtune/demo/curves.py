"""The curves of a run: what it was tuned to, what it was measured by, where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rewardtune.run.log import RunRecords

_WINDOW = 20
"""Steps of the moving mean."""
_PHASES = ("wait", "sample", "score", "load", "learn", "exchange", "publish", "checkpoint", "other")


def draw_curves(records: RunRecords, path: Path, *, title: str, metrics: Sequence[str]) -> None:
    """Draw a run's log as a PNG: reward, holdout metrics and shares of time over steps.

    Args:
        metrics: which of the holdout metrics, on one scale.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    curves(records, title=title, metrics=metrics).savefig(path, dpi=110)


def curves(records: RunRecords, *, title: str, metrics: Sequence[str]) -> Figure:
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    figure.suptitle(title)
    reward, holdout, time = figure.subplots(1, 3)
    _draw_reward(reward, records)
    _draw_holdout(holdout, records, metrics)
    _draw_time(time, records)
    for axes in (reward, holdout, time):
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_reward(axes: Axes, records: RunRecords) -> None:
    axes.set_title("reward of the rollouts")
    steps, values = _series(records.steps, "reward")
    axes.plot(steps, values, color="0.8", linewidth=1)
    axes.plot(steps, _moving_mean(values), color="tab:blue", label=f"mean of {_WINDOW} steps")
    if steps:
        axes.legend(frameon=False)


def _draw_holdout(axes: Axes, records: RunRecords, metrics: Sequence[str]) -> None:
    axes.set_title("holdout scenes")
    for name in metrics:
        steps, values = _series(records.evaluations, name)
        if steps:
            axes.plot(steps, values, marker="o", markersize=3, label=name)
    if axes.get_lines():
        axes.legend(frameon=False)


def _draw_time(axes: Axes, records: RunRecords) -> None:
    axes.set_title("where a step's time goes")
    steps = [record["step"] for record in records.steps]
    seconds = {
        phase: _moving_mean([record.get(f"seconds_{phase}") or 0.0 for record in records.steps])
        for phase in _PHASES
    }
    spent = {phase: values for phase, values in seconds.items() if any(values)}
    totals = [sum(column) for column in zip(*spent.values(), strict=True)]
    shares = [
        [100 * value / total for value, total in zip(values, totals, strict=True)]
        for values in spent.values()
    ]
    if shares:
        axes.stackplot(steps, shares, labels=list(spent), alpha=0.8)
        axes.set_ylim(0, 100)
        axes.set_ylabel("%")
        axes.legend(loc="center left", framealpha=0.8)


def _series(records: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a figure, where it was reported."""
    known = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [step for step, _ in known], [value for _, value in known]


def _moving_mean(values: Sequence[float]) -> list[float]:
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - _WINDOW) : end]
        means.append(sum(window) / len(window))
    return means
