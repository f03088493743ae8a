"""Annotated and predicted panoptic maps of 480 x 640 to measure on, in memory and as files.

Axes: N pairs, G segments, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.panoptic.files import png_of_ids, read_ids

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "panoptic"
SIZE = (480, 640)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Maps of one size with their lists, as COCO has them."""

    target_id_NHW: NDArray[np.uint32]
    predicted_id_NHW: NDArray[np.uint32]
    targets: Sequence[Sequence[Mapping[str, Any]]]
    predictions: Sequence[Sequence[Mapping[str, Any]]]
    categories: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The pairs as COCO's files."""

    target: dict[str, Any]
    target_folder: Path
    predicted: dict[str, Any]
    predicted_folder: Path

    @staticmethod
    def write(pairs: Pairs, folder: Path) -> PairFiles:
        sides = []
        for name, maps, lists in (
            ("target", pairs.target_id_NHW, pairs.targets),
            ("predicted", pairs.predicted_id_NHW, pairs.predictions),
        ):
            (folder / name).mkdir(exist_ok=True)
            annotations = []
            for n, (map_HW, segments) in enumerate(zip(maps, lists, strict=True)):
                (folder / name / f"{n}.png").write_bytes(png_of_ids(map_HW))
                annotations.append(
                    {"image_id": n, "file_name": f"{n}.png", "segments_info": list(segments)}
                )
            sides.append(annotations)
        images = [
            {"id": n, "file_name": f"{n}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for n in range(len(pairs))
        ]
        return PairFiles(
            {"images": images, "annotations": sides[0], "categories": list(pairs.categories)},
            folder / "target",
            {"annotations": sides[1]},
            folder / "predicted",
        )


def real_pairs() -> Pairs | None:
    if not (SHARED / "gt_a.json").exists():
        return None
    ground_truth = json.loads((SHARED / "gt_a.json").read_text())
    predictions = {
        p["image_id"]: p for p in json.loads((SHARED / "pred_a.json").read_text())["annotations"]
    }
    maps: list[list[NDArray[np.uint32]]] = [[], []]
    lists: list[list[Any]] = [[], []]
    for annotation in ground_truth["annotations"]:
        target = read_ids(SHARED / "gt_a" / annotation["file_name"])
        if target.shape != SIZE:
            continue
        prediction = predictions[annotation["image_id"]]
        maps[0].append(target)
        maps[1].append(read_ids(SHARED / "pred_a" / prediction["file_name"]))
        lists[0].append(annotation["segments_info"])
        lists[1].append(prediction["segments_info"])
    return Pairs(
        np.stack(maps[0]), np.stack(maps[1]), lists[0], lists[1], ground_truth["categories"]
    )


def made_pairs(*, num: int) -> Pairs:
    """Regions nearest to 13 points with ragged borders; predicted with the points moved."""
    rng = np.random.default_rng(0)
    maps = np.empty((2, num, *SIZE), dtype=np.uint32)
    lists: list[list[Any]] = [[], []]
    grid_HW2 = np.moveaxis(np.mgrid[: SIZE[0], : SIZE[1]], 0, -1)
    for n in range(num):
        point_G2 = rng.random((13, 2)) * SIZE
        id_G = rng.choice(2**20, size=13, replace=False) + 1
        category_G = rng.integers(1, 134, size=13)
        for side in range(2):
            moved_G2 = point_G2 + side * rng.normal(size=point_G2.shape) * 15
            ragged_HW2 = grid_HW2 + rng.normal(size=(*SIZE, 2))
            distance_GHW = [np.sum((ragged_HW2 - point) ** 2, axis=-1) for point in moved_G2]
            maps[side, n] = id_G[np.argmin(distance_GHW, axis=0)]
            ids, areas = np.unique(maps[side, n], return_counts=True)
            category_of = dict(zip(id_G.tolist(), category_G.tolist(), strict=True))
            lists[side].append(
                [
                    {"id": i, "category_id": category_of[i], "iscrowd": 0, "area": a}
                    for i, a in zip(ids.tolist(), areas.tolist(), strict=True)
                ]
            )
    categories = [{"id": c, "name": str(c), "isthing": int(c <= 80)} for c in range(1, 134)]
    return Pairs(maps[0], maps[1], lists[0], lists[1], categories)


def repeated(pairs: Pairs, *, num: int) -> Pairs:
    """``num`` pairs in memory of their own, so that no cache holds more than it would."""
    chosen = [n % len(pairs) for n in range(num)]
    return Pairs(
        pairs.target_id_NHW[chosen],
        pairs.predicted_id_NHW[chosen],
        [pairs.targets[n] for n in chosen],
        [pairs.predictions[n] for n in chosen],
        pairs.categories,
    )
