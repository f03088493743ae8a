"""The metrics of the COCO caption server: CIDEr-D, BLEU-1 to BLEU-4, ROUGE-L.

Axes: C captions, 4 n-gram lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardtune.tasks.captioning.bleu import bleu_counts, corpus_bleu
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_tokens
from rewardtune.tasks.captioning.reward import CaptionReward
from rewardtune.tasks.captioning.rouge import rouge_l

BLEU_NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")


def caption_metrics(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    frequencies: DocumentFrequencies | None = None,
    per_image: bool = False,
    is_tokenized: bool = False,
) -> dict[str, Any]:
    """Score captions against the references of their images.

    Only images with a result count, as in the published example of use. Every caption is
    tokenised alone, so that no line break inside one can shift the others.

    Args:
        ground_truth: COCO captions: lists "images" (each with id) and "annotations" (image_id,
            caption).
        results: one record per image: image_id and caption.
        frequencies: of the training set; None: those of the references of the scored images, as
            the server has it. CIDEr-D of a single image is then 0.
        per_image: add "per_image": a list, in the order of ``results``, of image_id and its scores.
        is_tokenized: take captions and references as words between blanks.

    Returns:
        "CIDEr-D" (0 to 10), "BLEU-1" to "BLEU-4" and "ROUGE-L" (0 to 1).

    Raises:
        ValueError: no results, an image unknown, named twice or without references, or a record
            that lacks a key.
    """
    references = _references(ground_truth)
    captions: dict[int, str] = {}
    for place, record in enumerate(results):
        image_id, caption = _read(record, place=place, of="results")
        if image_id not in references:
            raise ValueError(
                f"result {place} is for image {image_id}, which the annotations do not list: "
                f"score with the annotations of the same split"
            )
        if image_id in captions:
            raise ValueError(
                f"results name image {image_id} twice: give one caption per image, as the COCO "
                f"caption server demands"
            )
        if not references[image_id]:
            raise ValueError(
                f"image {image_id} has a result but no reference captions: leave its result out"
            )
        captions[image_id] = caption
    if not captions:
        raise ValueError("no results to score: the list is empty")
    return _scored(
        captions,
        {image_id: references[image_id] for image_id in captions},
        frequencies=frequencies,
        per_image=per_image,
        is_tokenized=is_tokenized,
    )


def _scored(
    captions: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    *,
    frequencies: DocumentFrequencies | None,
    per_image: bool,
    is_tokenized: bool,
) -> dict[str, Any]:
    def tokens(caption: str) -> list[str]:
        return caption.split(" ") if is_tokenized else ptb_tokens(caption)

    candidate_C = [tokens(caption) for caption in captions.values()]
    references_C = [[tokens(text) for text in references[image_id]] for image_id in captions]
    # CIDEr and BLEU split a token again at a no-break space, ROUGE does not.
    words_C = [_words(candidate) for candidate in candidate_C]
    reference_words_C = [[_words(reference) for reference in group] for group in references_C]

    if frequencies is None:
        frequencies = DocumentFrequencies.of_words(reference_words_C)
    reward = CaptionReward(frequencies)
    cider_C = reward.score_batch([[words] for words in words_C], reference_words_C)
    counts_C = [
        bleu_counts(words, group) for words, group in zip(words_C, reference_words_C, strict=True)
    ]
    rouge_C = [
        rouge_l(candidate, group)
        for candidate, group in zip(candidate_C, references_C, strict=True)
    ]
    metrics: dict[str, Any] = {
        "CIDEr-D": float(np.mean(cider_C)),
        **_named(corpus_bleu(counts_C).tolist()),
        "ROUGE-L": float(np.mean(rouge_C)),
    }
    if per_image:
        metrics["per_image"] = [
            {
                "image_id": image_id,
                "CIDEr-D": float(cider),
                **_named(counts.scores().tolist()),
                "ROUGE-L": rouge,
            }
            for image_id, cider, counts, rouge in zip(
                captions, cider_C, counts_C, rouge_C, strict=True
            )
        ]
    return metrics


def _named(bleu_4: Sequence[float]) -> dict[str, float]:
    return dict(zip(BLEU_NAMES, bleu_4, strict=True))


def _words(tokens: Sequence[str]) -> list[str]:
    return " ".join(tokens).split()


def _references(ground_truth: Mapping[str, Any]) -> dict[int, list[str]]:
    """The reference captions of every image that the annotations list."""
    for key in ("images", "annotations"):
        if not isinstance(ground_truth.get(key), list):
            raise ValueError(
                f"the annotations have no list '{key}': a COCO captions file is an object with "
                f"'images' and 'annotations'"
            )
    references: dict[int, list[str]] = {}
    for place, image in enumerate(ground_truth["images"]):
        if not isinstance(image, Mapping) or not _is_id(image.get("id")):
            raise ValueError(f"image {place} of the annotations has no integer 'id': {image!r}")
        references[image["id"]] = []
    for place, annotation in enumerate(ground_truth["annotations"]):
        image_id, caption = _read(annotation, place=place, of="annotations")
        if image_id not in references:
            raise ValueError(
                f"annotation {place} is for image {image_id}, which 'images' does not list"
            )
        references[image_id].append(caption)
    return references


def _read(record: object, *, place: int, of: str) -> tuple[int, str]:
    if not isinstance(record, Mapping):
        raise ValueError(f"item {place} of the {of} is {record!r}, not an object")
    image_id, caption = record.get("image_id"), record.get("caption")
    if not _is_id(image_id) or not isinstance(caption, str):
        raise ValueError(
            f"item {place} of the {of} needs an integer 'image_id' and a text 'caption', got "
            f"{dict(record)!r}"
        )
    assert isinstance(image_id, int)
    return image_id, caption


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
