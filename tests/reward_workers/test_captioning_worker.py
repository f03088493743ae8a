"""A captioning reward worker is made of the base dependencies and the tokenizers library."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from reward_workers.scoring.score import score_group
from rewardtune.datasets.frame import Framed, Square
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.records import Group, Published, View
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.captioning.vocabulary import train_vocabulary, write_vocabulary
from rewardtune.tasks.task import Task, load_task
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from rewardtune.transport.wire import group_to_bytes
from tests.reward_workers.scoring_run import eventually, open_term, results, spec_of
from tests.rewardtune.tiny_run import write_tiny_digits
from tests.rewardtune.transport.redis_server import redis_binaries, running

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INPUT_SIZE = 32

# Runs in every process before anything else: what a machine without these packages would say.
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
EXTRAS = ["torch", "transformers", "ray", "safetensors", "tensorboard", "matplotlib", "sklearn"]


def test_the_extra_is_the_tokenizers_library_alone() -> None:
    (needed,) = PROJECT["optional-dependencies"]["captioning"]
    assert needed.startswith("tokenizers>=")


def test_captions_are_scored_where_there_is_neither_torch_nor_transformers(tmp_path: Path) -> None:
    data, options = captions(tmp_path)
    dataset = open_dataset(data)
    task = load_task("captioning", options, categories=dataset.categories)
    groups = [group_of(task, dataset, ordinal) for ordinal in range(3)]
    expected = {
        group.ordinal: score_group(
            group, task=task, dataset=dataset, framing=Square(side=INPUT_SIZE)
        ).score.reward_S.tolist()
        for group in groups
    }
    assert any(reward > 0 for rewards in expected.values() for reward in rewards)
    with running(redis_binaries()["redis-6.2"], tmp_path) as server:
        queue = RedisJobQueue.connect(server.url, run="test")
        open_term(queue, spec_of(data, "captioning", options, input_size=INPUT_SIZE))
        for group in groups:
            queue.put(0, group.ordinal, group_to_bytes(group))
        with worker(tmp_path, server.url, data, without=EXTRAS) as process:
            eventually(lambda: is_done(queue, process), "three groups scored")
            assert results(queue, range(3)) == expected
        queue.close()


def test_a_worker_without_the_tokenizers_library_says_what_to_install(tmp_path: Path) -> None:
    """So the processes above did run without what was taken from them."""
    data, options = captions(tmp_path)
    with running(redis_binaries()["redis-6.2"], tmp_path) as server:
        queue = RedisJobQueue.connect(server.url, run="test")
        open_term(queue, spec_of(data, "captioning", options, input_size=INPUT_SIZE))
        with worker(tmp_path, server.url, data, without=["tokenizers"]) as process:
            told = "pip install 'rewardtune[captioning]'"
            eventually(
                lambda: process.poll() is not None or told in (tmp_path / "log").read_text(), told
            )
            assert told in (tmp_path / "log").read_text()
        queue.close()


def captions(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Scenes with captions, and the options of the task on them."""
    data = write_tiny_digits(folder / "digits") / "train"
    dataset = open_dataset(data)
    texts = [dataset.example(index).captions for index in range(len(dataset))]
    write_vocabulary(train_vocabulary(sum(texts, ()), size=120), folder / "vocab.txt")
    DocumentFrequencies.of_words([[ptb_words(text) for text in each] for each in texts]).write(
        folder / "frequencies.arrow"
    )
    return data, {
        "vocabulary": str(folder / "vocab.txt"),
        "document_frequencies": str(folder / "frequencies.arrow"),
        "max_tokens": 32,
    }


def group_of(task: Task, dataset: ShardDataset, ordinal: int) -> Group:
    """Two of the image's own captions and one of another image's."""
    examples = [dataset.example(index) for index in (ordinal, ordinal, ordinal + 1)]
    tokens_ST = np.stack(
        [
            task.target_tokens(
                Framed.of(example, View(), Square(side=INPUT_SIZE)),
                rng=np.random.default_rng(number),
            )
            for number, example in enumerate(examples)
        ]
    )
    return Group(
        ordinal=ordinal,
        example=ordinal,
        view=View(),
        published=Published(term=0, policy_version=0),
        tokens_ST=tokens_ST,
        log_probs_ST=np.zeros(tokens_ST.shape, dtype=np.float32),
        probe_log_probs_STQ=np.zeros((*tokens_ST.shape, 0), dtype=np.float32),
    )


@contextmanager
def worker(
    folder: Path, url: str, data: Path, *, without: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """``rewardtune reward-worker``, which and whose scorers cannot import some packages."""
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WITHOUT.format(absent=without))
    command = [sys.executable, "-m", "rewardtune", "reward-worker", "--queue", url]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--run", "test", "--data", str(data)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(hooks), str(ROOT)])},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_done(queue: RedisJobQueue, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the worker ended"
    return len(queue.results(0, range(3))) == 3
