"""Captioning from data to a tuned policy, with every kind of policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewardtune.cli.app import app
from rewardtune.config.config_file import parse_config
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.policies.hugging_face.config import quietly
from rewardtune.run.local import pretrain, tune
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.captioning.vocabulary import (
    load_vocabulary,
    train_vocabulary,
    write_vocabulary,
)
from tests.rewardtune.policies.hugging_face_models import save_model, tiny_model
from tests.rewardtune.tiny_run import SILENT, SIZES, merged, weight_digest, write_tiny_digits

pytestmark = pytest.mark.slow

KINDS = ("encoder_decoder", "parallel", "hugging_face")
MAX_TOKENS = 16


@dataclass(frozen=True)
class Given:
    """What a user brings: data, document frequencies, and a model with its tokenizer."""

    data: Path
    model: Path
    options: dict[str, Any]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("captions")
    data = write_tiny_digits(folder / "digits")
    train = open_dataset(data / "train")
    captions = [train.example(index).captions for index in range(len(train))]
    frequencies = folder / "frequencies.arrow"
    DocumentFrequencies.of_words([[ptb_words(c) for c in each] for each in captions]).write(
        frequencies
    )
    pieces = train_vocabulary([c for each in captions for c in each], size=120)
    with quietly():
        model = tiny_model("vit_bert", vocab_size=len(pieces))
        model.config.eos_token_id = model.generation_config.eos_token_id = pieces.index("[SEP]")
        save_model(model, folder / "model", pieces=tuple(pieces))
    return Given(
        data=data,
        model=folder / "model",
        options={
            "vocabulary": str(folder / "model" / "vocab.txt"),
            "document_frequencies": str(frequencies),
            "max_tokens": MAX_TOKENS,
        },
    )


def config(given: Given, directory: Path, **changes: Any) -> RunConfig:
    """A pretraining run; ``changes`` are sections or top-level keys, merged one level deep."""
    values: dict[str, Any] = {
        "task": "captioning",
        "mode": "pretrain",
        "seed": 5,
        "task_options": given.options,
        "data": {"train": str(given.data / "train")},
        "policy": SIZES,
        "learner": {
            "batch_size": 8,
            "num_steps": 6,
            "micro_batch": 4,
            "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
        },
        "compute": {"threads": 1, "device": "cpu"},
        "operations": {"directory": str(directory), "checkpoint_every": 2, "progress": False},
    }
    values = merged(values, changes)
    values["policy"] = {key: v for key, v in values["policy"].items() if v is not None}
    return parse_config(values, source="test")


def tuning(given: Given, checkpoint: Path, directory: Path, **changes: Any) -> RunConfig:
    sections: dict[str, Any] = {
        "mode": "tune",
        "policy": {**dict.fromkeys(SIZES), "checkpoint": str(checkpoint)},
        "sampler": {"num_samples": 4, "micro_batch": 4},
        "learner": {"estimator": "leave_one_out", "num_steps": 4},
    }
    return config(given, directory, **merged(sections, changes))


@pytest.fixture(scope="module")
def started(given: Given, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What tuning starts from: policies after some maximum likelihood, and the user's folder."""
    policies = {"hugging_face": given.model}
    for kind in ("encoder_decoder", "parallel"):
        directory = tmp_path_factory.mktemp(kind)
        policies[kind] = pretrain(
            config(given, directory, policy={"kind": kind}), SILENT
        ).policy_path
    return policies


class _Recorder:
    def __init__(self, *, dies_at: int | None = None) -> None:
        self.steps: list[dict[str, float]] = []
        self._dies_at = dies_at

    def step(self, record: Mapping[str, float]) -> None:
        self.steps.append(dict(record))
        if record["step"] == self._dies_at:
            raise _PulledPlug

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...


class _PulledPlug(Exception):
    """The process dies here: between a step and its checkpoint."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_died_ends_with_the_same_weights(
    given: Given, started: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    whole = _Recorder()
    undisturbed = tune(tuning(given, started[kind], tmp_path / "whole"), whole)
    interrupted = tuning(given, started[kind], tmp_path / "died")
    with pytest.raises(_PulledPlug):
        tune(interrupted, _Recorder(dies_at=3))
    resumed = _Recorder()
    result = tune(interrupted, resumed)
    assert [record["step"] for record in resumed.steps] == [3, 4]
    last = "policy.safetensors"
    assert weight_digest(result.directory / last) == weight_digest(undisturbed.directory / last)
    watched = ("words", "ends_in_function_word", "repeated_ngrams", "at_cap")
    for record in whole.steps:
        assert all(f"reward_{name}" in record for name in watched)
    assert whole.steps[0]["log_prob_gap"] < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_learns_from_its_reward(
    given: Given, started: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Rewarded for short sentences, captioners learn to stop."""
    log = _Recorder()
    run = tuning(
        given,
        started[kind],
        tmp_path,
        task="tests.rewardtune.short_captions",
        depth=0,
        sampler={"num_samples": 8, "micro_batch": 8},
        learner={"num_steps": 25, "optimizer": {"kind": "adamw", "learning_rate": 5e-3}},
    )
    tune(run, log)
    rewards = [record["reward"] for record in log.steps]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 1.0


