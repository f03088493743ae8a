"""What a sweep knows of its finished runs: one line of JSON each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewardtune.config.run_config import ConfigError
from rewardtune.sweep.config import Sweep
from rewardtune.sweep.plan import Run, plan_of, wanted_runs

RECORDS_NAME = "records.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    row: str
    seed: int
    before: Mapping[str, float]
    """Greedy metrics of the policy that the run started from."""
    after: Mapping[str, float]
    """Of the policy measured; and ``rollout_reward``."""
    evaluations: Sequence[Mapping[str, float]]
    """Holdout metrics in the course of the run, as its config measures them, and ``step``."""
    num_steps: int
    num_samples: int
    """Rollouts drawn in all."""
    samples_per_step: int
    seconds: float
    """That the run's steps took, evaluations left out."""
    machine: str
    key: str
    """Of the settings that made it: ``Sweep.key``."""
    start: str
    """Hash of what the files held: data sets, checkpoint, whatever the task's options name."""

    @property
    def run(self) -> Run:
        return Run(self.seed, self.row)

    def value(self, metric: str) -> float:
        """Of the policy measured; NaN where it was not defined, as PQ without segments."""
        return self.after.get(metric, math.nan)


def append_record(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    earlier = path.read_bytes() if path.exists() else b""
    is_torn = not earlier.endswith(b"\n") and earlier != b""
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if is_torn else "") + json.dumps(_plain(asdict(record))) + "\n")


def read_records(path: Path) -> list[Record]:
    """Finished runs in the order in which they ended; a line that was cut off is left out.

    Raises:
        ConfigError: a line is no record of a run.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process was killed while it wrote; the run is made again
        try:
            records.append(Record(**_numbers(values)))
        except TypeError:
            raise ConfigError(
                f"{path}, line {number} is not a run of a sweep: move the file away"
            ) from None
    return records


def finished_runs(sweep: Sweep) -> dict[Run, Record]:
    """What the records of a sweep say is done; rows that it no longer has are left out.

    Raises:
        ConfigError: they are of other settings.
    """
    path = sweep.directory / RECORDS_NAME
    records = {}
    for record in read_records(path):
        if record.row in sweep.distinct:
            if record.key != sweep.key(record.row, record.seed):
                raise ConfigError(
                    f"{path} has a run of row '{record.row}' under other settings: undo the "
                    f"change, rename the sweep's file, or move {sweep.directory / record.row} and "
                    "the row's lines away"
                )
            records[record.run] = record
    return records


def missing_runs(sweep: Sweep, records: Mapping[Run, Record]) -> list[Run]:
    """What is to be made next, in order, as far as the finished runs decide it."""
    metric = sweep.settings.metrics[0]
    values = {run: record.value(metric) for run, record in records.items()}
    return [run for run in wanted_runs(plan_of(sweep), values) if run not in records]


def _plain(values: Any) -> Any:
    """The same as JSON can say it: a number that is not finite is null."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _numbers(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _numbers(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return math.nan if values is None else values
