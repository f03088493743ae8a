"""README, "Your own captioner": a user's model and captions, by the commands as they stand."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import BertTokenizer, VisionEncoderDecoderModel

from rewardtune.policies.hugging_face.config import quietly
from tests.rewardtune.policies.hugging_face_models import PIECES, save_model, tiny_model
from tests.tutorial import do

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SECTION = "## Your own captioner"
CONFIG = "configs/own_captions.toml"


def commands() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition(f"{SECTION}\n")[2].partition("\n## ")[0]
    return re.findall(r"^    (.+)$", section, re.MULTILINE)


def bring(folder: Path) -> None:
    """What the README says that its reader has, beside the clone's configs and .venv."""
    (folder / "pictures").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, 9):
        name = f"{number}.png"
        Image.new("RGB", (40, 32), (30 * number, 20, 255 - 30 * number)).save(
            folder / "pictures" / name
        )
        images.append({"id": number, "file_name": name, "height": 32, "width": 40})
        for text in ("a red digit on the blue", f"{PIECES[12 + number % 3]} digits in green"):
            annotations.append({"id": len(annotations), "image_id": number, "caption": text})
    captions = {"images": images, "annotations": annotations}
    (folder / "captions.json").write_text(json.dumps(captions))
    with quietly():
        save_model(tiny_model("vit_bert"), folder / "model")
        BertTokenizer(str(folder / "model" / "vocab.txt")).save_pretrained(folder / "model")
    # The only change: a thousand steps of 64 images take long on whatever runs this test.
    config = (ROOT / CONFIG).read_text(encoding="utf-8")
    for before, after in (("num_steps = 1_000", "num_steps = 2"), ("size = 64", "size = 16")):
        assert before in config
        config = config.replace(before, after)
    (folder / CONFIG).parent.mkdir()
    (folder / CONFIG).write_text(config)
    (folder / ".venv").symlink_to(sys.prefix)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the commands, all but the installation."""
    folder = tmp_path_factory.mktemp("clone")
    bring(folder)
    _, *after_installing = commands()
    do(folder, ["export OMP_NUM_THREADS=1\n", "\n".join(after_installing)])
    return folder


def test_there_are_at_most_six_and_the_first_is_the_makefile_s_own() -> None:
    first, *others = commands()
    assert first == "make install"
    assert "install" in re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert 1 <= len(others) <= 5
    assert all(command.startswith(".venv/bin/rewardtune ") for command in others)


def test_the_tuned_model_loads_in_transformers_and_has_moved(clone: Path) -> None:
    with quietly():
        before: Any = VisionEncoderDecoderModel.from_pretrained(clone / "model")
        after: Any = VisionEncoderDecoderModel.from_pretrained(clone / "model-tuned")
    moved = [
        name
        for name, parameter in after.named_parameters()
        if not (parameter == before.get_parameter(name)).all()
    ]
    assert "decoder.cls.predictions.bias" in moved
    tokenizer = BertTokenizer.from_pretrained(clone / "model-tuned")
    assert tokenizer.decode(tokenizer.encode("a red digit")) == "[CLS] a red digit [SEP]"


def test_the_run_was_the_config_s(clone: Path) -> None:
    ran = json.loads((clone / "runs/own_captions/config.json").read_text())
    told = tomllib.loads((ROOT / CONFIG).read_text())
    assert ran["task"] == told["task"] == "captioning"
    assert ran["sampler"]["num_samples"] == told["sampler"]["num_samples"]
    lines = (clone / "runs/own_captions/log.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines if '"kind": "step"' in line]
    assert [step["step"] for step in steps] == [1, 2]
    assert all("reward_words" in step for step in steps)
