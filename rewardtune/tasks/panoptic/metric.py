"""Official panoptic quality over a data set, to the last digit.

Reads what the official evaluation reads and refuses what it refuses, with a line that says where.
As officially, ``area`` of a target segment is what the JSON says, predictions for images without
annotation are left out, of two predictions for one image the last counts, and annotated segments
of a category that is not in the list of categories are in no mean.

Axes: C categories, G target segments and P predicted segments of an image with void in front.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Segment
from rewardtune.tasks.panoptic.definition import (
    VOID,
    Counts,
    category_quality,
    image_reward,
    match_image,
    mean_quality,
)
from rewardtune.tasks.panoptic.files import read_ids
from rewardtune.tasks.panoptic.matching import (
    MAX_PAIRS,
    NO_CATEGORY,
    TargetTable,
    UnmatchableError,
    match_ids,
)

ReadIds = Callable[[Mapping[str, Any]], NDArray[np.integer[Any]]]
"""An annotation (image_id, file_name, segments_info) to its map of ids."""


def panoptic_metrics(
    ground_truth: Mapping[str, Any],
    ground_truth_folder: Path,
    predictions: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    predictions_folder: Path,
    *,
    per_class: bool = False,
    per_image: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Panoptic, segmentation and recognition quality of files in COCO's panoptic format.

    Args:
        ground_truth: the annotation JSON: annotations and categories.
        ground_truth_folder: where its PNGs are.
        predictions: the results JSON: annotations, or its list of annotations alone.
        predictions_folder: where its PNGs are.
        per_class: add "per_class": by category id, its name, pq, sq, rq, iou (of its matches,
            summed), tp, fp, fn.
        per_image: add "per_image": a list of image_id, "per_category" (by category id: iou, tp,
            fp, fn) and "reward", the sum of matched IoU less 0.3 per false positive.
        progress: called with images done and images in all.

    Returns:
        "All", "Things" and "Stuff", each with pq, sq, rq in [0, 1] and n, the categories they
        are means of; the three are None where n is 0.

    Raises:
        FileNotFoundError: a PNG is missing.
        ValueError: an image without prediction, maps of different size, segments painted but not
            listed or the reverse, unknown categories, fields that are missing.
    """
    return metrics_of_maps(
        ground_truth,
        predictions,
        read_target=_from(ground_truth_folder),
        read_prediction=_from(predictions_folder),
        per_class=per_class,
        per_image=per_image,
        progress=progress,
    )


