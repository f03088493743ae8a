"""docs/captioning.md: a user's own model and captions, by the commands as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import BertTokenizer, VisionEncoderDecoderModel
from typer.testing import CliRunner

from policies.hugging_face import quietly
from rewardtune.cli import app
from tests.policies.hugging_face_models import PIECES, save_model, tiny_model

GUIDE = Path(__file__).parents[1] / "docs" / "captioning.md"
SECTION = "## Your own model, your own captions"


def block(language: str) -> str:
    section = GUIDE.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, f"the guide has no {language} block"
    return found[1]


def bring(folder: Path) -> None:
    """What the guide says that its reader has."""
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
    config = block("toml").replace("num_steps = 1_000", "num_steps = 2")
    config = config.replace("batch_size = 64", "batch_size = 16")
    (folder / "my_captions.toml").write_text(config)


def test_a_user_s_model_is_tuned_and_loads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = block("sh").splitlines()
    assert len(commands) <= 6
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "pip":
            continue
        assert program == "rewardtune"
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 0, f"{command}: {told.output}"
    with quietly():
        before: Any = VisionEncoderDecoderModel.from_pretrained("model")
        after: Any = VisionEncoderDecoderModel.from_pretrained("model-tuned")
    moved = [
        name
        for name, parameter in after.named_parameters()
        if not (parameter == before.get_parameter(name)).all()
    ]
    assert "decoder.cls.predictions.bias" in moved
    tokenizer = BertTokenizer.from_pretrained("model-tuned")
    assert tokenizer.decode(tokenizer.encode("a red digit")) == "[CLS] a red digit [SEP]"
