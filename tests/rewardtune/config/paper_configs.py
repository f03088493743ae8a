"""What the tests of configs/paper share: the configs, a row of a table, and Algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from learner.config import AdafactorConfig
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import RunConfig

PAPER = Path(__file__).resolve().parents[3] / "configs" / "paper"

VIT_B16 = {"patch_size": 16, "width": 768, "num_heads": 12, "mlp_width": 3072, "encoder_depth": 12}
VIT_L16 = {"patch_size": 16, "width": 1024, "num_heads": 16, "mlp_width": 4096, "encoder_depth": 24}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of a table. N counts all samples of an image, the baseline's included."""

    sizes: Mapping[str, int]
    steps: int
    learning_rate: float
    num_samples: int | None
    """None: maximum likelihood."""
    resolution: int = 512
    decoder_depth: int = 6
    batch: int = 256
    warmup: int = 1_000
    weight_decay: float = 0.0

    @property
    def schedule(self) -> str:
        return "cosine" if self.num_samples is None else "constant"


def load(name: str) -> RunConfig:
    return load_config(PAPER / f"{name}.toml")


def check_row(config: RunConfig, row: Row) -> None:
    """Every cell of the row stands in the config."""
    assert config.mode == ("pretrain" if row.num_samples is None else "tune")
    assert {key: getattr(config.policy, key) for key in row.sizes} == row.sizes
    assert config.policy.decoder_depth == row.decoder_depth
    assert config.policy.input_size == row.resolution
    assert config.learner.batch_size == row.batch
    assert config.learner.num_steps == row.steps
    assert config.learner.schedule.warmup == row.warmup
    assert config.learner.schedule.decay == row.schedule
    assert config.learner.optimizer.learning_rate == row.learning_rate
    assert config.learner.optimizer.weight_decay == row.weight_decay
    if row.num_samples is not None:
        assert config.sampler.num_samples == row.num_samples


def check_adafactor(config: RunConfig, *, beta2_cap: float) -> AdafactorConfig:
    """What the tables leave open about the optimizer is as the published code has it."""
    optimizer = config.learner.optimizer
    assert isinstance(optimizer, AdafactorConfig)
    assert (optimizer.momentum, optimizer.momentum_dtype) == (0.9, "bfloat16")
    assert optimizer.beta2_cap == beta2_cap
    assert optimizer.grad_clip_norm is None
    assert optimizer.clipping_threshold is None
    # Kernels only decay: no biases, norms or embeddings.
    assert optimizer.weight_decay_multipliers == ((".*/kernel", 1.0),)
    return optimizer


def check_algorithm_2(config: RunConfig) -> None:
    """Tuning is the paper's, to the letter."""
    assert config.depth == 0
    assert not config.weighs_importance
    assert config.learner.estimator == "first"
    assert config.learner.baseline
    assert config.learner.reward_weight == 1.0
    sampler = config.sampler
    assert (sampler.temperature, sampler.top_k, sampler.top_p) == (1, None, None)
    assert config.evaluation.decoding == "greedy"
