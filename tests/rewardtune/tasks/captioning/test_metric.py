"""The caption server's metrics against official values, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.metric import caption_metrics
from tests.rewardtune.tasks.captioning import test_bleu, test_rouge
from tests.rewardtune.tasks.captioning.cider.test_definition import CANDIDATES, OFFICIAL, REFERENCES

SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "captions"

# Image ids on purpose not in order, and one image that nobody captioned.
IDS = [40, 2, 33, 5, 17]
GROUND_TRUTH = {
    "images": [{"id": i} for i in [99, *sorted(IDS)]],
    "annotations": [
        {"image_id": i, "caption": caption}
        for i, image in zip(IDS, REFERENCES, strict=True)
        for caption in image
    ]
    + [{"image_id": 99, "caption": "a caption of an image without a result"}],
}
RESULTS = [{"image_id": i, "caption": caption} for i, caption in zip(IDS, CANDIDATES, strict=True)]


def test_all_metrics_are_the_official_ones() -> None:
    metrics = caption_metrics(GROUND_TRUTH, RESULTS, per_image=True)
    per_image = metrics.pop("per_image")
    assert metrics == pytest.approx(
        {
            "CIDEr-D": 1.6657878306347258,
            "BLEU-1": test_bleu.OFFICIAL_CORPUS[0],
            "BLEU-2": test_bleu.OFFICIAL_CORPUS[1],
            "BLEU-3": test_bleu.OFFICIAL_CORPUS[2],
            "BLEU-4": test_bleu.OFFICIAL_CORPUS[3],
            "ROUGE-L": 0.5707894533191048,
        },
        abs=1e-12,
    )
    assert [image["image_id"] for image in per_image] == IDS
    for image, cider, bleu, rouge in zip(
        per_image, OFFICIAL, test_bleu.OFFICIAL, test_rouge.OFFICIAL, strict=True
    ):
        assert image["CIDEr-D"] == pytest.approx(cider, abs=1e-12)
        assert image["ROUGE-L"] == pytest.approx(rouge, abs=1e-12)
        assert [image[f"BLEU-{n}"] for n in range(1, 5)] == pytest.approx(bleu, abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside this repository")
def test_a_whole_system_scores_as_officially_from_the_captions_as_written() -> None:
    images = json.loads((SHARED / "refs.json").read_text())
    captions = json.loads((SHARED / "candidates.json").read_text())["magic"]
    expected = json.loads((SHARED / "expected_ciderd_corpus_df.json").read_text())["magic"]
    metrics = caption_metrics(
        {
            "images": [{"id": image["image_id"]} for image in images],
            "annotations": [
                {"image_id": image["image_id"], "caption": caption}
                for image in images
                for caption in image["raw"]
            ],
        },
        [{"image_id": c["image_id"], "caption": c["raw"]} for c in captions],
        per_image=True,
    )
    assert metrics["CIDEr-D"] == pytest.approx(expected["corpus_mean"], abs=1e-12)
    assert [image["CIDEr-D"] for image in metrics["per_image"]] == pytest.approx(
        expected["per_caption"], abs=1e-12
    )


def test_punctuation_is_left_out_unless_captions_are_tokenised_already() -> None:
    results = [{**result, "caption": f"{result['caption']} ."} for result in RESULTS]
    assert caption_metrics(GROUND_TRUTH, results) == caption_metrics(GROUND_TRUTH, RESULTS)
    tokenised = caption_metrics(GROUND_TRUTH, results, is_tokenized=True)
    assert tokenised["BLEU-1"] < caption_metrics(GROUND_TRUTH, RESULTS)["BLEU-1"]


def test_frequencies_of_a_training_set_change_cider_alone() -> None:
    frequencies = DocumentFrequencies.of_words([[["a", "cat"]], [["dogs"]], [["b"]]])
    corpus = caption_metrics(GROUND_TRUTH, RESULTS)
    fixed = caption_metrics(GROUND_TRUTH, RESULTS, frequencies=frequencies)
    assert fixed.pop("CIDEr-D") != corpus.pop("CIDEr-D")
    assert fixed == corpus


def test_a_single_image_has_no_cider_by_its_own_frequencies() -> None:
    assert caption_metrics(GROUND_TRUTH, RESULTS[:1])["CIDEr-D"] == 0.0


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GROUND_TRUTH.items() if name != key}


@pytest.mark.parametrize(
    ("ground_truth", "results", "problem"),
    [
        (GROUND_TRUTH, [], "no results to score"),
        (GROUND_TRUTH, [*RESULTS, RESULTS[0]], "name image 40 twice"),
        (GROUND_TRUTH, [{"image_id": 1, "caption": "a"}], "image 1, which the annotations"),
        (GROUND_TRUTH, [{"image_id": 40}], "item 0 of the results needs"),
        (GROUND_TRUTH, [{"image_id": "40", "caption": "a"}], "item 0 of the results needs"),
        (GROUND_TRUTH, ["a"], "is 'a', not an object"),
        (without("images"), RESULTS, "no list 'images'"),
        (without("annotations"), RESULTS, "no list 'annotations'"),
        ({"images": [{}], "annotations": []}, RESULTS, "no integer 'id'"),
        ({"images": [], "annotations": [{"image_id": 3, "caption": ""}]}, RESULTS, "image 3"),
        ({"images": [{"id": 40}], "annotations": []}, RESULTS[:1], "no reference captions"),
    ],
)
def test_what_cannot_be_scored_is_an_error(
    ground_truth: dict[str, Any], results: list[Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        caption_metrics(ground_truth, results)
