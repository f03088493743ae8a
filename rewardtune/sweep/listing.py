"""What a sweep would do: its runs, and the samples that they draw."""

from __future__ import annotations

from collections.abc import Mapping

from rewardtune.config.run_config import derived
from rewardtune.sweep.config import Sweep
from rewardtune.sweep.plan import Run, plan_of
from rewardtune.sweep.record import Record, missing_runs


def listing(sweep: Sweep, records: Mapping[Run, Record]) -> str:
    """One line per run, what is finished first, then the sums."""
    missing = missing_runs(sweep, records)
    runs = [*sorted(records), *missing]
    width = max(len(run.name) for run in runs)
    lines = []
    for run in runs:
        steps = sweep.rows[run.row].config.learner.num_steps
        is_done = "   finished" if run in records else ""
        samples = num_samples(sweep, run.row)
        lines.append(f"{run.name:<{width}} {steps:>9,} steps {samples:>13,} samples{is_done}")
    for name, row in sweep.rows.items():
        if row.runs_of != name:
            lines.append(f"{name}: the runs of {row.runs_of}")
    to_draw = sum(num_samples(sweep, run.row) for run in missing)
    lines.append(
        f"{len(runs)} runs, {len(records)} finished; {to_draw:,} samples to draw in the others"
    )
    more = _most(sweep, runs)
    if more:
        samples = sum(num_samples(sweep, row) * count for row, count in more.items())
        lines.append(
            f"at most {sum(more.values())} runs and {samples:,} samples more, if no pair is "
            "resolved earlier"
        )
    return "\n".join(lines) + "\n"


def num_samples(sweep: Sweep, row: str) -> int:
    """Rollouts that one run of a row draws in all."""
    return int(derived(sweep.rows[row].config)["rollouts_total"])


def _most(sweep: Sweep, runs: list[Run]) -> dict[str, int]:
    """Runs of each paired row that may yet come after those known."""
    plan = plan_of(sweep)
    known = {row: sum(run.row == row for run in runs) for row in plan.rows}
    if all(known[row] >= plan.max_num_seeds for pair in plan.pairs for row in pair):
        return {}
    paired = dict.fromkeys(row for pair in plan.pairs for row in pair)
    return {row: plan.max_num_seeds - known[row] for row in paired}
