"""Pages with a picture and its captions, and the results file beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rewardtune.tasks.captioning.paint import paint_captions
from rewardtune.tasks.captioning.task import CaptioningTask
from rewardtune.tasks.task import PicturedTask, load_task
from tests.rewardtune.tasks.captioning.small_captions import write_pieces


def test_captions_stand_below_an_untouched_picture() -> None:
    image = np.random.default_rng(0).integers(256, size=(300, 400, 3), dtype=np.uint8)
    page = paint_captions(image, ["a man riding a wave", "a very long caption " * 10])
    np.testing.assert_array_equal(page[:300], image)
    assert page.shape[1] == 400 and (page[300:] < 128).any()
    assert paint_captions(image, ["short"]).shape[0] < page.shape[0]


def test_a_small_picture_is_enlarged_so_that_words_fit() -> None:
    page = paint_captions(np.zeros((64, 32, 3), dtype=np.uint8), [""])
    assert page.shape[:2] == (384 + 12 + 18, 192)


def test_the_task_writes_what_the_caption_server_takes(tmp_path: Path) -> None:
    task = load_task("captioning", {"vocabulary": str(write_pieces(tmp_path))}, categories=())
    assert isinstance(task, CaptioningTask) and isinstance(task, PicturedTask)
    records = [{"image_id": 7, "caption": "zwei Hunde, größer"}]
    for _ in range(2):
        task.write_results(records, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == records
