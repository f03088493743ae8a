"""COCO figures to the last digit, on real detections and on made edge cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.detection.metric import METRIC_NAMES, coco_box_metrics, coco_box_table

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "detection"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs the shared COCO data beside the checkout"
)


def read(name: str) -> Any:
    return json.loads((SHARED / name).read_text())


@needs_shared
@pytest.mark.parametrize(
    ("key", "annotations", "results"),
    [
        (
            "fake100_bbox",
            "instances_val2014_100.json",
            "instances_val2014_fakebbox100_results.json",
        ),
        ("dets100_tiny_a", "instances_tiny_a.json", "dets100_tiny_a.json"),
        ("fuzz", "fuzz_gt.json", "fuzz_dets.json"),
    ],
)
def test_the_twelve_numbers_are_the_official_ones(
    key: str, annotations: str, results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = read("expected_stats.json")["stats"]
    matching = next(value for name, value in expected.items() if name.startswith(key))
    ours = coco_box_metrics(read(annotations), read(results))
    assert list(ours) == list(METRIC_NAMES)
    for name in METRIC_NAMES:
        assert ours[name] == pytest.approx(matching[name], abs=1e-12), name
    assert capsys.readouterr().out == ""


@needs_shared
def test_the_table_averages_to_the_official_numbers() -> None:
    annotations, results = read("instances_tiny_a.json"), read("dets100_tiny_a.json")
    rows = coco_box_table(annotations, results)
    official = coco_box_metrics(annotations, results)
    tables = np.load(SHARED / "expected_tables_tiny_a.npz")
    assert len(rows) == 80
    for name in METRIC_NAMES:
        values = [row[name] for row in rows if row[name] > -1]
        assert np.mean(values) == pytest.approx(official[name], abs=1e-12), name
    for row, precision_TR in zip(rows, tables["precision"].transpose(2, 0, 1), strict=True):
        assert row["AP"] == pytest.approx(precision_TR.mean(), abs=1e-12)
    num_regular = sum(not annotation["iscrowd"] for annotation in annotations["annotations"])
    assert sum(row["num_objects"] for row in rows) == num_regular


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


def test_no_results_score_zero_and_absent_sizes_minus_one() -> None:
    ours = coco_box_metrics(scene(), [])
    assert {name for name, value in ours.items() if value == -1} == {"APm", "APl", "ARm", "ARl"}
    assert {value for value in ours.values() if value != -1} == {0.0}


def test_a_perfect_result_scores_one_and_inputs_stay_as_they_were() -> None:
    annotations, results = scene(), [dict(RESULT)]
    assert coco_box_metrics(annotations, results)["AP"] == pytest.approx(1.0)
    assert annotations == scene() and results == [RESULT]


def test_an_annotation_with_id_zero_is_never_found_as_officially() -> None:
    assert coco_box_metrics(scene(annotation_id=0), [RESULT])["AP"] == 0.0


def test_only_chosen_images_count() -> None:
    assert coco_box_metrics(scene(), [RESULT], image_ids=[9])["AP"] == -1
    rows = coco_box_table(scene(), [RESULT], image_ids=[7])
    assert [row["name"] for row in rows] == ["three", "five"]
    assert [row["num_objects"] for row in rows] == [1, 0]
    assert rows[1]["AP"] == -1


def test_results_for_unknown_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[8\]"):
        coco_box_metrics(scene(), [{**RESULT, "image_id": 8}])


@pytest.mark.parametrize("broken", [{"score": float("nan")}, {"bbox": [0, 0, float("inf"), 1]}])
def test_results_that_are_not_finite_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        coco_box_metrics(scene(), [{**RESULT, **broken}])
