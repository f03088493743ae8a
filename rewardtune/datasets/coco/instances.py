"""Examples as the ground truth that COCO's evaluators read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rewardtune.datasets.example import Dataset


def coco_instances(dataset: Dataset, indices: Sequence[int]) -> dict[str, Any]:
    """The examples at ``indices`` as the contents of a COCO instances file, ids as they were.

    What pycocotools needs as ground truth; boxes, areas and segmentations are the source's.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    category_ids = [category.id for category in dataset.categories]
    for index in indices:
        example = dataset.example(index)
        images.append(
            {
                "id": example.image_id,
                "file_name": example.file_name,
                "height": example.height,
                "width": example.width,
            }
        )
        columns = zip(
            example.annotation_id_N.tolist(),
            example.category_N.tolist(),
            example.xywh_N4.tolist(),
            example.area_N.tolist(),
            example.is_crowd_N.tolist(),
            example.segmentation_N or ("",) * len(example.category_N),
            strict=True,
        )
        for number, category, xywh, area, is_crowd, segmentation in columns:
            annotation = {
                "id": number,
                "image_id": example.image_id,
                "category_id": category_ids[category],
                "bbox": xywh,
                "area": area,
                "iscrowd": int(is_crowd),
            }
            if segmentation:
                annotation["segmentation"] = json.loads(segmentation)
            annotations.append(annotation)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name} for c in dataset.categories],
    }