def test_maximum_likelihood_trains_a_hugging_face_model_too(given: Given, tmp_path: Path) -> None:
    log = _Recorder()
    policy = {**dict.fromkeys(SIZES), "checkpoint": str(given.model)}
    pretrain(config(given, tmp_path, policy=policy, learner={"num_steps": 12}), log)
    assert log.steps[-1]["loss"] < log.steps[0]["loss"] - 0.5


def test_a_tuned_hugging_face_model_is_exported(given: Given, tmp_path: Path) -> None:
    run = tune(tuning(given, given.model, tmp_path / "run"), SILENT)
    arguments = ["export", str(run.directory), "--output", str(tmp_path / "tuned")]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    from transformers import BertTokenizer, VisionEncoderDecoderModel

    with quietly():
        before: Any = VisionEncoderDecoderModel.from_pretrained(given.model)
        after: Any = VisionEncoderDecoderModel.from_pretrained(tmp_path / "tuned")
    name = "decoder.bert.encoder.layer.0.attention.self.query.weight"
    assert not (before.get_parameter(name) == after.get_parameter(name)).all()
    vocabulary = load_vocabulary(tmp_path / "tuned")
    assert len(BertTokenizer.from_pretrained(tmp_path / "tuned")) == vocabulary.size


def test_only_policies_of_another_library_are_exported(
    given: Given, started: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ["export", str(started["parallel"]), "--output", str(tmp_path / "tuned")]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code != 0
    assert "policies of kind 'parallel' have no form but the policy file" in told.output


def test_a_tokenizer_that_does_not_match_the_model_is_refused(given: Given, tmp_path: Path) -> None:
    pieces = (given.model / "vocab.txt").read_text().splitlines()
    write_vocabulary(pieces[:-1], tmp_path / "vocab.txt")
    options = {**given.options, "vocabulary": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"has 120 tokens but the task's vocabulary 119: set"):
        tune(tuning(given, given.model, tmp_path / "run", task_options=options), SILENT)

    write_vocabulary([*pieces[:-2], pieces[-1], pieces[-2]], tmp_path / "vocab.txt")
    with pytest.raises(ConfigError, match="of other pieces than the model's own tokenizer"):
        tune(tuning(given, given.model, tmp_path / "run", task_options=options), SILENT)


def test_another_stop_token_than_the_model_s_is_refused(given: Given, tmp_path: Path) -> None:
    options = {**given.options, "stop": "[MASK]"}
    with pytest.raises(ConfigError, match=r"ends a sequence with token 3 but the task with 4"):
        tune(tuning(given, given.model, tmp_path, task_options=options), SILENT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": {"dtype": "bfloat16"}}, "are sampled in float32"),
        (
            {"policy": {"kind": "parallel"}},
            "kind 'parallel' are read from policy files",
        ),
        ({"policy": {"input_size": 64}}, "policy.input_size = 64 but .* has 32"),
        ({"policy": {"width": 64}}, "policy.width = 64 but"),
        ({"policy": {"readout_every": 6}}, "needs a policy of kind 'encoder_decoder'"),
        ({"policy": {"readout": True}}, "task 'captioning' has nothing to read out: leave the key"),
    ],
)
def test_settings_that_a_hugging_face_model_cannot_follow_are_refused(
    given: Given, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tune(tuning(given, given.model, tmp_path, **changes), SILENT)


def test_the_encoder_of_another_policy_starts_a_captioner(
    given: Given, started: dict[str, Path], tmp_path: Path
) -> None:
    from rewardtune.policies.policy_file import load_policy

    source = started["encoder_decoder"]
    optimizer = {"kind": "adamw", "learning_rate": 1e-3, "frozen": ["encoder/.*"]}
    start = config(
        given,
        tmp_path,
        policy={"encoder": str(source)},
        learner={"num_steps": 1, "optimizer": optimizer},
    )
    result = pretrain(start, SILENT)
    found = load_policy(result.policy_path).policy.tensors()
    expected = load_policy(source).policy.tensors()
    encoder = [name for name in expected if name.startswith("encoder.")]
    assert encoder and all((found[name] == expected[name]).all() for name in encoder)
    assert not (found["decoder.token_embedding"] == expected["decoder.token_embedding"]).all()


def test_an_encoder_of_another_size_is_refused(
    given: Given, started: dict[str, Path], tmp_path: Path
) -> None:
    sizes = {"encoder": str(started["encoder_decoder"]), "width": 64}
    with pytest.raises(ConfigError, match=r"policy.encoder = .* does not fit: .* should be"):
        pretrain(config(given, tmp_path, policy=sizes), SILENT)
