"""The captioning configs of configs/paper against the paper's table 8, cell by cell."""

from __future__ import annotations

import pytest
import torch

from learner.optimizer import Optimizer
from rewardtune.config.run_config import RunConfig
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.tasks.captioning.config import CaptioningConfig, read_config
from tests.rewardtune.config.paper_configs import (
    PAPER,
    VIT_B16,
    VIT_L16,
    Row,
    check_adafactor,
    check_algorithm_2,
    check_row,
    load,
)

NUM_TOKENS = 128

TABLE_8 = {
    "captioning_vit_b_mle": Row(
        sizes=VIT_B16, steps=5_000, learning_rate=3e-4, weight_decay=5e-6, num_samples=None
    ),
    "captioning_vit_l_mle": Row(
        sizes=VIT_L16, steps=5_000, learning_rate=3e-4, weight_decay=5e-6, num_samples=None
    ),
    "captioning_vit_b_cider": Row(sizes=VIT_B16, steps=10_000, learning_rate=1e-5, num_samples=8),
    "captioning_vit_l_cider": Row(sizes=VIT_L16, steps=10_000, learning_rate=1e-5, num_samples=8),
}
TUNING = [name for name, row in TABLE_8.items() if row.num_samples]


def captioning(config: RunConfig) -> CaptioningConfig:
    assert config.task == "captioning"
    return read_config(config.task_options)


def test_every_captioning_config_is_a_row_of_the_table() -> None:
    assert {path.stem for path in PAPER.glob("captioning*.toml")} == TABLE_8.keys()


@pytest.mark.parametrize("name", TABLE_8)
def test_every_cell_of_table_8_stands_in_its_config(name: str) -> None:
    config = load(name)
    check_row(config, TABLE_8[name])
    assert captioning(config).max_tokens == NUM_TOKENS


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
        # The table's rates of encoders, all of them.
        rate = row.learning_rate if is_decoder else row.learning_rate / 10
        # The first step of Adafactor is 1, and a tenth of it is the momentum's.
        moved = (before[parameter_name] - parameter.detach()).abs().mean()
        assert float(moved) == pytest.approx(0.1 * rate, rel=0.2), parameter_name


@pytest.mark.parametrize("name", TABLE_8)
def test_what_the_table_leaves_open_is_as_the_published_code_has_it(name: str) -> None:
    config = load(name)
    check_adafactor(config, beta2_cap=0.999)
    views = config.data.views
    # Captions tell left from right.
    assert (views.flip_probability, views.min_scale, views.max_scale) == (0.0, 1.0, 1.0)
    options = captioning(config)
    assert (options.end, options.scored_as, options.scores_end) == ("sep", "words", False)


@pytest.mark.parametrize("name", TUNING)
def test_tuning_is_algorithm_2_to_the_letter(name: str) -> None:
    check_algorithm_2(load(name))


@pytest.mark.parametrize("name", TUNING)
def test_each_run_starts_from_the_one_before(name: str) -> None:
    first, second = load(name.replace("cider", "mle")), load(name)
    assert second.policy.checkpoint is not None
    assert second.policy.checkpoint.parent == first.operations.directory
    assert first.policy.encoder is not None and first.policy.encoder.suffix == ".npz"
    assert first.task_options["vocabulary"] == second.task_options["vocabulary"]
