"""The UViM configs of configs/paper against the paper's tables 5 and 7, cell by cell."""

from __future__ import annotations

import pytest

from learner.config import AdafactorConfig
from rewardtune.config.run_config import RunConfig
from rewardtune.records import View, Window
from rewardtune.stage_one.config import load_stage_one_config
from rewardtune.tasks.colorization.task import ColorizationOptions
from rewardtune.tasks.options import read_options
from rewardtune.tasks.panoptic.task import PanopticOptions
from tests.rewardtune.config.paper_configs import (
    PAPER,
    VIT_L16,
    Row,
    check_adafactor,
    check_algorithm_2,
    check_row,
    load,
)

TASKS = ("panoptic", "colorization")

TABLES = {
    "panoptic": Row(  # table 5
        sizes=VIT_L16,
        decoder_depth=24,
        batch=128,
        steps=30_000,
        warmup=4_000,
        learning_rate=1e-6,
        num_samples=2,
    ),
    "colorization": Row(  # table 7
        sizes=VIT_L16,
        decoder_depth=24,
        batch=512,
        steps=1_000,
        warmup=0,
        learning_rate=3e-7,
        num_samples=2,
    ),
}


def optimizer(config: RunConfig) -> AdafactorConfig:
    assert isinstance(config.learner.optimizer, AdafactorConfig)
    return config.learner.optimizer


@pytest.mark.parametrize("task", TASKS)
def test_every_cell_of_tables_5_and_7_stands_in_its_config(task: str) -> None:
    config = load(f"{task}_tune")
    assert config.task == task
    check_row(config, TABLES[task])


@pytest.mark.parametrize("task", TASKS)
def test_tuning_is_algorithm_2_to_the_letter(task: str) -> None:
    check_algorithm_2(load(f"{task}_tune"))


@pytest.mark.parametrize("name", [f"{task}_{kind}" for task in TASKS for kind in ("mle", "tune")])
def test_the_optimizer_is_uvims(name: str) -> None:
    adafactor = check_adafactor(load(name), beta2_cap=0.95)
    if name.endswith("_tune"):
        assert adafactor.weight_decay == 0.0 and adafactor.learning_rate_multipliers == ()


@pytest.mark.parametrize(
    ("task", "num_examples", "epochs"),
    [("panoptic", 114_191, 200), ("colorization", 1_277_071, 50)],
)
def test_likelihood_training_is_as_published(task: str, num_examples: int, epochs: int) -> None:
    row = Row(
        sizes=VIT_L16,
        decoder_depth=24,
        batch=512,
        steps=round(num_examples * epochs / 512),
        warmup=4_000,
        learning_rate=1e-3,
        weight_decay=1e-6,
        num_samples=None,
    )
    check_row(load(f"{task}_mle"), row)


def test_the_encoder_of_a_likelihood_run_learns_at_a_tenth_of_the_rate() -> None:
    import torch

    from learner.optimizer import Optimizer
    from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

    sizes = {"input_size": 16, "patch_size": 8, "width": 8, "num_heads": 2, "mlp_width": 8}
    depths = {"encoder_depth": 1, "decoder_depth": 1, "vocab_size": 3, "sequence_length": 2}
    policy = EncoderDecoder(EncoderDecoderConfig.model_validate({**sizes, **depths}))
    config = optimizer(load("panoptic_mle")).model_copy(update={"weight_decay": 0.0})
    slow = config.model_copy(update={"learning_rate": 1e-4, "learning_rate_multipliers": ()})
    start = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    moved: list[dict[str, torch.Tensor]] = []
    for settings in (config, slow):
        policy.load_state_dict(start)
        made = Optimizer(dict(policy.named_parameters()), settings)
        torch.manual_seed(0)
        for parameter in policy.parameters():
            parameter.grad = torch.randn_like(parameter)
        made.step(1.0)
        moved.append({n: p.detach() - start[n] for n, p in policy.named_parameters()})
    for name in start:
        is_encoder = not name.startswith("decoder.")
        is_slow = torch.allclose(moved[0][name], moved[1][name], rtol=1e-2, atol=1e-6)
        assert is_slow == is_encoder, name


@pytest.mark.parametrize(
    ("task", "num_examples", "epochs"),
    [("panoptic", 114_191, 1000), ("colorization", 1_277_071, 100)],
)
def test_stage_one_is_as_published(task: str, num_examples: int, epochs: int) -> None:
    config = load_stage_one_config(PAPER / f"{task}_stage_one.toml")
    sizes = config.network.sizes(config.task, 133)
    assert (sizes.input_size, sizes.patch_size, sizes.width, sizes.num_heads) == (512, 16, 768, 12)
    assert (sizes.mlp_width, sizes.encoder_depth, sizes.decoder_depth) == (3072, 6, 12)
    assert (sizes.code_length, sizes.dict_size, sizes.codeword_width) == (256, 4096, 768)
    assert sizes.bottleneck == "resize"
    outputs = {"panoptic": {"semantics": 134, "instances": 100}, "colorization": {"color": 3}}
    assert sizes.outputs == outputs[task]
    training = config.training
    assert training.batch_size == 1024
    assert training.num_steps == round(num_examples * epochs / 1024)
    assert (training.schedule.decay, training.schedule.warmup) == ("cosine", 4_000)
    adafactor = training.optimizer
    assert isinstance(adafactor, AdafactorConfig)
    assert (adafactor.learning_rate, adafactor.weight_decay) == (4e-4, 4e-5)
    assert (adafactor.grad_clip_norm, adafactor.beta2_cap) == (1.0, 0.95)
    assert (training.commitment_weight, training.dictionary_momentum) == (0.0, 0.995)
    assert (training.min_count, training.code_dropout) == (0.1, "random")


@pytest.mark.parametrize(
    ("task", "num_values"), [("panoptic", 226_743_808), ("colorization", 135_851_008)]
)
def test_a_full_size_stage_one_has_as_many_values_as_the_published(
    task: str, num_values: int
) -> None:
    import torch

    from rewardtune.tasks.uvim.stage_one import StageOne

    config = load_stage_one_config(PAPER / f"{task}_stage_one.toml")
    with torch.device("meta"):
        network = StageOne(config.network.sizes(config.task, 133))
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == num_values


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["stage_one", "mle", "tune"])
def test_all_runs_see_flipped_inception_crops_squeezed_into_the_input(task: str, kind: str) -> None:
    path = PAPER / f"{task}_{kind}.toml"
    config = load_stage_one_config(path) if kind == "stage_one" else load(f"{task}_{kind}")
    views = config.data.views
    assert (views.flip_probability, views.keep_aspect) == (0.5, False)
    assert views.min_crop_area == 0.05
    assert (views.min_crop_aspect, views.max_crop_aspect) == (0.75, 1.33)
    assert views.whole == View(window=Window())


def test_the_rewards_are_the_papers() -> None:
    panoptic = read_options(PanopticOptions, load("panoptic_tune").task_options, task="panoptic")
    assert (panoptic.false_positive_weight, panoptic.min_fraction) == (0.3, 0.0)
    colours = read_options(
        ColorizationOptions, load("colorization_tune").task_options, task="colorization"
    )
    assert (colours.vivid_rule, colours.hue_range) == ("chroma", "full")
    for options in (panoptic, colours):
        assert options.decode_batch == 2


@pytest.mark.parametrize("task", TASKS)
def test_all_runs_of_a_task_speak_the_same_codes(task: str) -> None:
    codecs = {str(load(f"{task}_{kind}").task_options["stage_one"]) for kind in ("mle", "tune")}
    assert codecs == {f"checkpoints/{task}_stage_one.safetensors"}
