"""COCO figures to the last digit, on real detections and on made edge cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from rewardtune.tasks.detection.metric import METRIC_NAMES, coco_evaluation, coco_metrics

SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "detection"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the shared COCO data beside the checkout"
)


def read(name: str) -> Any:
    return json.loads((SHARED / name).read_text())


BOXES = "instances_val2014_fakebbox100_results.json"
MASKS = "instances_val2014_fakesegm100_results.json"
PERSONS, TINY = "instances_val2014_100.json", "instances_tiny_a.json"


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "annotations", "results", "iou_type"),
    [
        ("fake100_bbox", PERSONS, BOXES, "bbox"),
        ("fake100_segm", PERSONS, MASKS, "segm"),
        ("dets100_tiny_a_bbox", TINY, "dets100_tiny_a.json", "bbox"),
        ("fuzz_bbox", "fuzz_gt.json", "fuzz_dets.json", "bbox"),
    ],
)
def test_the_twelve_numbers_are_the_official_ones(
    key: str,
    annotations: str,
    results: str,
    iou_type: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = read("expected_stats.json")["stats"][key]
    ours = coco_metrics(read(annotations), read(results), iou_type=iou_type)
    assert list(ours) == list(METRIC_NAMES)
    for name in METRIC_NAMES:
        assert ours[name] == pytest.approx(expected[name], abs=1e-12), name
    assert capsys.readouterr().out == ""


def matches(evaluation: Any, *, num_areas: int) -> list[list[int]]:
    """Area, image, category, detection, ten matched ids and ten ignore flags, as stored."""
    areas = [tuple(area) for area in evaluation.params.areaRng]
    return sorted(
        [
            areas.index(tuple(cell["aRng"])),
            cell["image_id"],
            cell["category_id"],
            int(detection),
            *map(int, cell["dtMatches"][:, place]),
            *map(int, cell["dtIgnore"][:, place]),
        ]
        for cell in evaluation.evalImgs
        if cell is not None and areas.index(tuple(cell["aRng"])) < num_areas
        for place, detection in enumerate(cell["dtIds"])
    )


@needs_shared
@pytest.mark.slow
def test_matches_and_tables_are_the_official_ones_on_real_boxes() -> None:
    evaluation = coco_evaluation(read(TINY), read("dets100_tiny_a.json"))
    expected = np.load(SHARED / "expected_tables_tiny_a.npz")
    rows = [row[1:] for row in matches(evaluation, num_areas=1)]
    assert rows == sorted(expected["match_rows"].tolist())
    for name in ("precision", "recall"):
        ours = evaluation.eval[name][..., 0, 2]
        np.testing.assert_allclose(ours, expected[name], rtol=0, atol=1e-12)


@needs_shared
def test_matches_and_tables_are_the_official_ones_on_made_edge_cases() -> None:
    evaluation = coco_evaluation(read("fuzz_gt.json"), read("fuzz_dets.json"))
    expected = np.load(SHARED / "fuzz_expected.npz")
    rows = matches(evaluation, num_areas=4)
    stored = expected["match_rows"].tolist()
    num_stored_areas = len({row[0] for row in stored})
    assert [row for row in rows if row[0] < num_stored_areas] == sorted(stored)
    for name in ("precision", "recall"):
        np.testing.assert_allclose(evaluation.eval[name], expected[name], rtol=0, atol=1e-12)


@needs_shared
@pytest.mark.slow
def test_the_table_averages_to_the_official_numbers() -> None:
    annotations, results = read(TINY), read("dets100_tiny_a.json")
    official = coco_metrics(annotations, results, per_class=True)
    rows = official["per_class"]
    tables = np.load(SHARED / "expected_tables_tiny_a.npz")
    assert [row["category_id"] for row in rows] == tables["catIds"].tolist()
    for name in METRIC_NAMES:
        values = [row[name] for row in rows if row[name] > -1]
        assert np.mean(values) == pytest.approx(official[name], abs=1e-12), name
    for row, precision_TR in zip(rows, tables["precision"].transpose(2, 0, 1), strict=True):
        assert row["AP"] == pytest.approx(precision_TR.mean(), abs=1e-12)
    num_regular = sum(not annotation["iscrowd"] for annotation in annotations["annotations"])
    assert sum(row["num_objects"] for row in rows) == num_regular


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("results", "iou_type"), [(BOXES, "bbox"), (MASKS, "segm")])
def test_an_images_row_is_the_official_evaluation_of_that_image_alone(
    results: str, iou_type: Any
) -> None:
    annotations, records = read(PERSONS), read(results)
    rows = coco_metrics(annotations, records, iou_type=iou_type, per_image=True)["per_image"]
    assert [row["image_id"] for row in rows] == sorted(i["id"] for i in annotations["images"])
    for row in rows[::50]:
        alone = coco_metrics(annotations, records, iou_type=iou_type, image_ids=[row["image_id"]])
        assert {name: row[name] for name in METRIC_NAMES} == pytest.approx(alone, abs=1e-12)


def scene(*, annotation_id: int = 1) -> dict[str, Any]:
    return {
        "images": [{"id": 7}, {"id": 9}],
        "categories": [{"id": 3, "name": "three"}, {"id": 5, "name": "five"}],
        "annotations": [
            {
                "id": annotation_id,
                "image_id": 7,
                "category_id": 3,
                "bbox": [1, 1, 20, 10],
                "area": 200,
                "iscrowd": 0,
            }
        ],
    }


RESULT = {"image_id": 7, "category_id": 3, "bbox": [1, 1, 20, 10], "score": 0.5}


def run_length(*, left: int, top: int, width: int, height: int, size: int = 32) -> dict[str, Any]:
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    encoded = pycocotools.mask.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def masked_scene() -> dict[str, Any]:
    made = scene()
    made["images"] = [{"id": 7, "height": 32, "width": 32}, {"id": 9, "height": 32, "width": 32}]
    made["annotations"][0]["segmentation"] = [[1, 1, 21, 1, 21, 11, 1, 11]]
    return made


MASK_RESULT = {
    "image_id": 7,
    "category_id": 3,
    "segmentation": run_length(left=1, top=1, width=20, height=10),
    "score": 0.5,
}


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_no_results_score_zero_and_absent_sizes_minus_one(iou_type: Any) -> None:
    ours = coco_metrics(masked_scene(), [], iou_type=iou_type)
    assert {name for name, value in ours.items() if value == -1} == {"APm", "APl", "ARm", "ARl"}
    assert {value for value in ours.values() if value != -1} == {0.0}


def test_a_perfect_result_scores_one_and_inputs_stay_as_they_were() -> None:
    annotations, results = scene(), [dict(RESULT)]
    assert coco_metrics(annotations, results)["AP"] == pytest.approx(1.0)
    assert annotations == scene() and results == [RESULT]
    annotations, results = masked_scene(), [dict(MASK_RESULT)]
    assert coco_metrics(annotations, results, iou_type="segm")["AP"] == pytest.approx(1.0)
    assert annotations == masked_scene() and results == [MASK_RESULT]


def test_masks_can_be_compared_as_boxes_and_boxes_as_masks_as_officially() -> None:
    assert coco_metrics(masked_scene(), [MASK_RESULT])["AP"] == pytest.approx(1.0)
    assert coco_metrics(masked_scene(), [RESULT], iou_type="segm")["AP"] == pytest.approx(1.0)


def test_an_annotation_with_id_zero_is_never_found_as_officially() -> None:
    assert coco_metrics(scene(annotation_id=0), [RESULT])["AP"] == 0.0


def test_of_annotations_with_one_id_the_last_stands_for_all_as_officially() -> None:
    annotations = scene()
    other = {**annotations["annotations"][0], "bbox": [40, 40, 20, 10]}
    annotations["annotations"].append(other)
    both = [RESULT, {**RESULT, "bbox": other["bbox"], "score": 0.4}]
    # Twice the second box: the result on the first finds nothing.
    assert coco_metrics(annotations, both)["AR100"] == pytest.approx(0.5)
    assert coco_metrics(annotations, [RESULT])["AR100"] == 0.0


def test_a_crowd_absorbs_any_number_of_results_and_is_no_object() -> None:
    annotations = scene()
    annotations["annotations"].append(
        {**annotations["annotations"][0], "id": 2, "bbox": [30, 30, 60, 60], "iscrowd": 1}
    )
    within = {**RESULT, "bbox": [35, 35, 10, 10], "score": 0.9}
    metrics = coco_metrics(annotations, [within, within, RESULT], per_class=True)
    assert metrics["AP"] == pytest.approx(1.0)
    assert [row["num_objects"] for row in metrics["per_class"]] == [1, 0]


def test_results_of_categories_and_images_without_objects() -> None:
    elsewhere = {**RESULT, "image_id": 9, "score": 0.9}
    unknown = {**RESULT, "category_id": 99, "score": 0.9}
    absent = {**RESULT, "category_id": 5, "score": 0.9}
    # Above the one right result: a false positive halves the precision ...
    assert coco_metrics(scene(), [RESULT, elsewhere])["AP"] == pytest.approx(0.5)
    # ... but a category that is not annotated is in no mean.
    assert coco_metrics(scene(), [RESULT, unknown, absent])["AP"] == pytest.approx(1.0)


def test_an_annotation_that_says_nothing_of_crowds_is_none() -> None:
    annotations = scene()
    del annotations["annotations"][0]["iscrowd"]
    assert coco_metrics(annotations, [RESULT])["AP"] == pytest.approx(1.0)


def test_only_chosen_images_count() -> None:
    assert coco_metrics(scene(), [RESULT], image_ids=[9])["AP"] == -1
    metrics = coco_metrics(scene(), [RESULT], image_ids=[7], per_class=True, per_image=True)
    assert [row["name"] for row in metrics["per_class"]] == ["three", "five"]
    assert [row["num_objects"] for row in metrics["per_class"]] == [1, 0]
    assert metrics["per_class"][1]["AP"] == -1
    assert [row["image_id"] for row in metrics["per_image"]] == [7]
    with pytest.raises(ValueError, match=r"image_ids .* \[8\]"):
        coco_metrics(scene(), [RESULT], image_ids=[8])


def test_an_image_without_objects_has_a_row_of_absences() -> None:
    rows = coco_metrics(scene(), [RESULT], per_image=True)["per_image"]
    assert [(row["image_id"], row["num_objects"]) for row in rows] == [(7, 1), (9, 0)]
    assert rows[0]["AP"] == pytest.approx(1.0)
    assert {rows[1][name] for name in METRIC_NAMES} == {-1.0}


def test_results_for_unknown_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[8\]"):
        coco_metrics(scene(), [{**RESULT, "image_id": 8}])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"score": float("nan")}, "result 1 has a score that is not finite"),
        ({"score": "0.5"}, "score that is not finite or no number: '0.5'"),
        ({"bbox": [0, 0, float("inf"), 1]}, "bbox that is not finite"),
        ({"bbox": [0, 0, 1]}, r"\[left, top, width, height\]"),
        ({"category_id": None}, "category_id"),
    ],
)
def test_results_that_are_broken_are_refused(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coco_metrics(scene(), [{**RESULT, **broken}])


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "bbox"])
def test_results_that_miss_a_key_are_refused(key: str) -> None:
    whole = {**RESULT, "score": 0.7}
    with pytest.raises(ValueError, match=f"result 2 has no '{key}'"):
        coco_metrics(scene(), [whole, {k: v for k, v in RESULT.items() if k != key}])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (run_length(left=0, top=0, width=1, height=1, size=16), r"size \[16, 16\]"),
        ({"size": [32, 32], "counts": [1, 2, 3]}, "compressed RLE"),
        ([[0, 0, 1, 0, 1, 1]], "compressed RLE"),
    ],
)
def test_masks_that_are_broken_are_refused(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coco_metrics(masked_scene(), [{**MASK_RESULT, "segmentation": mask}], iou_type="segm")


@pytest.mark.parametrize("key", ["image_id", "category_id", "area", "bbox"])
def test_annotations_that_miss_a_key_are_refused(key: str) -> None:
    annotations = scene()
    del annotations["annotations"][0][key]
    with pytest.raises(ValueError, match=f"annotation 1 has no '{key}'"):
        coco_metrics(annotations, [RESULT])


def test_what_is_no_ground_truth_or_no_results_is_refused() -> None:
    with pytest.raises(ValueError, match="list 'categories'"):
        coco_metrics({"images": [], "annotations": []}, [])
    with pytest.raises(ValueError, match="must be a list of records"):
        coco_metrics(scene(), {"results": []})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="result 1 must be an object"):
        coco_metrics(scene(), [7])  # type: ignore[list-item]
    unsized = {**masked_scene(), "images": scene()["images"]}
    with pytest.raises(ValueError, match="height and width"):
        coco_metrics(unsized, [], iou_type="segm")
    outlined = scene()
    outlined["annotations"][0]["segmentation"] = []
    outlined["images"] = masked_scene()["images"]
    with pytest.raises(ValueError, match="annotation 1 has no outline"):
        coco_metrics(outlined, [], iou_type="segm")
    with pytest.raises(ValueError, match="iou_type"):
        coco_metrics(scene(), [], iou_type="keypoints")  # type: ignore[arg-type]
