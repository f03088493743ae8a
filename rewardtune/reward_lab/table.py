"""A report as people read it, and as programs do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewardtune.reward_lab.check import KindFigures, Report
from rewardtune.tasks.probe import Kind


def report_view(report: Report) -> RenderableType:
    """One column for each kind of prediction; metrics with their rank correlation."""
    table = Table(
        title=f"{report.task}: means over {report.num_examples} examples",
        title_justify="left",
        box=None,
        header_style="bold underline",
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    table.add_column(no_wrap=True)
    for kind in report.kinds:
        table.add_column(kind, justify="right")
    table.add_column("ranks", justify="right")
    kinds = report.kinds.values()
    table.add_row("reward", *(_number(each.reward) for each in kinds), style="bold")
    table.add_row("±", *(_number(each.reward_std) for each in kinds))
    for name in _names(report.kinds, "components"):
        table.add_row(name, *(_number(each.components.get(name)) for each in kinds))
    table.add_row()
    for name in _names(report.kinds, "metrics"):
        values = (_number(each.metrics.get(name)) for each in kinds)
        table.add_row(name, *values, _number(report.rank_correlation.get(name)), style="cyan")
    flat = ", ".join(f"{share:.0%} if {kind}" for kind, share in report.zero_advantage.items())
    lines = [
        "",
        "ranks: Spearman's correlation of reward and metric, over kinds and examples",
        f"groups of {report.num_samples} without any advantage: {flat}",
        f"processor time per sample: {report.seconds_per_sample * 1e6:.1f} us",
        *([] if report.violations else ["every rule held"]),
    ]
    return Group(table, Text("\n".join(lines)))


def report_json(report: Report) -> dict[str, Any]:
    """As JSON can hold it: what is no number is None."""
    content: dict[str, Any] = _without_nan(asdict(report))
    return content


def _names(kinds: Mapping[Kind, KindFigures], field: str) -> list[str]:
    """Of what any kind has, in order of first appearance."""
    return list(dict.fromkeys(name for each in kinds.values() for name in getattr(each, field)))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"
