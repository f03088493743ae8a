"""The embedded captioning runs: their configs, and the vocabulary that ships with them."""

from __future__ import annotations

from pathlib import Path

from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.digits.captions import BACKGROUNDS, COLOURS, OPENINGS
from rewardtune.datasets.digits.scenes import DIGIT_NAMES
from rewardtune.tasks.captioning.codec import CaptionCodec
from rewardtune.tasks.captioning.config import read_config
from rewardtune.tasks.captioning.vocabulary import load_vocabulary

ROOT = Path(__file__).resolve().parents[3]


def load(name: str) -> RunConfig:
    return load_config(ROOT / "configs" / f"{name}.toml")


def test_tuning_has_seven_baseline_samples_and_starts_where_likelihood_ends() -> None:
    first, second = load("digits_captioning_mle"), load("digits_captioning_cider")
    assert (first.mode, second.mode) == ("pretrain", "tune")
    assert second.sampler.num_samples == 8 and second.learner.baseline
    assert second.sampler.temperature == 1.0
    assert second.policy.checkpoint is not None
    assert second.policy.checkpoint.name == f"{first.run_name}.safetensors"
    for key in ("vocabulary", "max_tokens"):
        assert first.task_options[key] == second.task_options[key]
    assert read_config(second.task_options).scores_end
    assert first.data.views.flip_probability == second.data.views.flip_probability == 0.0


def test_the_shipped_vocabulary_spells_what_the_grammar_says() -> None:
    options = read_config(load("digits_captioning_mle").task_options)
    codec = CaptionCodec(load_vocabulary(ROOT / options.vocabulary), options.max_tokens)
    listed = ", ".join(f"a {colour} {name}" for colour, name in zip(COLOURS, DIGIT_NAMES))  # noqa: B905
    sentences = [
        *(f"{opening}two sixes and an eight" for opening in OPENINGS),
        *(f"a {colour} nine, the largest of them {colour}" for colour in COLOURS),
        "three digits, two turquoise fours and a red one",
        "a single digit, a white one",
        f"a red two in front of {', '.join(BACKGROUNDS.values())}",
        "a violet three to the left of a white zero",
        *(part for part in listed.split(", ")),
    ]
    for sentence in sentences:
        encoded = codec.encode(sentence)
        assert encoded.num_dropped == 0
        assert codec.decode(encoded.tokens_T) == sentence
