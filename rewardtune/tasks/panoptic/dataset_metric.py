"""Official panoptic quality of predictions for examples of a data set.

Axes: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset, Example
from rewardtune.tasks.panoptic.codec import segment_ids
from rewardtune.tasks.panoptic.metric import ReadIds, metrics_of_maps


def dataset_metrics(
    dataset: Dataset,
    results: Sequence[Mapping[str, Any]],
    *,
    indices: Sequence[int],
    read_prediction: ReadIds,
) -> dict[str, float]:
    """Panoptic quality over the examples at ``indices``, of maps as large as their images.

    Args:
        results: image_id, file_name and segments_info of each, as in COCO's results.
        read_prediction: an entry of ``results`` to its map of ids.

    Returns:
        pq, sq, rq over all categories, then pq_things and pq_stuff; what has no category is left
        out.

    Raises:
        ValueError: no examples, an example without a map, or results that do not fit.
    """
    if not indices:
        raise ValueError("evaluate needs at least one example, got no indices")
    index_of = {dataset.example(index).image_id: index for index in indices}
    ids = [category.id for category in dataset.categories]

    def read_target(annotation: Mapping[str, Any]) -> NDArray[np.int64]:
        return segment_ids(dataset.example(index_of[annotation["image_id"]]))

    metrics = metrics_of_maps(
        {
            "annotations": [_annotation(dataset.example(index), ids) for index in indices],
            "categories": [
                {"id": category.id, "name": category.name, "isthing": int(category.is_thing)}
                for category in dataset.categories
            ],
        },
        results,
        read_target=read_target,
        read_prediction=read_prediction,
    )
    named = {name: metrics["All"][name] for name in ("pq", "sq", "rq")}
    named |= {"pq_things": metrics["Things"]["pq"], "pq_stuff": metrics["Stuff"]["pq"]}
    return {name: float(value) for name, value in named.items() if value is not None}


def _annotation(example: Example, category_ids: Sequence[int]) -> dict[str, Any]:
    return {
        "image_id": example.image_id,
        "segments_info": [
            {
                "id": segment.id,
                "category_id": category_ids[segment.category],
                "area": segment.area,
                "iscrowd": int(segment.is_crowd),
            }
            for segment in example.segments
        ],
    }