def metrics_of_maps(
    ground_truth: Mapping[str, Any],
    predictions: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    read_target: ReadIds,
    read_prediction: ReadIds,
    per_class: bool = False,
    per_image: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """``panoptic_metrics`` of maps that come from anywhere; readers run in several threads."""
    annotations = _listed(ground_truth, "annotations", of="annotations")
    results = (
        _listed(predictions, "annotations", of="results")
        if isinstance(predictions, Mapping)
        else predictions
    )
    for annotation in [*annotations, *results]:
        if missing := {"image_id", "segments_info"} - annotation.keys():
            raise ValueError(
                f"an annotation has no '{min(missing)}', only {', '.join(annotation)}: is this "
                "COCO's panoptic format?"
            )
    prediction_of = {result["image_id"]: result for result in results}
    categories = {
        category["id"]: category
        for category in _listed(ground_truth, "categories", of="annotations")
    }
    for category in categories.values():
        if "isthing" not in category:
            raise ValueError(
                f"category {category['id']} does not say whether it is a thing (isthing 0 or 1): "
                "are these annotations of panoptic segmentation?"
            )
    for annotation in annotations:
        if annotation["image_id"] not in prediction_of:
            raise ValueError(
                f"image {annotation['image_id']} has no prediction: the results need an annotation "
                "for every image, with an empty list if nothing was found"
            )
    unlisted = {
        segment["category_id"]
        for annotation in annotations
        for segment in annotation["segments_info"]
    } - categories.keys()
    scorer = _Scorer(
        index_of={c: k for k, c in enumerate([*categories, *sorted(unlisted)])},
        num_predictable=len(categories),
        read_target=read_target,
        read_prediction=read_prediction,
    )

    total = {category_id: Counts() for category_id in [*categories, *unlisted]}
    images = []
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        pairs = [(a, prediction_of[a["image_id"]]) for a in annotations]
        for done, counts in enumerate(pool.map(scorer.score, pairs), start=1):
            for category_id, of_image in counts.items():
                total[category_id] += of_image
            if per_image:
                images.append(
                    {
                        "image_id": annotations[done - 1]["image_id"],
                        "per_category": {
                            category_id: _as_dict(of_image)
                            for category_id, of_image in counts.items()
                            if not of_image.is_empty
                        },
                        "reward": image_reward(counts),
                    }
                )
            if progress is not None:
                progress(done, len(annotations))
    finally:
        pool.shutdown(cancel_futures=True)

    things = [c for c, category in categories.items() if category["isthing"] == 1]
    stuff = [c for c in categories if c not in things]
    metrics: dict[str, Any] = {}
    for name, members in (("All", list(categories)), ("Things", things), ("Stuff", stuff)):
        quality, num = mean_quality(total[c] for c in members)
        metrics[name] = {
            "pq": None if quality is None else quality.pq,
            "sq": None if quality is None else quality.sq,
            "rq": None if quality is None else quality.rq,
            "n": num,
        }
    if per_class:
        metrics["per_class"] = {
            c: {"name": category.get("name", str(c))} | _qualities(total[c]) | _as_dict(total[c])
            for c, category in categories.items()
        }
    if per_image:
        metrics["per_image"] = images
    return metrics


@dataclass(frozen=True, slots=True)
class _Scorer:
    """Counts one image: reads both maps, checks them and matches them."""

    index_of: Mapping[int, int]
    """Place of each category id; those that only the annotations know come last."""
    num_predictable: int
    read_target: ReadIds
    read_prediction: ReadIds

    def score(self, pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> dict[int, Counts]:
        annotation, prediction = pair
        try:
            return self._score(annotation, prediction)
        except UnmatchableError as error:
            raise ValueError(f"image {annotation['image_id']}: {error.problem}") from None
        except ValueError as error:
            raise ValueError(f"image {annotation['image_id']}: {error}") from None

    def _score(
        self, annotation: Mapping[str, Any], prediction: Mapping[str, Any]
    ) -> dict[int, Counts]:
        target = [self._target_segment(s) for s in annotation["segments_info"]]
        predicted = {
            _field(s, "id", of="predicted"): self._predicted_category(s)
            for s in prediction["segments_info"]
        }
        target_id_HW = self.read_target(annotation)
        predicted_id_HW = self.read_prediction(prediction)
        if target_id_HW.shape != predicted_id_HW.shape:
            raise ValueError(
                f"its map is {_size(target_id_HW)} but the predicted one {_size(predicted_id_HW)} "
                "(height x width): resize the prediction to the image"
            )
        if (len(target) + 2) * (len(predicted) + 1) > MAX_PAIRS:
            counts = match_image(target_id_HW, target, predicted_id_HW, predicted)
        else:
            counts = _match_natively(
                target_id_HW, target, predicted_id_HW, predicted, num_categories=len(self.index_of)
            )
        category_ids = list(self.index_of)
        return {category_ids[index]: of_image for index, of_image in counts.items()}

    def _target_segment(self, segment: Mapping[str, Any]) -> Segment:
        return Segment(
            id=_field(segment, "id", of="annotated"),
            category=self.index_of[segment["category_id"]],
            area=_field(segment, "area", of="annotated"),
            is_crowd=_field(segment, "iscrowd", of="annotated") == 1,
        )

    def _predicted_category(self, segment: Mapping[str, Any]) -> int:
        category_id = _field(segment, "category_id", of="predicted")
        index = self.index_of.get(category_id, self.num_predictable)
        if index >= self.num_predictable:
            raise ValueError(
                f"predicted segment {segment['id']} has category {category_id}, which is not in "
                "the annotations' list of categories"
            )
        return index


def _match_natively(
    target_id_HW: NDArray[np.integer[Any]],
    target: Sequence[Segment],
    predicted_id_HW: NDArray[np.integer[Any]],
    predicted: Mapping[int, int],
    *,
    num_categories: int,
) -> dict[int, Counts]:
    """``match_image`` through the kernel."""
    # Void comes first in the tables, listed or not; ids keep the place where they first stood.
    listed: dict[int, Segment] = {VOID: Segment(VOID, NO_CATEGORY, 0, False)}
    listed |= {segment.id: segment for segment in target}
    categories = {VOID: NO_CATEGORY, **predicted}
    counts = match_ids(
        target_id_HW[None],
        np.array([list(listed)]),
        TargetTable(
            category_IG=np.array([[s.category for s in listed.values()]], dtype=np.int32),
            is_crowd_IG=np.array([[s.is_crowd for s in listed.values()]]),
            area_IG=np.array([[s.area for s in listed.values()]], dtype=np.float64),
        ),
        predicted_id_HW[None],
        np.array([list(categories)]),
        np.array([list(categories.values())], dtype=np.int32),
        np.zeros(1, dtype=np.int64),
        is_merged_C=np.zeros(num_categories, dtype=np.bool_),
    )
    mentioned = {*(segment.category for segment in target), *predicted.values()}
    return {
        c: Counts(
            float(counts.matched_iou_SC[0, c]),
            int(counts.true_positives_SC[0, c]),
            int(counts.false_positives_SC[0, c]),
            int(counts.false_negatives_SC[0, c]),
        )
        for c in sorted(mentioned)
    }


def _listed(file: Mapping[str, Any], name: str, *, of: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(file.get(name), Sequence):
        raise ValueError(f"the {of} file has no list of {name}: is it COCO's panoptic JSON?")
    listed: Sequence[Mapping[str, Any]] = file[name]
    return listed


def _from(folder: Path) -> ReadIds:
    def read(annotation: Mapping[str, Any]) -> NDArray[np.integer[Any]]:
        if "file_name" not in annotation:
            raise ValueError("its annotation has no 'file_name', the name of its PNG")
        return read_ids(folder / annotation["file_name"])

    return read


def _field(segment: Mapping[str, Any], name: str, *, of: str) -> Any:
    if name not in segment:
        raise ValueError(f"{of} segment {segment.get('id', '?')} has no '{name}'")
    return segment[name]


def _qualities(counts: Counts) -> dict[str, float]:
    quality = category_quality(counts)
    return {"pq": quality.pq, "sq": quality.sq, "rq": quality.rq}


def _as_dict(counts: Counts) -> dict[str, float]:
    return {
        "iou": counts.matched_iou,
        "tp": counts.true_positives,
        "fp": counts.false_positives,
        "fn": counts.false_negatives,
    }


def _size(map_HW: NDArray[Any]) -> str:
    return f"{map_HW.shape[0]} x {map_HW.shape[1]}"
