"""From what COCO's files say of an image to our example of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rewardtune.datasets.coco.broken import Broken, BrokenLog
from rewardtune.datasets.coco.pictures import Picture
from rewardtune.datasets.coco.source import CocoSource, ImageEntry
from rewardtune.datasets.example import Category, Example, Segment
from rewardtune.datasets.images import BrokenImage, inspect_image


class ExampleBuilder:
    """Makes an image's example from what the JSON files say of it."""

    def __init__(
        self,
        sources: Sequence[CocoSource],
        categories: Sequence[Category],
        *,
        panoptic_images: Path | None,
        log: BrokenLog,
    ) -> None:
        self._sources = {source.kind: source for source in sources}
        self._index_of = {category.id: index for index, category in enumerate(categories)}
        self._panoptic_images = panoptic_images
        self._log = log

    def example(self, entry: ImageEntry, picture: Picture) -> Example:
        objects = self._annotations("instances", entry.id)
        example = Example(
            image_id=entry.id,
            file_name=entry.file_name,
            height=picture.height,
            width=picture.width,
            image=picture.data,
            xywh_N4=np.array([o["bbox"] for o in objects], dtype=np.float64).reshape(-1, 4),
            category_N=np.array(
                [self._index_of[o["category_id"]] for o in objects], dtype=np.int64
            ),
            area_N=np.array(
                [o.get("area", o["bbox"][2] * o["bbox"][3]) for o in objects], dtype=np.float64
            ),
            is_crowd_N=np.array([bool(o.get("iscrowd", 0)) for o in objects], dtype=np.bool_),
            annotation_id_N=np.array([o["id"] for o in objects], dtype=np.int64),
            segmentation_N=tuple(_segmentation_text(o) for o in objects),
            captions=tuple(c["caption"] for c in self._annotations("captions", entry.id)),
        )
        for annotation in self._annotations("panoptic", entry.id):
            example = self._with_panoptic(example, annotation)
        return example

    def _annotations(self, kind: str, image_id: int) -> list[dict[str, Any]]:
        return self._sources[kind].spool.of(image_id) if kind in self._sources else []

    def _with_panoptic(self, example: Example, annotation: Mapping[str, Any]) -> Example:
        assert self._panoptic_images is not None  # convert_coco found it beside the JSON
        name = annotation.get("file_name") or PurePosixPath(example.file_name).stem + ".png"
        path = self._panoptic_images / PurePosixPath(name).name
        problem = None
        data = b""
        try:
            data = path.read_bytes()
            facts = inspect_image(data)
            if (facts.height, facts.width) != (example.height, example.width):
                problem = (
                    f"its map is {facts.height} x {facts.width} (height x width), "
                    f"its image {example.height} x {example.width}"
                )
        except OSError as error:
            problem = f"its map cannot be read: {error.strerror}"
        except BrokenImage as error:
            problem = str(error)
        segments = annotation["segments_info"]
        unknown = [s["category_id"] for s in segments if s["category_id"] not in self._index_of]
        if unknown:
            problem = f"its categories {unknown} are not in the list of categories"
        if problem is not None:
            self._log.add(Broken(path, "panoptic map", example.image_id, problem))
            return example
        return replace(
            example,
            panoptic_png=data,
            segments=tuple(
                Segment(
                    id=s["id"],
                    category=self._index_of[s["category_id"]],
                    area=int(s.get("area", 0)),
                    is_crowd=bool(s.get("iscrowd", 0)),
                )
                for s in segments
            ),
        )


def _segmentation_text(annotation: Mapping[str, Any]) -> str:
    segmentation = annotation.get("segmentation")
    # Written anew, so that the digest does not depend on the spacing of the source.
    return "" if segmentation is None else json.dumps(segmentation, separators=(",", ":"))
