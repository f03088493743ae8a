"""A sweep's curves: the metric on the holdout set over steps, and over samples drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rewardtune.sweep.config import Sweep
from rewardtune.sweep.figures import estimate
from rewardtune.sweep.plan import Run
from rewardtune.sweep.record import Record
from rewardtune.sweep.table import of_row


@dataclass(frozen=True, slots=True)
class Band:
    """One row's course: mean of its seeds, and a standard error either way."""

    label: str
    steps: list[int]
    samples: list[int]
    """Drawn until then."""
    mean: list[float]
    standard_error: list[float]
    """0 where there is one seed."""


def bands(sweep: Sweep, records: Mapping[Run, Record], group: str) -> list[Band]:
    """The rows of a group that have finished runs with evaluations of the first metric."""
    metric = sweep.settings.metrics[0]
    found = []
    for row in sweep.rows.values():
        runs = of_row(row, records) if row.group == group else []
        by_step = _by_step(runs, metric)
        if by_step:
            estimates = [estimate(values) for values in by_step.values()]
            found.append(
                Band(
                    label=row.label.replace("_", " "),
                    steps=list(by_step),
                    samples=[step * runs[0].samples_per_step for step in by_step],
                    mean=[each.mean for each in estimates],
                    standard_error=[e.standard_error if len(runs) > 1 else 0.0 for e in estimates],
                )
            )
    return found


def draw_sweep(sweep: Sweep, records: Mapping[Run, Record], path: Path) -> None:
    """Draw a PNG: one line of pictures per group, the metric over steps and over samples."""
    groups = list(dict.fromkeys(row.group for row in sweep.rows.values()))
    figure = Figure(figsize=(11, 3.6 * len(groups)), layout="constrained")
    figure.suptitle(f"{sweep.directory.name}: mean of seeds, one standard error either way")
    axes = figure.subplots(len(groups), 2, squeeze=False, sharey="row")
    for group, (over_steps, over_samples) in zip(groups, axes, strict=True):
        found = bands(sweep, records, group)
        for left_or_right, name in ((over_steps, "steps"), (over_samples, "samples drawn")):
            left_or_right.set_title(group.replace("_", " "))
            left_or_right.set_xlabel(name)
            left_or_right.spines[["top", "right"]].set_visible(False)
        over_steps.set_ylabel(f"{sweep.settings.metrics[0]}, holdout")
        for band in found:
            _draw(over_steps, band.steps, band)
            _draw(over_samples, band.samples, band)
        if found:
            over_steps.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(axes: Axes, where: Sequence[int], band: Band) -> None:
    (line,) = axes.plot(where, band.mean, marker="o", markersize=3, label=band.label)
    pairs = list(zip(band.mean, band.standard_error, strict=True))
    low, high = [m - e for m, e in pairs], [m + e for m, e in pairs]
    axes.fill_between(where, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _by_step(runs: Sequence[Record], metric: str) -> dict[int, list[float]]:
    """Values of the seeds at steps that every one of them was measured at."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            if metric in evaluation:
                by_step.setdefault(int(evaluation["step"]), []).append(evaluation[metric])
    return {step: by_step[step] for step in sorted(by_step) if len(by_step[step]) == len(runs)}
