"""``rewardtune data cider-stats`` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rewardtune.cli.data import app
from rewardtune.tasks.captioning.cider.document_frequencies import (
    END_OF_SENTENCE,
    UNKNOWN,
    DocumentFrequencies,
)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.json"
    annotations = [
        {"image_id": 1, "caption": "A dog runs."},
        {"image_id": 2, "caption": "A dog's ball"},
    ]
    path.write_text(json.dumps({"images": [{"id": 1}, {"id": 2}], "annotations": annotations}))
    return path


def test_a_coco_file_is_counted(captions: Path, tmp_path: Path) -> None:
    output = tmp_path / "df.arrow"
    told = CliRunner().invoke(app, ["cider-stats", str(captions), str(output)])
    assert told.exit_code == 0, told.output
    frequencies = DocumentFrequencies.open(output)
    assert frequencies.vocabulary == (END_OF_SENTENCE, "'s", "a", "ball", "dog", "runs")
    assert frequencies.num_images == 2
    assert frequencies.digest in told.output
    assert "in 2 images" in told.output


def test_options_reach_the_counting(captions: Path, tmp_path: Path) -> None:
    output = tmp_path / "df.arrow"
    arguments = ["--end-of-sentence", "--min-count", "2", "--splitting", "blanks"]
    told = CliRunner().invoke(app, ["cider-stats", str(captions), str(output), *arguments])
    assert told.exit_code == 0, told.output
    frequencies = DocumentFrequencies.open(output)
    assert frequencies.vocabulary == (END_OF_SENTENCE, "A", UNKNOWN)
    assert frequencies.facts.counts_end
    assert frequencies.facts.splitting == "blanks"
