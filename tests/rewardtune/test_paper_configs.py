"""The configs of configs/paper against the paper's table 6, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from learner.config import AdafactorConfig
from rewardtune.config import RunConfig
from rewardtune.config_file import load_config
from tasks.detection.config import DetectionConfig, read_config

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"

VIT_B16 = {"patch_size": 16, "width": 768, "num_heads": 12, "mlp_width": 3072, "encoder_depth": 12}


@dataclass(frozen=True)
class Row:
    """One run of the table. N counts all samples of an image, the baseline's included."""

    resolution: int
    batch: int
    steps: int
    warmup: int
    schedule: str
    learning_rate: float
    weight_decay: float
    num_samples: int | None
    decoder_depth: int = 6
    num_tokens: int = 600


TABLE_6 = {
    "detection_objects365_mle": Row(640, 256, 400_000, 20_000, "cosine", 1e-3, 5e-5, None),
    "detection_coco_mle": Row(1280, 256, 10_000, 1_000, "cosine", 1e-4, 0.0, None),
    "detection_coco_recall": Row(1280, 256, 100_000, 1_000, "constant", 1e-6, 0.0, 2),
    "detection_coco_map": Row(1280, 256, 100_000, 1_000, "constant", 1e-6, 0.0, 2),
}


def load(name: str) -> RunConfig:
    return load_config(PAPER / f"{name}.toml")


def detection(config: RunConfig) -> DetectionConfig:
    assert config.task == "detection"
    return read_config(config.task_options)


@pytest.mark.parametrize("name", TABLE_6)
def test_every_cell_of_table_6_stands_in_its_config(name: str) -> None:
    row, config = TABLE_6[name], load(name)
    assert config.mode == ("pretrain" if row.num_samples is None else "tune")
    assert {key: getattr(config.policy, key) for key in VIT_B16} == VIT_B16
    assert config.policy.decoder_depth == row.decoder_depth
    assert config.policy.input_size == row.resolution
    assert 6 * detection(config).max_boxes == row.num_tokens
    assert config.learner.batch_size == row.batch
    assert config.learner.num_steps == row.steps
    assert config.learner.schedule.warmup == row.warmup
    assert config.learner.schedule.decay == row.schedule
    assert config.learner.optimizer.learning_rate == row.learning_rate
    assert config.learner.optimizer.weight_decay == row.weight_decay
    if row.num_samples is not None:
        assert config.sampler.num_samples == row.num_samples


@pytest.mark.parametrize("name", TABLE_6)
def test_what_the_table_leaves_open_is_as_the_published_code_has_it(name: str) -> None:
    config = load(name)
    optimizer = config.learner.optimizer
    assert isinstance(optimizer, AdafactorConfig)
    assert (optimizer.momentum, optimizer.momentum_dtype) == (0.9, "bfloat16")
    assert optimizer.beta2_cap == 0.999
    assert optimizer.grad_clip_norm is None
    assert optimizer.clipping_threshold is None
    assert optimizer.learning_rate_multipliers == ()
    # Kernels only decay: no biases, norms or embeddings.
    assert optimizer.weight_decay_multipliers == ((".*/kernel", 1.0),)
    assert config.data.views.flip_probability == 0.5
    jitter = (0.3, 1.0) if config.mode == "pretrain" else (1.0, 1.0)
    assert (config.data.views.min_scale, config.data.views.max_scale) == jitter


@pytest.mark.parametrize("name", ["detection_coco_recall", "detection_coco_map"])
def test_tuning_is_algorithm_2_to_the_letter(name: str) -> None:
    config = load(name)
    assert config.depth == 0
    assert not config.weighs_importance
    assert config.learner.estimator == "first"
    assert config.learner.baseline
    assert config.learner.reward_weight == 1.0
    assert (config.sampler.temperature, config.sampler.top_k, config.sampler.top_p) == (
        1,
        None,
        None,
    )
    assert config.evaluation.decoding == "greedy"


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
