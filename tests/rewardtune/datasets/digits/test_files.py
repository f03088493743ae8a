from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from rewardtune.datasets.coco.convert import convert_coco
from rewardtune.datasets.coco.instances import coco_instances
from rewardtune.datasets.digits import files as digit_files
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import (
    DIGIT_NAMES,
    SPLITS,
    TEXTURES,
    SceneStyle,
    Split,
    compose_scene,
    load_glyphs,
)
from rewardtune.datasets.images import decode_image
from rewardtune.datasets.shards.dataset import open_dataset

NUM_SCENES: dict[Split, int] = {"train": 5, "holdout": 3, "validation": 2}
SEED = 11


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("data") / "digits"
    assert write_digits(output, num_scenes=NUM_SCENES, seed=SEED)
    return output


def read(digits: Path, name: str, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((digits / "coco" / split / name).read_text())
    return content


def test_each_split_is_a_data_set_of_the_ten_digits_alone(digits: Path) -> None:
    for split in SPLITS:
        dataset = open_dataset(digits / split)
        assert len(dataset) == NUM_SCENES[split]
        assert [(c.id, c.name) for c in dataset.categories] == list(enumerate(DIGIT_NAMES, start=1))
        assert all(len(example.captions) == 5 for example in dataset)


# pycocotools' own arrays do not yet take numpy 2's copy=.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_scenes_come_back_from_the_data_set_as_they_were_composed(digits: Path) -> None:
    dataset, glyphs = open_dataset(digits / "holdout"), load_glyphs("holdout")
    for index in range(NUM_SCENES["holdout"]):
        rng = np.random.default_rng([SEED, SPLITS.index("holdout"), index])
        scene, example = compose_scene(glyphs, rng, SceneStyle()), dataset.example(index)
        np.testing.assert_array_equal(decode_image(example.image), scene.image_HWC)
        np.testing.assert_array_equal(example.category_N, scene.labels_N)
        np.testing.assert_array_equal(example.area_N, scene.masks_NHW.sum(axis=(1, 2)))
        for number, mask_HW in enumerate(scene.masks_NHW):
            rows, columns = np.nonzero(mask_HW)
            left, top = columns.min(), rows.min()
            tight = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert example.xywh_N4[number].tolist() == tight
            rle = json.loads(example.segmentation_N[number])
            np.testing.assert_array_equal(coco_mask.decode(rle), mask_HW)


def test_ground_truth_survives_the_conversion(digits: Path) -> None:
    written, kept = read(digits, "instances.json"), open_dataset(digits / "train")
    back = coco_instances(kept, range(len(kept)))
    assert back["annotations"] == written["annotations"]
    assert back["images"] == written["images"]


def test_data_sets_may_hold_panoptic_maps_instead(digits: Path, tmp_path: Path) -> None:
    output, num_scenes = tmp_path / "panoptic", {"holdout": NUM_SCENES["holdout"]}
    style = SceneStyle()
    args: dict[str, Any] = {"num_scenes": num_scenes, "seed": SEED, "style": style}
    assert write_digits(output, annotations="panoptic", **args)
    dataset, boxes = open_dataset(output / "holdout"), open_dataset(digits / "holdout")
    assert len(dataset.categories) == len(DIGIT_NAMES) + len(TEXTURES)
    for example, same in zip(dataset, boxes, strict=True):
        assert example.image == same.image and example.segments
    with pytest.raises(ValueError, match=r"annotations = panoptic \(not instances\)"):
        write_digits(output, annotations="instances", **args)


def test_panoptic_maps_tell_digits_as_things_and_textures_as_stuff(digits: Path) -> None:
    panoptic, instances = read(digits, "panoptic.json"), read(digits, "instances.json")
    kinds = {c["id"]: c["isthing"] for c in panoptic["categories"]}
    assert kinds == {**dict.fromkeys(range(1, 11), 1), **dict.fromkeys(range(11, 15), 0)}
    assert [c["name"] for c in panoptic["categories"]] == [*DIGIT_NAMES, *TEXTURES]
    for annotation in panoptic["annotations"]:
        path = digits / "coco" / "train" / "panoptic" / annotation["file_name"]
        rgb_HW3 = np.asarray(Image.open(path)).astype(np.int64)
        segment_HW = rgb_HW3 @ np.array([1, 256, 65536])
        segments = annotation["segments_info"]
        assert {s["id"] for s in segments} == set(np.unique(segment_HW).tolist())
        assert all(s["area"] == (segment_HW == s["id"]).sum() for s in segments)
        things = [(s["category_id"], s["area"]) for s in segments if kinds[s["category_id"]]]
        image_id = annotation["image_id"]
        of_image = [a for a in instances["annotations"] if a["image_id"] == image_id]
        assert things == [(a["category_id"], a["area"]) for a in of_image]


def test_panoptic_files_convert_too(digits: Path, tmp_path: Path) -> None:
    coco = digits / "coco" / "train"
    convert_coco(
        images=coco / "images", panoptic=coco / "panoptic.json", output=tmp_path / "panoptic"
    )
    dataset = open_dataset(tmp_path / "panoptic")
    assert len(dataset.categories) == 14
    assert all(example.segments for example in dataset)


def test_the_same_settings_give_the_same_digest(digits: Path, tmp_path: Path) -> None:
    write_digits(tmp_path / "again", num_scenes=NUM_SCENES, seed=SEED)
    write_digits(tmp_path / "other", num_scenes={"train": 5}, seed=SEED + 1)
    digest = open_dataset(digits / "train").digest
    assert open_dataset(tmp_path / "again" / "train").digest == digest
    assert open_dataset(tmp_path / "other" / "train").digest != digest


def test_a_larger_set_begins_with_the_smaller_one(digits: Path, tmp_path: Path) -> None:
    write_digits(tmp_path / "larger", num_scenes={"validation": 4}, seed=SEED)
    small, large = open_dataset(digits / "validation"), open_dataset(tmp_path / "larger/validation")
    assert [example.image for example in small] == [large.example(i).image for i in range(2)]
    assert not (tmp_path / "larger" / "train").exists()


def test_training_scenes_can_begin_further_on(digits: Path, tmp_path: Path) -> None:
    counts: dict[Split, int] = {"train": 2, "validation": 2}
    write_digits(tmp_path / "later", num_scenes=counts, seed=SEED, first_scene=3)
    for split, first in (("train", 3), ("validation", 0)):
        all_scenes, later = open_dataset(digits / split), open_dataset(tmp_path / "later" / split)
        assert [example.image for example in later] == [
            all_scenes.example(first + index).image for index in range(2)
        ]
    with pytest.raises(ValueError, match="first_scene = 3 \\(not None\\)"):
        write_digits(tmp_path / "later", num_scenes=counts, seed=SEED)


def test_what_is_there_is_reused_and_untouched(digits: Path) -> None:
    before = (digits / "train" / "manifest.json").stat()
    assert not write_digits(digits, num_scenes=NUM_SCENES, seed=SEED)
    assert (digits / "train" / "manifest.json").stat() == before


def test_a_folder_with_other_scenes_or_files_is_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed = 11 \\(not 12\\)"):
        write_digits(digits, num_scenes=NUM_SCENES, seed=12)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="holds other files"):
        write_digits(tmp_path, num_scenes=NUM_SCENES)
    with pytest.raises(ValueError, match="no scenes to write"):
        write_digits(tmp_path / "new", num_scenes={"train": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_writer_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(digit_files, "convert_coco", fails)
    with pytest.raises(OSError, match="No space"):
        write_digits(tmp_path / "digits", num_scenes={"train": 1})
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_the_scenes_of_all_splits(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    counts: dict[Split, int] = {"train": 2, "validation": 1}
    write_digits(tmp_path / "new", num_scenes=counts, progress=lambda *now: seen.append(now))
    assert seen == [(1, 3), (2, 3), (3, 3)]
