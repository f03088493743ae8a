from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rewardtune.demo.curves import curves
from rewardtune.demo.demo import NUM_CURVES
from rewardtune.demo.table import DEMOS
from rewardtune.run.log import read_run_log

LOGS = Path(__file__).resolve().parents[3] / "evidence" / "logs"
LOG_OF = {
    "detection": "digits_detection_map_seed_0",
    "panoptic": "digits_panoptic_tune_seed_0",
    "colorization": "digits_colorization_tune_seed_0",
    "captioning": "digits_captioning_cider_seed_0",
}


@pytest.mark.parametrize("task", DEMOS)
def test_every_demo_draws_the_holdout_metrics_that_its_runs_log(task: str) -> None:
    log = LOGS / task / f"{LOG_OF[task]}.jsonl"
    metrics = [*DEMOS[task].figures.values()][:NUM_CURVES]
    _, holdout, _ = curves(read_run_log(log), title="a run", metrics=metrics).axes
    drawn = {
        line.get_label(): np.asarray(line.get_ydata()).tolist() for line in holdout.get_lines()
    }
    records = [json.loads(line) for line in log.read_text().splitlines()]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert drawn == {metric: [found[metric] for found in evaluations] for metric in metrics}
