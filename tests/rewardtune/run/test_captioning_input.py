"""What is wrong with captions, models and tokenizers, as the command line tells it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from rewardtune.cli.app import app
from rewardtune.cli.ending import BAD_INPUT
from rewardtune.policies.hugging_face.config import quietly
from tests.rewardtune.policies.hugging_face_models import PIECES, save_model, tiny_model

TUNE = """
task = "captioning"
mode = "{mode}"

[task_options]
vocabulary = "{vocabulary}"
document_frequencies = "frequencies.arrow"
max_tokens = {max_tokens}

[data]
train = "{data}"

[policy]
checkpoint = "model"

[learner]
batch_size = 4
micro_batch = 4
num_steps = 2
optimizer = {{ kind = "adamw", learning_rate = 1e-4 }}

[sampler]
num_samples = 2
micro_batch = 4

[compute]
threads = 1
device = "cpu"

[operations]
progress = false
"""
LONG = "a red digit and a blue digit and a green digit on the red"


@dataclass(frozen=True)
class Desk:
    """Where a user sits: a model, a data set with captions and their frequencies."""

    folder: Path

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, words)

    def start(self, mode: str, **changes: Any) -> Result:
        told = {"vocabulary": "model", "max_tokens": 16, "data": "data", "mode": mode} | changes
        (self.folder / "run.toml").write_text(TUNE.format(**told))
        return self.run(mode, "run.toml", *(["--local"] if mode == "tune" else []))

    def convert(self, name: str, captions: list[list[str]]) -> Result:
        """Data set ``name``: as many pictures, with these captions."""
        folder = self.folder / f"{name}-pictures"
        folder.mkdir()
        content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        for number, texts in enumerate(captions, start=1):
            Image.new("RGB", (32, 32), (30 * number, 20, 90)).save(folder / f"{number}.png")
            content["images"].append(
                {"id": number, "file_name": f"{number}.png", "height": 32, "width": 32}
            )
            for text in texts:
                identity = len(content["annotations"]) + 1
                content["annotations"].append({"id": identity, "image_id": number, "caption": text})
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(content))
        return self.run(
            *("data", "coco", "--images", str(folder), "--captions", str(path)),
            *("--output", str(self.folder / name)),
        )


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    with quietly():
        save_model(tiny_model("vit_bert"), tmp_path / "model")
    assert desk.convert("data", [[f"a {word} digit"] for word in PIECES[12:18]]).exit_code == 0
    assert desk.run("data", "cider-stats", "data", "frequencies.arrow").exit_code == 0
    return desk


def error_line(told: Result) -> str:
    """The one line that a user is told."""
    assert told.exit_code == BAD_INPUT, told.output
    lines = [line for line in told.stderr.splitlines() if not line.startswith("step ")]
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


def test_nothing_is_wrong_with_what_the_others_change(desk: Desk) -> None:
    assert desk.start("tune").exit_code == 0


@pytest.mark.parametrize("mode", ["tune", "pretrain"])
def test_a_tokenizer_of_another_size_than_the_model(desk: Desk, mode: str) -> None:
    Path("vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES[:-1]))
    line = error_line(desk.start(mode, vocabulary="vocab.txt"))
    assert "has 20 tokens but the task's vocabulary 19" in line
    assert "set task_options.vocabulary" in line


def test_a_tokenizer_of_other_pieces_than_the_model_s(desk: Desk) -> None:
    pieces = [*PIECES[:-2], PIECES[-1], PIECES[-2]]
    Path("vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    line = error_line(desk.start("tune", vocabulary="vocab.txt"))
    assert "of other pieces than the model's own tokenizer" in line


def test_a_vocabulary_without_sep(desk: Desk) -> None:
    pieces = ["[STOP]" if piece == "[SEP]" else piece for piece in PIECES]
    Path("vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    line = error_line(desk.start("tune", vocabulary="vocab.txt"))
    assert "has no '[SEP]'" in line and "task option stop" in line


@pytest.mark.parametrize("mode", ["tune", "pretrain"])
def test_an_image_without_captions_is_named(desk: Desk, mode: str) -> None:
    desk.convert("gap", [["a red digit"], [], ["two digits"], ["one digit"]])
    line = error_line(desk.start(mode, data="gap"))
    assert "2.png (id 2) has no captions" in line and "leave the image out" in line


def test_an_image_without_captions_is_found_before_any_run(desk: Desk) -> None:
    desk.convert("gap", [["a red digit"], [], ["two digits"], ["one digit"]])
    line = error_line(desk.run("data", "cider-stats", "gap", "gap.arrow"))
    assert "2.png (id 2) of gap has no captions" in line
    assert not Path("gap.arrow").exists()


def test_captions_longer_than_the_limit_are_cut_and_counted(desk: Desk) -> None:
    """Two of four images, each of which a batch shows once."""
    desk.convert("long", [[LONG], ["a red digit"], [LONG], ["two digits"]])
    told = desk.start("pretrain", data="long", max_tokens=6)
    assert told.exit_code == 0, told.output
    assert "2 of the first 4 annotations are longer than a sequence of 6 tokens" in told.stderr
    assert told.stderr.count("are longer than") == 1
    lines = Path("runs/run/log.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines if '"kind": "step"' in line]
    assert [step["cut_ratio"] for step in steps] == [0.5, 0.5]


def test_where_nothing_is_cut_the_count_is_0_and_nothing_is_said(desk: Desk) -> None:
    told = desk.start("pretrain")
    assert told.exit_code == 0, told.output
    assert "are longer than" not in told.stderr
    lines = Path("runs/run/log.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines if '"kind": "step"' in line]
    assert [step["cut_ratio"] for step in steps] == [0.0, 0.0]
