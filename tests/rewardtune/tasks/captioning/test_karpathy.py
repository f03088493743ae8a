from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rewardtune.datasets.coco.convert import convert_coco
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.tasks.captioning.karpathy import karpathy_splits

IMAGES: list[dict[str, Any]] = [
    {
        "filepath": "train2014",
        "filename": f"COCO_train2014_{number:012d}.png",
        "cocoid": number,
        "split": split,
        "sentences": [{"raw": f"caption {n} of {number}", "tokens": []} for n in range(5)],
    }
    for number, split in enumerate(["train", "restval", "val", "test", "train"], start=11)
]


def test_splits_are_coco_files_that_the_converter_reads(tmp_path: Path) -> None:
    source = tmp_path / "dataset_coco.json"
    source.write_text(json.dumps({"images": IMAGES, "dataset": "coco"}))
    splits = karpathy_splits(source)
    ids = {split: [image["id"] for image in coco["images"]] for split, coco in splits.items()}
    assert ids == {"train": [11, 12, 15], "val": [13], "test": [14]}
    (tmp_path / "train2014").mkdir()
    for image in IMAGES:
        pixels = np.zeros((6, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train2014" / image["filename"])
    (tmp_path / "train.json").write_text(json.dumps(splits["train"]))
    convert_coco(images=tmp_path, captions=tmp_path / "train.json", output=tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    assert dataset.example(1).captions == tuple(f"caption {n} of 12" for n in range(5))


@pytest.mark.parametrize("lacking", ["split", "cocoid", "filename", "sentences"])
def test_an_image_that_lacks_something_is_named(tmp_path: Path, lacking: str) -> None:
    odd = {key: value for key, value in IMAGES[1].items() if key != lacking}
    (tmp_path / "odd.json").write_text(json.dumps({"images": [IMAGES[0], odd]}))
    with pytest.raises(ValueError, match=f"image 1 needs split .*{lacking}"):
        karpathy_splits(tmp_path / "odd.json")


def test_what_is_no_split_says_so(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for name in ("list.json", "none.json"):
        with pytest.raises(ValueError, match="is no Karpathy split"):
            karpathy_splits(tmp_path / name)
