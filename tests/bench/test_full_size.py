"""That every task's full-size step runs as a toy, and takes its sizes from the paper's configs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from bench.full_size import __main__ as full_size
from bench.full_size.data import write_data, write_stage_one, write_vocabulary
from bench.full_size.step import STEPS, made_parts, tiny
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.stage_one.config import load_stage_one_config
from rewardtune.tasks.captioning.vocabulary import load_vocabulary
from rewardtune.tasks.uvim.stage_one_file import load_stage_one
from tests.rewardtune.config.paper_configs import PAPER

pytestmark = pytest.mark.slow

PAIRS = [(task, size) for task, sizes in STEPS.items() for size in sizes]
PHASES = ("publish", "sample", "score", "update")


@pytest.mark.parametrize(("task", "size"), PAIRS)
def test_the_step_of_every_task_is_measured(
    task: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "full_size.jsonl"
    full_size.main(["--tiny", "--task", task, "--size", size, "--output", str(output)])
    (record,) = (json.loads(line) for line in output.read_text().splitlines())
    config = tomllib.loads((PAPER / f"{record['config']}.toml").read_text())
    assert record["task"] == task == config["task"]
    assert record["dtype"] == config["learner"]["dtype"]
    assert record["num_samples"] == config["sampler"]["num_samples"] == len(record["rewards"])
    assert record["num_threads"] >= 1 and record["load_average"] >= 0
    for clock in ("seconds", "processor_seconds"):
        phases = [record[f"{phase}_{clock}"] for phase in PHASES]
        assert record[clock] == pytest.approx(sum(phases), abs=0.03)
    assert "update" in capsys.readouterr().out


def test_a_size_that_the_paper_has_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        full_size.main(["--tiny", "--task", "panoptic", "--size", "base"])
    assert "panoptic has large" in capsys.readouterr().err


@pytest.mark.parametrize(("task", "size"), PAIRS)
def test_only_the_batch_is_smaller_than_the_papers(task: str, size: str, tmp_path: Path) -> None:
    parts = made_parts(tiny(STEPS[task][size], task=task), tmp_path, dtype=None)
    paper = tomllib.loads((PAPER / f"{STEPS[task][size].config}.toml").read_text())
    learner = parts.config.learner
    assert (learner.batch_size, learner.micro_batch, learner.gradient_shards) == (1, 1, 1)
    assert learner.activation_checkpointing
    assert learner.estimator == paper["learner"]["estimator"]
    optimizer = learner.optimizer.model_dump(mode="json")
    assert {key: optimizer[key] for key in paper["learner"]["optimizer"]} == (
        paper["learner"]["optimizer"]
    )
    assert parts.policy.sequence_length == parts.task.vocabulary.max_tokens
    assert parts.policy.vocab_size == parts.task.vocabulary.size


def test_the_vocabulary_has_berts_size_and_ends_captions(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    write_vocabulary(path, size=30_522)
    vocabulary = load_vocabulary(path)
    assert vocabulary.size == 30_522
    assert vocabulary.has(0, "[PAD]") and vocabulary.has(102, "[SEP]")  # as in BERT's file


def test_the_picture_is_annotated_for_every_task(tmp_path: Path) -> None:
    write_data(tmp_path / "data", num_things=80, num_stuff=53, num_words=9)
    dataset = open_dataset(tmp_path / "data")
    example = dataset.example(0)
    assert len(dataset.categories) == 133
    assert sum(category.is_thing for category in dataset.categories) == 80
    assert (
        len(example.category_N) == 7
        and [len(caption.split()) for caption in example.captions] == [9] * 5
    )
    assert sum(segment.area for segment in example.segments) == example.height * example.width
    assert len({segment.category for segment in example.segments}) == len(example.segments)


def test_stage_one_is_written_whole(tmp_path: Path) -> None:
    overrides = tiny(STEPS["panoptic"]["large"], task="panoptic").stage_one_overrides
    run = load_stage_one_config(PAPER / "panoptic_stage_one.toml", overrides)
    sizes = run.network.sizes("panoptic", 133)
    write_stage_one(tmp_path / "stage_one.safetensors", sizes)
    loaded = load_stage_one(tmp_path / "stage_one.safetensors")
    assert loaded.network.config == sizes and loaded.class_names is None
