"""A sweep's figures as Markdown: rows with standard errors, and the pairs to be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rewardtune.sweep.config import Row, Sweep
from rewardtune.sweep.figures import NUM_STANDARD_ERRORS, Estimate, difference, estimate
from rewardtune.sweep.plan import Run
from rewardtune.sweep.record import Record


def sweep_table(sweep: Sweep, records: Mapping[Run, Record]) -> str:
    """Mean ± standard error over the finished runs of every row, by group, in the file's order."""
    settings = sweep.settings
    which = "the last policy" if settings.policy == "last" else "the policy best on holdout"
    lines = [
        f"# {sweep.directory.name}",
        "",
        f"`{settings.config}`: {which} of each run on the {settings.data} set, greedy decoding; "
        "mean ± standard error over seeds.",
    ]
    for group in dict.fromkeys(row.group for row in sweep.rows.values()):
        lines += ["", f"## {group.replace('_', ' ')}"] if group else []
        rows = [row for row in sweep.rows.values() if row.group == group]
        lines += ["", *_rows(settings.metrics, rows, records)]
    pairs = _pairs(sweep, records)
    if pairs:
        lines += ["", f"Differences in {settings.metrics[0]}:", "", *pairs]
    return "\n".join(lines) + "\n"


def of_row(row: Row, records: Mapping[Run, Record]) -> list[Record]:
    """Its finished runs, by seed."""
    found = [record for record in records.values() if record.row == row.runs_of]
    return sorted(found, key=lambda record: record.seed)


def _rows(metrics: Sequence[str], rows: Sequence[Row], records: Mapping[Run, Record]) -> list[str]:
    headings = ("row", "seeds", "steps", "samples drawn", f"{metrics[0]} before", *metrics)
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        runs = of_row(row, records)
        if not runs:
            lines.append(_line([row.label, "0", *[""] * (len(headings) - 2)]))
            continue
        first = runs[0]
        lines.append(
            _line(
                [
                    row.label,
                    str(len(runs)),
                    f"{first.num_steps:,}",
                    f"{first.num_samples:,}",
                    f"{first.before[metrics[0]]:.4f}",
                    *(_cell(estimate([run.value(metric) for run in runs])) for metric in metrics),
                ]
            )
        )
    return lines


def _pairs(sweep: Sweep, records: Mapping[Run, Record]) -> list[str]:
    metric, until = sweep.settings.metrics[0], sweep.settings.until
    lines = []
    for one, other in until.pairs if until else ():
        first, second = (
            [record.value(metric) for record in of_row(sweep.rows[name], records)]
            for name in (one, other)
        )
        if first and second:
            found = difference(first, second)
            lines.append(
                f"- {one} minus {other}: {_cell(found, sign='+')}, {_judged(found)} "
                f"({len(first)} and {len(second)} seeds)"
            )
    return lines


def _judged(found: Estimate) -> str:
    if math.isnan(found.standard_error):
        return "without a standard error"
    errors = found.mean / found.standard_error if found.standard_error else math.inf
    word = "resolved" if found.is_resolved else "not resolved"
    return f"{abs(errors):.1f} standard errors: {word} at {NUM_STANDARD_ERRORS:g}"


def _cell(value: Estimate, *, sign: str = "") -> str:
    mean = f"{value.mean:{sign}.4f}"
    if math.isnan(value.standard_error):
        return mean
    return f"{mean} ± {value.standard_error:.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
