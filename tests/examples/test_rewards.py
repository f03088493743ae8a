"""Every example of examples/rewards tunes a tiny detector, as its file says it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from rewardtune.run.local import pretrain, tune
from tests.rewardtune.tiny_run import SILENT, tiny_config, tiny_tune, write_tiny_digits

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "rewards"


FEW = {"num_examples": 1}


class _Steps:
    """A RunLog that keeps the steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.messages: list[str] = []

    def step(self, record: Mapping[str, float]) -> None:
        self.steps.append(dict(record))

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pretrained")
    return pretrain(tiny_config(data, directory, evaluation=FEW), SILENT).policy_path


@pytest.fixture(autouse=True)
def _users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PYTHONPATH=examples/rewards does."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])


def tuned(data: Path, pretrained: Path, directory: Path, reward: Any) -> list[dict[str, float]]:
    log = _Steps()
    config = tiny_tune(
        data, pretrained, directory, reward=reward, learner={"num_steps": 2}, evaluation=FEW
    )
    assert tune(config, log).is_finished
    assert log.messages == []
    return log.steps


def reward_of(name: str) -> dict[str, Any]:
    reward: dict[str, Any] = tomllib.loads((EXAMPLES / name).read_text())["reward"]
    return reward


def test_a_plain_function(data: Path, pretrained: Path, tmp_path: Path) -> None:
    for step in tuned(data, pretrained, tmp_path, "right_count:right_count"):
        assert step["reward"] == pytest.approx(step["reward_right_count"])
        assert step["reward"] <= 0
        assert step["reward_task"] == pytest.approx(
            step["reward_match"] + step["reward_duplicate_penalty"]
        )


def test_a_composed_reward_with_a_filter(data: Path, pretrained: Path, tmp_path: Path) -> None:
    for step in tuned(data, pretrained, tmp_path, reward_of("composed.toml")):
        assert 0 <= step["reward_plausible"] <= 1
        assert 0 <= step["reward_tidy"] <= 1
        if step["reward_plausible"] == 1:
            assert step["reward"] >= step["reward_task"] + 0.2 * 0.5


def test_an_input_output_check(data: Path, pretrained: Path, tmp_path: Path) -> None:
    for step in tuned(data, pretrained, tmp_path, reward_of("known_classes.toml")):
        assert 0 <= step["reward_checked"] <= 1
        if step["reward_checked"] == 0:
            assert step["reward"] == -0.5
        if step["reward_checked"] == 1:
            assert step["reward"] == pytest.approx(step["reward_task"])


@pytest.mark.parametrize("server", ["by hand", "of a function"])
def test_a_server_in_another_process(
    data: Path, pretrained: Path, tmp_path: Path, server: str
) -> None:
    if server == "by hand":
        command = [str(EXAMPLES / "counting_server.py")]
    else:
        command = ["-m", "rewardtune", "reward-server", "right_count:right_count"]
    with process([*command, "--data", str(data / "train")]) as started:
        assert started.stdout is not None
        address = started.stdout.readline().strip()
        assert address.startswith("grpc://127.0.0.1:"), address
        for step in tuned(data, pretrained, tmp_path, address):
            assert step["reward"] == pytest.approx(step["reward_server"])
            if server == "by hand":
                assert step["reward"] <= 0


def test_people_behind_a_server_are_asked_and_believed(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    command = [str(EXAMPLES / "counting_server.py"), "--human", "--data", str(data / "train")]
    with process(command) as started:
        assert started.stdout is not None and started.stdin is not None
        address = started.stdout.readline().strip()
        answer = AnswersAll(started.stdout, started.stdin)
        answer.start()
        for step in tuned(data, pretrained, tmp_path, address):
            assert step["reward"] == 2.5
        assert answer.num_asked == 2 * 8  # a batch of eight groups, two steps


def test_a_pretrained_image_text_scorer_from_a_folder(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    model = write_tiny_clip(tmp_path / "clip")
    reward = reward_of("image_text.toml")
    reward["parts"]["fits"]["options"]["model"] = str(model)
    for step in tuned(data, pretrained, tmp_path / "run", reward):
        assert -1 <= step["reward_fits"] <= 1 and step["reward_fits"] != 0
        assert step["reward"] == pytest.approx(step["reward_task"] + 0.5 * step["reward_fits"])
    contents = json.loads((tmp_path / "run" / "config.json").read_text())["contents"]
    assert contents.keys() == {"reward.parts.fits.use", "reward.parts.fits.options.model"}


@contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


class AnswersAll(threading.Thread):
    """Gives every rollout of every group 2.5."""

    def __init__(self, asked: IO[str], answers: IO[str]) -> None:
        super().__init__(daemon=True)
        self._asked = asked
        self._answers = answers
        self.num_asked = 0

    def run(self) -> None:
        for line in self._asked:
            self.num_asked += 1
            num_rollouts = len(json.loads(line.partition(": ")[2].partition(" boxes")[0]))
            print(*([2.5] * num_rollouts), file=self._answers, flush=True)


def write_tiny_clip(folder: Path) -> Path:
    """A CLIP of random weights with a tokenizer of some words, as ``save_pretrained`` leaves it."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[END]", "a", "photo", "of", ",", "nothing", *map(str, range(10))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[END]",
        model_max_length=16,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    tokens = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**sizes, **tokens, "vocab_size": len(words), "max_position_embeddings": 16},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
