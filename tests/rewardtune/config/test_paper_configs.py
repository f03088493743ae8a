"""The configs of configs/paper against the paper's table 6, cell by cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.config.run_config import RunConfig
from rewardtune.tasks.detection.config import DetectionConfig, read_config
from tests.rewardtune.config.paper_configs import (
    PAPER,
    VIT_B16,
    Row,
    check_adafactor,
    check_algorithm_2,
    check_row,
    load,
)

NUM_TOKENS = 600

TABLE_6 = {
    "detection_objects365_mle": Row(
        sizes=VIT_B16,
        resolution=640,
        steps=400_000,
        warmup=20_000,
        learning_rate=1e-3,
        weight_decay=5e-5,
        num_samples=None,
    ),
    "detection_coco_mle": Row(
        sizes=VIT_B16, resolution=1280, steps=10_000, learning_rate=1e-4, num_samples=None
    ),
    "detection_coco_recall": Row(
        sizes=VIT_B16, resolution=1280, steps=100_000, learning_rate=1e-6, num_samples=2
    ),
    "detection_coco_map": Row(
        sizes=VIT_B16, resolution=1280, steps=100_000, learning_rate=1e-6, num_samples=2
    ),
}


def detection(config: RunConfig) -> DetectionConfig:
    assert config.task == "detection"
    return read_config(config.task_options)


@pytest.mark.parametrize("name", TABLE_6)
def test_every_cell_of_table_6_stands_in_its_config(name: str) -> None:
    config = load(name)
    check_row(config, TABLE_6[name])
    assert 6 * detection(config).max_boxes == NUM_TOKENS


@pytest.mark.parametrize("name", TABLE_6)
def test_what_the_table_leaves_open_is_as_the_published_code_has_it(name: str) -> None:
    config = load(name)
    optimizer = check_adafactor(config, beta2_cap=0.999)
    assert optimizer.learning_rate_multipliers == ()
    assert config.data.views.flip_probability == 0.5
    jitter = (0.3, 1.0) if config.mode == "pretrain" else (1.0, 1.0)
    assert (config.data.views.min_scale, config.data.views.max_scale) == jitter


@pytest.mark.parametrize("name", ["detection_coco_recall", "detection_coco_map"])
def test_tuning_is_algorithm_2_to_the_letter(name: str) -> None:
    check_algorithm_2(load(name))


def test_the_rewards_are_the_papers() -> None:
    recall, mean_ap = (
        detection(load("detection_coco_recall")),
        detection(load("detection_coco_map")),
    )
    assert recall.reward == "recall"
    assert recall.iou_thresholds == (0.5,)
    assert (recall.duplicate_penalty, recall.confidence_weight) == (0.3, 0.0)
    assert mean_ap.reward == "map"
    assert mean_ap.iou_thresholds == pytest.approx([0.5 + 0.05 * i for i in range(10)])
    assert (mean_ap.duplicate_penalty, mean_ap.confidence_weight) == (0.3, 0.3)
    assert mean_ap.aggregate == "mean"
    assert load("detection_coco_recall").evaluation.score_rule == "class"
    assert load("detection_coco_map").evaluation.score_rule == "p2"


def test_each_run_starts_from_the_one_before() -> None:
    first, second = load("detection_objects365_mle"), load("detection_coco_mle")
    assert second.policy.checkpoint is not None
    assert second.policy.checkpoint.parent == first.operations.directory
    for name in ("detection_coco_recall", "detection_coco_map"):
        checkpoint = load(name).policy.checkpoint
        assert checkpoint is not None
        assert checkpoint.parent == second.operations.directory


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_says_command_hardware_and_results(path: Path) -> None:
    lines = path.read_text().splitlines()
    opening = [line for line in lines[: lines.index("")] if line.startswith("#")]
    for field in ("command", "hardware", "expected", "reached"):
        assert sum(line.startswith(f"# {field}:") for line in opening) == 1
    assert f"configs/paper/{path.name}" in "".join(opening)
