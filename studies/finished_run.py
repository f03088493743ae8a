"""A run of a config from beginning to end, in this process, unless it is there already."""

from __future__ import annotations

import contextlib

from rewardtune.config.run_config import RunConfig
from rewardtune.run.local import pretrain, tune
from rewardtune.run.log import open_run_log
from rewardtune.run.result import RunResult


def finished_run(config: RunConfig) -> RunResult:
    """Tune or pretrain as the config says, and go on where an earlier start stopped.

    Raises:
        SystemExit: a signal stopped it: what there is must not be measured as if it were whole.
    """
    start = tune if config.mode == "tune" else pretrain
    with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
        result = start(config, log)
    if not result.is_finished:
        raise SystemExit(f"{result.directory} was stopped; the same command goes on")
    return result
