"""The captioning configs of configs/paper against the paper's table 8, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from learner.config import AdafactorConfig
from learner.optimizer import Optimizer
from policies.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.config import RunConfig
from rewardtune.config_file import load_config
from tasks.captioning.config import CaptioningConfig, read_config

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"

B16 = {"patch_size": 16, "width": 768, "num_heads": 12, "mlp_width": 3072, "encoder_depth": 12}
L16 = {"patch_size": 16, "width": 1024, "num_heads": 16, "mlp_width": 4096, "encoder_depth": 24}


@dataclass(frozen=True)
class Row:
    """One run of the table. N counts all samples of an image, the baseline's included."""

    sizes: dict[str, int]
    steps: int
    schedule: str
    learning_rate: float
    encoder_learning_rate: float
    weight_decay: float
    num_samples: int | None
    resolution: int = 512
    batch: int = 256
    warmup: int = 1_000
    decoder_depth: int = 6
    num_tokens: int = 128


TABLE_8 = {
    "captioning_vit_b_mle": Row(B16, 5_000, "cosine", 3e-4, 3e-5, 5e-6, None),
    "captioning_vit_l_mle": Row(L16, 5_000, "cosine", 3e-4, 3e-5, 5e-6, None),
    "captioning_vit_b_cider": Row(B16, 10_000, "constant", 1e-5, 1e-6, 0.0, 8),
    "captioning_vit_l_cider": Row(L16, 10_000, "constant", 1e-5, 1e-6, 0.0, 8),
}
TUNING = [name for name, row in TABLE_8.items() if row.num_samples]


def load(name: str) -> RunConfig:
    return load_config(PAPER / f"{name}.toml")


def captioning(config: RunConfig) -> CaptioningConfig:
    assert config.task == "captioning"
    return read_config(config.task_options)


def test_every_captioning_config_is_a_row_of_the_table() -> None:
    assert {path.stem for path in PAPER.glob("captioning*.toml")} == TABLE_8.keys()


@pytest.mark.parametrize("name", TABLE_8)
def test_every_cell_of_table_8_stands_in_its_config(name: str) -> None:
    row, config = TABLE_8[name], load(name)
    assert config.mode == ("pretrain" if row.num_samples is None else "tune")
    assert {key: getattr(config.policy, key) for key in row.sizes} == row.sizes
    assert config.policy.decoder_depth == row.decoder_depth
    assert config.policy.input_size == row.resolution
    assert captioning(config).max_tokens == row.num_tokens
    assert config.learner.batch_size == row.batch
    assert config.learner.num_steps == row.steps
    assert config.learner.schedule.warmup == row.warmup
    assert config.learner.schedule.decay == row.schedule
    assert config.learner.optimizer.learning_rate == row.learning_rate
    assert config.learner.optimizer.weight_decay == row.weight_decay
    if row.num_samples is not None:
        assert config.sampler.num_samples == row.num_samples


@pytest.mark.parametrize("name", TABLE_8)
def test_the_encoder_alone_learns_at_its_own_rate(name: str) -> None:
    row, config = TABLE_8[name], load(name)
    tiny = {"patch_size": 8, "width": 32, "num_heads": 2, "mlp_width": 32, "encoder_depth": 1}
    sizes = EncoderDecoderConfig(
        **tiny, input_size=16, decoder_depth=1, vocab_size=8, sequence_length=4
    )
    parameters = dict(EncoderDecoder(sizes).named_parameters())
    before = {n: p.detach().clone() for n, p in parameters.items()}
    optimizer = Optimizer(
        parameters, config.learner.optimizer.model_copy(update={"weight_decay": 0.0})
    )
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step(1.0)
    for parameter_name, parameter in parameters.items():
        is_decoder = parameter_name.startswith("decoder.")
        rate = row.learning_rate if is_decoder else row.encoder_learning_rate
        # The first step of Adafactor is 1, and a tenth of it is the momentum's.
        moved = (before[parameter_name] - parameter.detach()).abs().mean()
        assert float(moved) == pytest.approx(0.1 * rate, rel=0.2), parameter_name


@pytest.mark.parametrize("name", TABLE_8)
def test_what_the_table_leaves_open_is_as_the_published_code_has_it(name: str) -> None:
    config = load(name)
    optimizer = config.learner.optimizer
    assert isinstance(optimizer, AdafactorConfig)
    assert (optimizer.momentum, optimizer.momentum_dtype) == (0.9, "bfloat16")
    assert optimizer.beta2_cap == 0.999
    assert optimizer.grad_clip_norm is None
    assert optimizer.clipping_threshold is None
    assert optimizer.weight_decay_multipliers == ((".*/kernel", 1.0),)
    views = config.data.views
    # Captions tell left from right.
    assert (views.flip_probability, views.min_scale, views.max_scale) == (0.0, 1.0, 1.0)
    options = captioning(config)
    assert (options.end, options.scored_as, options.scores_end) == ("sep", "words", False)


@pytest.mark.parametrize("name", TUNING)
def test_tuning_is_algorithm_2_to_the_letter(name: str) -> None:
    config = load(name)
    assert config.depth == 0
    assert not config.weighs_importance
    assert config.learner.estimator == "first"
    assert config.learner.baseline
    sampler = config.sampler
    assert (sampler.temperature, sampler.top_k, sampler.top_p) == (1, None, None)
    assert config.evaluation.decoding == "greedy"


@pytest.mark.parametrize("name", TUNING)
def test_each_run_starts_from_the_one_before(name: str) -> None:
    first, second = load(name.replace("cider", "mle")), load(name)
    assert second.policy.checkpoint is not None
    assert second.policy.checkpoint.parent == first.operations.directory
    assert first.policy.encoder is not None and first.policy.encoder.suffix == ".npz"
    assert first.task_options["vocabulary"] == second.task_options["vocabulary"]
