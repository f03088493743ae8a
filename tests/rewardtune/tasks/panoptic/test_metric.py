"""The official evaluation's answers, digit by digit, and what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rewardtune.tasks.panoptic.definition import Counts, image_reward
from rewardtune.tasks.panoptic.metric import metrics_of_maps, panoptic_metrics

DATA = Path(__file__).resolve().parents[5] / "shared" / "data" / "panoptic"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")

CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1},
    {"id": 7, "name": "sky", "isthing": 0},
]


def load(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def assert_groups_equal(metrics: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for group in ("All", "Things", "Stuff"):
        if expected[group] == "ZeroDivisionError":
            assert metrics[group] == {"pq": None, "sq": None, "rq": None, "n": 0}
            continue
        assert metrics[group]["n"] == expected[group]["n"]
        for name in ("pq", "sq", "rq"):
            assert metrics[group][name] == pytest.approx(expected[group][name], rel=0, abs=1e-12)
    for category_id, qualities in expected["per_class"].items():
        for name, value in qualities.items():
            got = metrics["per_class"][int(category_id)][name]
            assert got == pytest.approx(value, rel=0, abs=1e-12)


def assert_images_equal(metrics: Mapping[str, Any], expected: list[Mapping[str, Any]]) -> None:
    for image, wanted in zip(metrics["per_image"], expected, strict=True):
        assert image["image_id"] == wanted["image_id"]
        assert image["reward"] == pytest.approx(wanted["paper_reward_w0.3"], rel=0, abs=1e-12)
        counted = {
            int(category_id): counts
            for category_id, counts in wanted["per_category"].items()
            if counts["tp"] + counts["fp"] + counts["fn"]
        }
        assert image["per_category"].keys() == counted.keys()
        for category_id, counts in counted.items():
            got = image["per_category"][category_id]
            assert [got[n] for n in ("tp", "fp", "fn")] == [counts[n] for n in ("tp", "fp", "fn")]
            assert got["iou"] == pytest.approx(counts["iou"], rel=0, abs=1e-12)


@needs_data
def test_files_of_coco_get_the_official_figures() -> None:
    progress: list[tuple[int, int]] = []
    metrics = panoptic_metrics(
        load("gt_a.json"),
        DATA / "gt_a",
        load("pred_a.json"),
        DATA / "pred_a",
        per_class=True,
        per_image=True,
        progress=lambda done, total: progress.append((done, total)),
    )
    expected = load("expected_a.json")
    assert_groups_equal(metrics, expected["results"])
    assert_images_equal(metrics, expected["per_image"])
    assert progress == [(n, 51) for n in range(1, 52)]
    mean = np.mean([image["reward"] for image in metrics["per_image"]])
    assert mean == pytest.approx(3.9565987384611043, rel=0, abs=1e-12)


@needs_data
def test_every_corner_of_the_official_evaluation_is_the_same() -> None:
    # Ids painted but not listed, stale areas, several crowd segments of one category.
    fuzz = load("fuzz.json")
    with np.load(DATA / "fuzz_maps.npz") as maps:
        gt, pred = maps["gt"], maps["pred"]
    number = {a["image_id"]: k for k, a in enumerate(fuzz["gt"]["annotations"])}
    metrics = metrics_of_maps(
        fuzz["gt"],
        fuzz["pred"],
        read_target=lambda annotation: gt[number[annotation["image_id"]]],
        read_prediction=lambda annotation: pred[number[annotation["image_id"]]],
        per_class=True,
        per_image=True,
    )
    assert_groups_equal(metrics, fuzz["expected"]["results"])
    assert_images_equal(metrics, fuzz["expected"]["per_image"])


@needs_data
@pytest.mark.parametrize("case", ["team", "bird_cat_team"])
def test_masks_of_deeplab2_get_their_published_quality(case: str) -> None:
    rules = json.loads((DATA / "deeplab2_masks" / "expected.json").read_text())
    colours = {
        tuple(map(int, colour.split(","))): k for colour, k in rules["pred_colour_to_class"].items()
    }

    def picture(name: str) -> NDArray[np.int64]:
        return np.asarray(Image.open(DATA / "deeplab2_masks" / name)).astype(np.int64)

    maps = {}
    for number, name in enumerate(case.split("_")):
        grey = picture(f"{name}_gt_instance.png" if name == "team" else f"{name}_gt.png")
        instance = picture(f"{name}_pred_instance.png")
        colour = picture(f"{name}_pred_class.png")
        grey, instance = (m if m.ndim == 2 else m[..., 0] for m in (grey, instance))
        to_class = rules["gt_gray_to_class"][name]
        gt_class = np.vectorize(lambda g, to_class=to_class: to_class[str(g)])(grey)
        pred_class = np.apply_along_axis(lambda c: colours[tuple(c.tolist()[:3])], 2, colour)
        maps[number] = (
            np.where(gt_class > 0, gt_class * 256 + grey, 0),
            np.where(pred_class > 0, pred_class * 256 + instance, 0),
        )

    def annotations(which: int) -> list[dict[str, Any]]:
        lists = []
        for number, pair in maps.items():
            ids, areas = np.unique(pair[which], return_counts=True)
            info = [
                {"id": i, "category_id": i // 256, "iscrowd": 0, "area": area}
                for i, area in zip(ids.tolist(), areas.tolist(), strict=True)
                if i
            ]
            lists.append({"image_id": number, "segments_info": info})
        return lists

    classes = sorted({i["category_id"] for a in annotations(0) for i in a["segments_info"]})
    metrics = metrics_of_maps(
        {
            "annotations": annotations(0),
            "categories": [{"id": c, "isthing": 1} for c in classes],
        },
        annotations(1),
        read_target=lambda annotation: maps[annotation["image_id"]][0],
        read_prediction=lambda annotation: maps[annotation["image_id"]][1],
        per_class=True,
        per_image=True,
    )
    official = rules["expected_panopticapi"][case]
    assert_groups_equal(metrics, official["results"])
    assert_images_equal(metrics, official["per_image"])
    assert metrics["All"]["pq"] == pytest.approx(rules["published"][case]["pq"], abs=1e-4)


# --- what is wrong with the files, and what happens to be right -------------------------------


def scene() -> tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[np.int64]]]:
    """One image 4 x 4: upper half a cat, lower half sky; predicted as it is."""
    id_HW = np.repeat([5, 9], 8).reshape(4, 4)
    segments = [
        {"id": 5, "category_id": 1, "iscrowd": 0, "area": 8},
        {"id": 9, "category_id": 7, "iscrowd": 0, "area": 8},
    ]
    ground_truth = {
        "annotations": [{"image_id": 3, "file_name": "3.png", "segments_info": segments}],
        "categories": CATEGORIES,
    }
    return ground_truth, copy.deepcopy(ground_truth), {"target": id_HW, "prediction": id_HW.copy()}


def evaluate(
    ground_truth: Any, predictions: Any, maps: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    return metrics_of_maps(
        ground_truth,
        predictions,
        read_target=lambda _: maps["target"],
        read_prediction=lambda _: maps["prediction"],
        per_class=True,
        per_image=True,
    )


def test_a_perfect_prediction_has_quality_one_and_its_categories_are_named() -> None:
    metrics = evaluate(*scene())
    assert metrics["All"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 2}
    assert metrics["Things"]["n"] == metrics["Stuff"]["n"] == 1
    assert metrics["per_class"][7]["name"] == "sky" and metrics["per_class"][7]["tp"] == 1
    assert metrics["per_image"][0]["reward"] == 2.0


def test_an_image_without_prediction_is_named() -> None:
    ground_truth, predictions, maps = scene()
    predictions["annotations"] = []
    with pytest.raises(ValueError, match="image 3 has no prediction"):
        evaluate(ground_truth, predictions, maps)


def test_maps_of_different_size_are_named() -> None:
    ground_truth, predictions, maps = scene()
    maps["prediction"] = maps["prediction"][:2]
    with pytest.raises(ValueError, match="image 3: its map is 4 x 4 but the predicted one 2 x 4"):
        evaluate(ground_truth, predictions, maps)


def test_segments_painted_but_not_listed_and_the_reverse_are_named() -> None:
    ground_truth, predictions, maps = scene()
    removed = predictions["annotations"][0]["segments_info"].pop()
    with pytest.raises(ValueError, match="image 3: predicted segment 9 is painted but not listed"):
        evaluate(ground_truth, predictions, maps)
    predictions["annotations"][0]["segments_info"] += [removed, {"id": 4, "category_id": 1}]
    with pytest.raises(ValueError, match="image 3: predicted segment 4 is listed but not painted"):
        evaluate(ground_truth, predictions, maps)


def test_an_unknown_category_of_a_prediction_is_named() -> None:
    ground_truth, predictions, maps = scene()
    predictions["annotations"][0]["segments_info"][0]["category_id"] = 2
    with pytest.raises(ValueError, match="image 3: predicted segment 5 has category 2, which is"):
        evaluate(ground_truth, predictions, maps)


def test_an_unknown_category_of_the_annotation_counts_in_no_mean() -> None:
    ground_truth, predictions, maps = scene()
    ground_truth["annotations"][0]["segments_info"][0]["category_id"] = 2
    metrics = evaluate(ground_truth, predictions, maps)
    assert metrics["Stuff"]["pq"] == 1.0
    assert metrics["per_class"][1]["fp"] == 1 and 2 not in metrics["per_class"]
    assert metrics["per_image"][0]["per_category"][2]["fn"] == 1


@pytest.mark.parametrize("field", ["iscrowd", "area"])
def test_a_missing_field_is_named(field: str) -> None:
    ground_truth, predictions, maps = scene()
    del ground_truth["annotations"][0]["segments_info"][1][field]
    with pytest.raises(ValueError, match=f"image 3: annotated segment 9 has no '{field}'"):
        evaluate(ground_truth, predictions, maps)


def test_an_area_that_empties_a_union_is_named() -> None:
    ground_truth, predictions, maps = scene()
    ground_truth["annotations"][0]["segments_info"][0]["area"] = 0
    with pytest.raises(ValueError, match="image 3: segment 5 has area 0"):
        evaluate(ground_truth, predictions, maps)


def test_instance_annotations_are_refused() -> None:
    ground_truth, predictions, maps = scene()
    ground_truth["categories"] = [{"id": 1, "name": "cat"}]
    with pytest.raises(ValueError, match="category 1 does not say whether it is a thing"):
        evaluate(ground_truth, predictions, maps)


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    ground_truth, predictions, maps = scene()
    with pytest.raises(ValueError, match="the annotations file has no list of categories"):
        evaluate({"annotations": []}, predictions, maps)
    with pytest.raises(ValueError, match="the results file has no list of annotations"):
        evaluate(ground_truth, {}, maps)
    with pytest.raises(ValueError, match="an annotation has no 'segments_info', only image_id, b"):
        evaluate(ground_truth, [{"image_id": 3, "bbox": [0, 0, 1, 1]}], maps)
    del ground_truth["annotations"][0]["file_name"]
    with pytest.raises(ValueError, match="image 3: its annotation has no 'file_name'"):
        panoptic_metrics(ground_truth, tmp_path, predictions, tmp_path)


def test_the_last_of_several_predictions_counts_and_foreign_ones_do_not() -> None:
    ground_truth, predictions, maps = scene()
    whole = predictions["annotations"][0]
    predictions["annotations"] = [
        {"image_id": 3, "file_name": "?", "segments_info": []},
        whole,
        {"image_id": 4, "file_name": "?", "segments_info": []},
    ]
    assert evaluate(ground_truth, predictions, maps)["All"]["pq"] == 1.0


def test_nothing_annotated_and_nothing_predicted_has_no_quality() -> None:
    ground_truth, predictions, maps = scene()
    for side, name in ((ground_truth, "target"), (predictions, "prediction")):
        side["annotations"][0]["segments_info"] = []
        maps[name] = np.zeros((4, 4), dtype=np.int64)
    metrics = evaluate(ground_truth, predictions, maps)
    assert metrics["All"] == {"pq": None, "sq": None, "rq": None, "n": 0}
    assert metrics["per_image"][0]["reward"] == 0.0


def test_a_missing_png_is_named(tmp_path: Path) -> None:
    ground_truth, predictions, _ = scene()
    with pytest.raises(FileNotFoundError, match="3.png is missing"):
        panoptic_metrics(ground_truth, tmp_path, predictions, tmp_path)


def test_false_positives_cost_what_they_are_told_to() -> None:
    counts = {1: Counts(0.75, 1, 2, 3), 2: Counts(0.5, 1, 1, 0)}
    assert image_reward(counts, false_positive_weight=0.5) == pytest.approx(1.25 - 1.5)
