"""One run of a sweep, in a process of its own: ``python -m rewardtune.sweep.process JOB``.

JOB is a JSON file that says what to tune and how to measure it; the figures go beside it. A run
that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rewardtune.config.run_config import RunConfig
from rewardtune.evaluation.history import History
from rewardtune.json_file import write_json
from rewardtune.run.local import tune
from rewardtune.run.log import LOG_NAME, open_run_log, read_run_log
from rewardtune.run.machine import machine
from rewardtune.sweep.measure import Measured, measure_policy

JOB_NAME = "sweep_job.json"
OUTCOME_NAME = "sweep_outcome.json"
NUM_LAST_STEPS = 20
"""At the end of a run, whose rollouts' reward is averaged."""
STOPPED = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    after: Mapping[str, float]
    evaluations: Sequence[Mapping[str, float]]
    seconds: float
    machine: str


def write_job(config: RunConfig, data: Measured, policy: Literal["last", "best"]) -> Path:
    """Put a job into its run's directory."""
    path = config.operations.directory / JOB_NAME
    write_json(path, {"config": config.model_dump(mode="json"), "data": data, "policy": policy})
    return path


def read_outcome(directory: Path) -> Outcome:
    return Outcome(**json.loads((directory / OUTCOME_NAME).read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> int:
    (job_path,) = sys.argv[1:] if arguments is None else arguments
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    config = RunConfig.model_validate(job["config"])
    try:
        with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
            result = tune(config, log)
        if not result.is_finished:
            return STOPPED
        last = result.directory / "policy.safetensors"
        path = result.policy_path if job["policy"] == "best" else last
        after = measure_policy(config, path, job["data"])
    except (ValueError, OSError, RuntimeError) as error:
        traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # the last line is what the sweep shows
        return 1
    steps = read_run_log(result.directory / LOG_NAME).steps
    outcome = Outcome(
        after={**after, "rollout_reward": rollout_reward(steps, config.learner.num_steps)},
        evaluations=History(result.directory, metric=config.evaluation.metric).evaluations,
        seconds=round(run_seconds(steps, config.learner.num_steps), 1),
        machine=machine(),
    )
    write_json(result.directory / OUTCOME_NAME, asdict(outcome))
    return 0


def rollout_reward(steps: Sequence[Mapping[str, Any]], num_steps: int) -> float:
    """Mean reward of the training rollouts in the logged ones of a run's last steps; or NaN."""
    first = num_steps - NUM_LAST_STEPS
    rewards = [s["reward"] for s in steps if s["step"] > first and s.get("reward") is not None]
    return sum(rewards) / len(rewards) if rewards else float("nan")


def run_seconds(steps: Sequence[Mapping[str, Any]], num_steps: int) -> float:
    """What a run's steps took; those that were not logged count as the mean of the others."""
    seconds = [float(step["seconds"]) for step in steps]
    return sum(seconds) / len(seconds) * num_steps if seconds else float("nan")


if __name__ == "__main__":
    sys.exit(main())
