"""The split of COCO that captioning is measured on, as COCO captions files.

``dataset_coco.json`` of Karpathy and Fei-Fei 2015 lists the images of COCO 2014 with their captions
and says which are for training, choosing and testing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPLITS: Mapping[str, str] = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""Theirs to ours: what was left over of the validation images is trained on."""


def karpathy_splits(path: Path) -> dict[str, dict[str, Any]]:
    """COCO captions (images, annotations) of "train", "val" and "test".

    Raises:
        ValueError: the file cannot be read, or an image lacks something; names it.
    """
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no Karpathy split ({error!r}): give dataset_coco.json, an object with a "
            "list 'images'"
        ) from error
    made: dict[str, dict[str, Any]] = {
        split: {"images": [], "annotations": []} for split in dict.fromkeys(SPLITS.values())
    }
    num_captions = 0
    for place, image in enumerate(images):
        try:
            coco = made[SPLITS[image["split"]]]
            image_id, file_name = int(image["cocoid"]), str(image["filename"])
            captions = [str(sentence["raw"]) for sentence in image["sentences"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: image {place} needs split ({', '.join(SPLITS)}), cocoid, filename and "
                f"sentences with raw, got {error!r}"
            ) from error
        folder = f"{image['filepath']}/" if image.get("filepath") else ""
        coco["images"].append({"id": image_id, "file_name": f"{folder}{file_name}"})
        for caption in captions:
            num_captions += 1
            coco["annotations"].append(
                {"id": num_captions, "image_id": image_id, "caption": caption}
            )
    return made
