"""Scores of files in their official formats, against what the official evaluators gave."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import rewardtune
from rewardtune.evaluation.results_files import score
from tests.rewardtune import command_line

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the official values are beside the repository, in ../shared/data"
)


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


run = partial(command_line.run, "score")
refused = partial(command_line.refused, "score")


# --- official values -------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("annotations", "results", "expected"),
    [
        ("instances_val2014_100", "instances_val2014_fakebbox100_results", "fake100_bbox"),
        ("instances_val2014_100", "instances_val2014_fakesegm100_results", "fake100_segm"),
        ("instances_tiny_a", "dets100_tiny_a", "dets100_tiny_a_bbox"),
        ("fuzz_gt", "fuzz_dets", "fuzz_bbox"),
    ],
)
def test_boxes_and_masks_score_as_by_pycocotools(
    annotations: str, results: str, expected: str
) -> None:
    folder = SHARED / "detection"
    stats = json.loads((folder / "expected_stats.json").read_text())["stats"][expected]
    got = score("detection", folder / f"{results}.json", annotations=folder / f"{annotations}.json")
    assert {name: got[name] for name in stats} == pytest.approx(stats, abs=1e-12, rel=0)


@needs_shared
def test_panoptic_maps_score_as_by_panopticapi() -> None:
    folder = SHARED / "panoptic"
    expected = json.loads((folder / "expected_a.json").read_text())["results"]
    got = score(
        "panoptic", folder / "pred_a.json", annotations=folder / "gt_a.json", per_class=True
    )
    check_panoptic(got, expected)


@needs_shared
def test_panoptic_corner_cases_score_as_by_panopticapi(tmp_path: Path) -> None:
    folder = SHARED / "panoptic"
    fuzz = json.loads((folder / "fuzz.json").read_text())
    maps = np.load(folder / "fuzz_maps.npz")
    paths = {}
    for side in ("gt", "pred"):
        (tmp_path / side).mkdir()
        paths[side] = write(tmp_path / f"{side}.json", fuzz[side])
        for annotation, id_HW in zip(fuzz[side]["annotations"], maps[side], strict=True):
            write_map(tmp_path / side / annotation["file_name"], id_HW)
    got = score("panoptic", paths["pred"], annotations=paths["gt"], per_class=True)
    check_panoptic(got, fuzz["expected"]["results"])


def check_panoptic(got: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("All", "Things", "Stuff"):
        if name in expected:
            assert got[name] == pytest.approx(expected[name], abs=1e-12, rel=0)
    for category, numbers in expected["per_class"].items():
        row = got["per_class"][int(category)]
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, abs=1e-12, rel=0)


def write_map(path: Path, id_HW: Any) -> None:
    id_HW = np.asarray(id_HW, dtype=np.uint32)
    rgb_HW3 = np.stack([id_HW % 256, id_HW // 256 % 256, id_HW // 65536], axis=-1)
    Image.fromarray(rgb_HW3.astype(np.uint8)).save(path)


def write_captions(folder: Path, system: str, form: str) -> tuple[Path, Path, list[int]]:
    """References and one system's captions in COCO's formats."""
    references = json.loads((SHARED / "captions" / "refs.json").read_text())
    candidates = json.loads((SHARED / "captions" / "candidates.json").read_text())[system]
    annotations = [
        {"id": 10 * place + number, "image_id": entry["image_id"], "caption": text}
        for place, entry in enumerate(references)
        for number, text in enumerate(entry[form])
    ]
    images = [{"id": entry["image_id"]} for entry in references]
    return (
        write(folder / "captions.json", {"images": images, "annotations": annotations}),
        write(
            folder / "results.json",
            [{"image_id": each["image_id"], "caption": each[form]} for each in candidates],
        ),
        [each["image_id"] for each in candidates],
    )


@needs_shared
@pytest.mark.parametrize(("system", "form"), [("magic", "raw"), ("topk1", "ptb")])
def test_captions_score_as_by_pycocoevalcap(tmp_path: Path, system: str, form: str) -> None:
    expected = json.loads((SHARED / "captions" / "expected_ciderd_corpus_df.json").read_text())
    annotations, results, image_ids = write_captions(tmp_path, system, form)
    got = score(
        "captioning",
        results,
        annotations=annotations,
        is_tokenized=form == "ptb",
        per_image=True,
    )
    each = [row["CIDEr-D"] for row in got["per_image"]]
    assert [row["image_id"] for row in got["per_image"]] == image_ids
    np.testing.assert_allclose(each, expected[system]["per_caption"], rtol=0, atol=1e-12)
    assert got["CIDEr-D"] == pytest.approx(expected[system]["corpus_mean"], abs=1e-12, rel=0)


@needs_shared
def test_captions_score_by_stored_document_frequencies(tmp_path: Path) -> None:
    from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies

    expected = json.loads((SHARED / "captions" / "expected_ciderd_train_df.json").read_text())
    annotations, results, _ = write_captions(tmp_path, "magic", "ptb")
    references = json.loads((SHARED / "captions" / "refs.json").read_text())
    DocumentFrequencies.of_words(
        [[text.split() for text in entry["ptb"]] for entry in references]
    ).write(tmp_path / "frequencies.arrow")
    result = run(
        "captioning", results, "--annotations", annotations, "--tokenized",
        "--statistics", tmp_path / "frequencies.arrow", "--per-image",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    each = [row["CIDEr-D"] for row in json.loads(result.stdout)["per_image"]]
    np.testing.assert_allclose(each, expected["magic"]["per_caption"], rtol=0, atol=1e-12)


@needs_shared
def test_pictures_score_as_the_stored_counts_say() -> None:
    expected = json.loads((SHARED / "colour" / "expected.json").read_text())["images"]
    got = score("colorization", SHARED / "colour", per_image=True)
    rows = {row["file"]: row for row in got["images"]}
    assert rows.keys() == expected.keys()
    for name, values in expected.items():
        assert rows[name]["vivid"] == values["vivid_fraction"]
        assert rows[name]["reward"] == pytest.approx(values["reward"], abs=1e-12, rel=0)
    assert got["reward"] == pytest.approx(
        math.fsum(values["reward"] for values in expected.values()) / len(expected), abs=1e-12
    )


# --- small cases that can be worked out by hand ----------------------------------------------


def instances(num_images: int = 1) -> dict[str, Any]:
    """One object of 10 x 10 in each image."""
    numbers = range(1, num_images + 1)
    return {
        "images": [{"id": n, "height": 40, "width": 40} for n in numbers],
        "categories": [{"id": 7, "name": "thing"}],
        "annotations": [
            {
                "id": n, "image_id": n, "category_id": 7, "bbox": [0, 0, 10, 10], "area": 100,
                "iscrowd": 0, "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]],
            }
            for n in numbers
        ],
    }  # fmt: skip


def box(image_id: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "image_id": image_id, "category_id": 7, "bbox": [0, 0, 10, 10], "score": 0.5, **changes
    }  # fmt: skip


def test_one_of_two_objects_found_exactly(tmp_path: Path) -> None:
    got = score(
        "detection",
        write(tmp_path / "results.json", [box()]),
        annotations=write(tmp_path / "instances.json", instances(2)),
        per_class=True,
    )
    # Precision is 1 at the 51 of 101 recall points up to a half.
    assert got["AP"] == pytest.approx(51 / 101)
    assert got["AR100"] == 0.5
    assert got["APl"] == -1.0
    (row,) = got["per_class"]
    assert row["category_id"] == 7 and row["AP"] == got["AP"]


def test_masks_are_matched_where_the_records_have_no_boxes(tmp_path: Path) -> None:
    annotations = write(tmp_path / "instances.json", instances())
    # The upper half of the object, and of its box.
    half_HW = np.zeros((40, 40), dtype=np.uint8, order="F")
    half_HW[:4, :10] = 1
    rle = coco_mask.encode(half_HW)
    mask = {"size": rle["size"], "counts": rle["counts"].decode()}
    record = {"image_id": 1, "category_id": 7, "segmentation": mask, "score": 1.0}
    results = write(tmp_path / "results.json", [record])
    assert score("detection", results, annotations=annotations)["AP50"] == 0.0
    assert score("detection", results, annotations=annotations, iou_type="bbox")["AP50"] == 0.0
    both = write(tmp_path / "both.json", [{**record, "bbox": [0, 0, 10, 10]}])
    assert score("detection", both, annotations=annotations)["AP"] == pytest.approx(1.0)
    result = run("detection", both, "--annotations", annotations, "--iou-type", "segm")
    assert json.loads(result.stdout)["AP"] == 0.0


def captions(**texts: list[str]) -> dict[str, Any]:
    """References by image: ``i1=["a dog"]``."""
    return {
        "images": [{"id": int(name[1:])} for name in texts],
        "annotations": [
            {"id": 1, "image_id": int(name[1:]), "caption": text}
            for name, group in texts.items()
            for text in group
        ],
    }


def test_a_caption_that_is_its_reference_scores_ten(tmp_path: Path) -> None:
    truth = captions(i1=["A dog runs on grass."], i2=["Two cats sleep on a sofa."])
    records = [
        {"image_id": 2, "caption": "Nothing of the sort"},
        {"image_id": 1, "caption": "a dog runs on grass"},
    ]
    got = score(
        "captioning",
        write(tmp_path / "results.json", records),
        annotations=write(tmp_path / "captions.json", truth),
        per_image=True,
    )
    assert [row["image_id"] for row in got["per_image"]] == [2, 1]
    assert [row["CIDEr-D"] for row in got["per_image"]] == pytest.approx([0.0, 10.0])
    assert got["CIDEr-D"] == pytest.approx(5.0)
    assert got["per_image"][1]["ROUGE-L"] == 1.0


PANOPTIC = {
    "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
    "annotations": [
        {
            "image_id": 1,
            "file_name": "1.png",
            "segments_info": [
                {"id": 5, "category_id": 1, "area": 4, "iscrowd": 0},
                {"id": 300, "category_id": 2, "area": 4, "iscrowd": 0},
            ],
        }
    ],
}


def test_panoptic_folders_are_those_of_the_json_unless_named(tmp_path: Path) -> None:
    annotations = write(tmp_path / "truth.json", PANOPTIC)
    (tmp_path / "truth").mkdir()
    write_map(tmp_path / "truth" / "1.png", [[5, 5, 300, 300], [5, 5, 300, 300]])
    segments = [{"id": 9, "category_id": 1}, {"id": 70000, "category_id": 2}]
    annotation = {"image_id": 1, "file_name": "1.png", "segments_info": segments}
    results = write(tmp_path / "mine.json", {"annotations": [annotation]})
    (tmp_path / "pictures").mkdir()
    write_map(tmp_path / "pictures" / "1.png", [[9, 9, 9, 70000], [9, 9, 70000, 70000]])
    assert f"{tmp_path / 'mine'} is not a folder" in refused(
        "panoptic", results, "--annotations", annotations
    )
    result = run(
        "panoptic", results, "--annotations", annotations,
        "--results-images", tmp_path / "pictures", "--per-class", "--per-image",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    got = json.loads(result.stdout)
    assert got["All"] == {"pq": (4 / 5 + 3 / 4) / 2, "sq": (4 / 5 + 3 / 4) / 2, "rq": 1.0, "n": 2}
    assert got["Things"]["pq"] == 4 / 5 and got["Stuff"]["pq"] == 3 / 4


def test_grey_pictures_have_no_colour(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (90, 90, 90)).save(tmp_path / "grey.png")
    got = score("colorization", tmp_path)
    assert got["n"] == 1 and got["reward"] == 0.0 and got["colourfulness"] == 0.0
    assert score("colorization", tmp_path, annotations=tmp_path)["n_equal"] == 1


# --- how it is asked and answers -------------------------------------------------------------


def test_the_command_prints_one_object_with_every_digit(tmp_path: Path) -> None:
    results = write(tmp_path / "results.json", [box()])
    annotations = write(tmp_path / "instances.json", instances(2))
    result = run("detection", results, "--annotations", annotations)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert json.loads(result.stdout) == score("detection", results, annotations=annotations)
    assert f"{score('detection', results, annotations=annotations)['AP']!r}," in result.stdout


def test_the_package_has_it_as_a_verb(tmp_path: Path) -> None:
    results = write(tmp_path / "results.json", [box()])
    annotations = write(tmp_path / "instances.json", instances())
    got = rewardtune.score("detection", str(results), annotations=str(annotations))
    assert got["AP"] == pytest.approx(1.0)


def test_scoring_needs_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "results.json", [box()])
    write(tmp_path / "instances.json", instances())
    Image.new("RGB", (4, 4), (90, 0, 90)).save(tmp_path / "1.png")
    write(tmp_path / "c.json", captions(i1=["a dog"]))
    write(tmp_path / "r.json", [{"image_id": 1, "caption": "a dog"}])
    program = (
        "import sys, rewardtune\n"
        "rewardtune.score('detection', 'results.json', annotations='instances.json')\n"
        "rewardtune.score('colorization', '.')\n"
        "rewardtune.score('captioning', 'r.json', annotations='c.json')\n"
        "import rewardtune.tasks.panoptic.metric\n"
        "print({'torch', 'ray', 'transformers', 'tokenizers', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "set()\n", done.stderr


RECORD = {"image_id": 1, "caption": "a dog"}


@pytest.mark.parametrize(
    ("task", "results", "annotations", "message"),
    [
        ("detection", instances(), instances(), "is an instances file: the results must be a list"),
        ("detection", [box()], [box()], "is a list of detection results: the ground truth must be"),
        ("detection", [RECORD], instances(), "is a list of captions results: the results must"),
        ("detection", [box()], captions(i1=["a"]), "is a captions file: the ground truth must be"),
        ("detection", [box()], PANOPTIC, "is a panoptic file: the ground truth must be an inst"),
        ("detection", {"a": 1}, instances(), "neither annotations nor results of COCO's"),
        ("detection", 17, instances(), "neither annotations nor results of COCO's"),
        ("detection", [box(99)], instances(), "99"),
        ("detection", [box(), {"image_id": 1}], instances(), "record 2 has no 'category_id'"),
        ("detection", [box(), 3], instances(), "record 2 is no object but 3"),
        ("detection", [box(bbox=[1, 2, 3])], instances(), "bbox = [1, 2, 3]: it must be four"),
        ("detection", [box(category_id="1")], instances(), 'category_id = "1": it must be an int'),
        ("detection", [{**box(), "bbox": []}], instances(), "record 1 has no 'segmentation'"),
        ("detection", [box(score=None)], instances(), "score = null: it must be a number"),
        ("detection", '[{"image_id": 1,', instances(), "results.json is no JSON"),
        ("detection", "", instances(), "results.json is no JSON"),
        ("detection", "[" * 100_000, instances(), "nested too deeply"),
        ("detection", [box(score=math.nan)], instances(), "finite"),
        ("detection", [box()], {"annotations": []}, "has no list 'images'"),
        ("captioning", [box()], captions(i1=["a"]), "is a list of detection results: the results"),
        ("captioning", [RECORD], instances(), "is an instances file: the ground truth must be"),
        ("captioning", [{**RECORD, "image_id": 5}], captions(i1=["a"]), "image 5"),
        ("captioning", [{"image_id": 1, "caption": 5}], captions(i1=["a"]), "caption = 5"),
        ("captioning", [RECORD, RECORD], captions(i1=["a"]), "twice"),
        ("captioning", [], captions(i1=["a"]), "no results"),
        ("panoptic", [box()], PANOPTIC, "is a list of detection results: the results must be a"),
        ("panoptic", PANOPTIC, instances(), "is an instances file: the ground truth must be a"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_scored_are_named(
    tmp_path: Path, task: str, results: Any, annotations: Any, message: str
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "annotations").mkdir()
    results_path = write(tmp_path / "results.json", results)
    annotations_path = write(tmp_path / "annotations.json", annotations)
    assert message in refused(task, results_path, "--annotations", annotations_path)


def test_files_that_are_missing_or_no_files_are_named(tmp_path: Path) -> None:
    results = write(tmp_path / "results.json", [box()])
    missing = tmp_path / "none.json"
    assert f"{missing} does not exist" in refused("detection", results, "--annotations", missing)
    assert "is a folder: a JSON file" in refused("detection", tmp_path, "--annotations", results)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    assert "not text in UTF-8" in refused(
        "detection", tmp_path / "binary.json", "--annotations", results
    )
    assert "name their file" in refused("detection", results)
    assert "not a folder" in refused("colorization", results)
    truth = write(tmp_path / "captions.json", captions(i1=["a dog"]))
    said = write(tmp_path / "said.json", [RECORD])
    assert "none.json" in refused(
        "captioning", said, "--annotations", truth, "--statistics", missing
    )


def test_a_task_that_cannot_score_files_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain_task.py").write_text("class TASK:\n    name = 'plain_task'\n")
    monkeypatch.syspath_prepend(tmp_path)
    results = write(tmp_path / "results.json", [])
    assert "give its class the method score_files" in refused("plain_task", results)
    assert "task 'nonesuch' is neither a folder" in refused("nonesuch", results)


def test_a_module_of_the_users_scores_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting_task.py").write_text(
        "import json\n"
        "class TASK:\n"
        "    @staticmethod\n"
        "    def score_files(results, annotations, options, *, progress=None):\n"
        "        return {'records': len(json.loads(results.read_text())), **options}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    results = write(tmp_path / "results.json", [1, 2])
    result = run("counting_task", results, "--per-image", "--option", "sigma=0.5")
    assert json.loads(result.stdout) == {"records": 2, "per_image": True, "sigma": 0.5}
    assert score("counting_task", results, sigma=1) == {"records": 2, "sigma": 1}


def test_a_value_that_an_option_cannot_have_is_one_line(tmp_path: Path) -> None:
    results = write(tmp_path / "results.json", [])
    with pytest.raises(ValueError, match=r"detection option 'iou_type' = 'boxes'"):
        score("detection", results, annotations=results, iou_type="boxes")


@pytest.mark.parametrize(
    ("task", "option", "values"),
    [
        ("captioning", "--iou-type", ["bbox"]),
        ("detection", "--statistics", ["corpus"]),
        ("panoptic", "--tokenized", []),
        ("colorization", "--per-class", []),
        ("captioning", "--results-images", ["."]),
    ],
)
def test_options_of_another_task_are_refused(
    tmp_path: Path, task: str, option: str, values: list[str]
) -> None:
    results = write(tmp_path / "results.json", [])
    message = refused(task, results, "--annotations", results, option, *values)
    assert f"task '{task}' has no use for it" in message
