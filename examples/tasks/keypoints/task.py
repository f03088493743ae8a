"""The task: what the pipeline calls. Implements ``rewardtune.tasks.task.Task``.

Axes: S rollouts, T tokens of a sequence, Q probed tokens, N objects, K points of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from keypoints.codec import END, Found, KeypointCodec
from keypoints.oks import coco_keypoint_metrics, matched_similarity, similarity
from keypoints.paint import paint_points
from keypoints.points import MIRRORED, POINTS, Objects, annotated_objects, annotation_of
from keypoints.probe import KeypointProbe
from keypoints.results_files import score_keypoints
from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Frame, Framed
from rewardtune.datasets.images import decode_image
from rewardtune.records import Score
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.options import read_options
from rewardtune.tasks.results_files import Progress
from rewardtune.tasks.token_task import TokenTask
from rewardtune.tasks.vocabulary import Vocabulary


class KeypointOptions(BaseModel):
    """``[task_options]`` of a run's config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_objects: int = Field(default=2, ge=1)
    num_levels: int = Field(default=48, ge=2)
    """Places that a coordinate can have."""
    sigma: float = Field(default=0.1, gt=0)
    """Of the similarity; see ``oks.similarity``."""
    false_object_weight: float = Field(default=0.3, ge=0)
    """Objects lost per predicted object that is not there at all."""


@dataclass(frozen=True, slots=True)
class KeypointObject:
    """One predicted object, as custom rewards are given it."""

    category: int
    """Index into the data set's categories."""
    name: str
    points: Mapping[str, tuple[float, float]]
    """x, y in pixels of the example's image, by "top", "left", "bottom", "right"."""


DecodedObjects = Decoded[list[KeypointObject], list[list[Found]]]
"""Of a group: for a reward as they are seen, for custom rewards and results in the image."""


class KeypointTask(TokenTask):
    name = "keypoints"
    score_rules = ("object",)

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        self._options = read_options(KeypointOptions, options, task="keypoints")
        self._categories = tuple(categories)
        self._codec = KeypointCodec(
            num_classes=len(self._categories),
            max_objects=self._options.max_objects,
            num_levels=self._options.num_levels,
        )
        super().__init__(
            Vocabulary(
                task=self.name,
                size=self._codec.vocab_size,
                max_tokens=self._codec.sequence_length,
                stop_tokens=(END,),
                meaning={
                    "num_levels": self._options.num_levels,
                    "points": list(POINTS),
                    "class_names": [category.name for category in self._categories],
                },
            )
        )

    @classmethod
    def probe(cls, options: Mapping[str, Any], dataset: Dataset) -> KeypointProbe:
        """For ``rewardtune reward check``."""
        task = cls(options, categories=dataset.categories)
        return KeypointProbe(task, dataset, codec=task._codec)

    @staticmethod
    def score_files(
        results: Path,
        annotations: Path | None,
        options: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """For ``rewardtune score``."""
        return score_keypoints(results, annotations, options)

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        objects, yx_NK2 = _seen(framed)
        return self._codec.encode(objects.category_N, yx_NK2)

    def score(
        self, decoded: Decoded[list[KeypointObject], list[list[Found]]], framed: Framed
    ) -> Score:
        """Rewards in objects: 0 of an empty sequence, the number of objects of a perfect one.

        A predicted object earns the similarity it has matched, and pays for what that lacks to 1.
        """
        objects, _ = _seen(framed)
        earned, paid, number = [], [], []
        for found in decoded.seen:
            points = [_in_image(each, framed.frame) for each in found]
            oks_MN = similarity(
                np.array(points).reshape(-1, len(POINTS), 2),
                objects.xy_NK2,
                objects.area_N,
                sigma=self._options.sigma,
            )
            category_M = np.array([each.category for each in found], dtype=np.int64)
            matched_M = matched_similarity(oks_MN, category_M, objects.category_N)
            earned.append(matched_M.sum())
            paid.append(-self._options.false_object_weight * (1 - matched_M).sum())
            number.append(len(found))
        components = {
            "similarity": np.array(earned, dtype=np.float64),
            "false_objects": np.array(paid, dtype=np.float64),
            "objects": np.array(number, dtype=np.float64),
        }
        return Score(components["similarity"] + components["false_objects"], components)

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> DecodedObjects:
        found_S = [list(self._codec.decode(tokens_T)) for tokens_T in tokens_ST]

        def in_image(place: int) -> list[KeypointObject]:
            return [
                KeypointObject(each.category, self._categories[each.category].name, points)
                for each, points in _named(found_S[place], framed)
            ]

        return Decoded(tokens_ST, found_S, in_image)

    def predict(
        self,
        decoded: DecodedObjects,
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """COCO's keypoint results. The score: how likely the object's tokens were, on average."""
        results = []
        for found, points in _named(decoded.seen[0], framed):
            tokens = slice(found.start, found.start + self._codec.tokens_per_object)
            keypoints = [number for x, y in points.values() for number in (x, y, 2)]
            results.append(
                {
                    "image_id": framed.example.image_id,
                    "category_id": self._categories[found.category].id,
                    "keypoints": keypoints,
                    "score": float(np.exp(log_probs_T[tokens].mean(dtype=np.float64))),
                }
            )
        return results

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        examples = [dataset.example(index) for index in indices]
        annotations: list[dict[str, Any]] = []
        for example in examples:
            for annotation in self._annotations(example):
                annotations.append({"id": len(annotations) + 1, **annotation})
        metrics = coco_keypoint_metrics(
            [example.image_id for example in examples],
            annotations,
            results,
            sigma=self._options.sigma,
        )
        return {**metrics, "objects_per_image": len(results) / len(indices)}

    def paint(
        self, example: Example, records: Sequence[Mapping[str, Any]] | None
    ) -> NDArray[np.uint8]:
        """The picture with its results, or, of None, with what is annotated."""
        shown = self._annotations(example) if records is None else records
        index_of = {category.id: index for index, category in enumerate(self._categories)}
        objects = []
        for record in shown:
            category = index_of[record["category_id"]]
            name = self._categories[category].name
            words = f"{name} {record['score']:.2f}" if "score" in record else name
            xyv = record["keypoints"]
            objects.append((category, words, list(zip(xyv[0::3], xyv[1::3], strict=True))))
        return paint_points(decode_image(example.image), objects)

    def write_results(self, records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        (folder / "results.json").write_text(json.dumps(list(records)))

    def _annotations(self, example: Example) -> Iterator[dict[str, Any]]:
        objects = annotated_objects(example)
        for category, xy_K2, area in zip(
            objects.category_N, objects.xy_NK2, objects.area_N, strict=True
        ):
            yield {
                "image_id": example.image_id,
                "category_id": self._categories[category].id,
                **annotation_of(xy_K2, float(area)),
            }


def _named(
    found: Sequence[Found], framed: Framed
) -> Iterator[tuple[Found, dict[str, tuple[float, float]]]]:
    """Objects with their points in the example's own image."""
    for each in found:
        xy_K2 = _in_image(each, framed.frame)
        yield each, {name: (x, y) for name, (x, y) in zip(POINTS, xy_K2.tolist(), strict=True)}


def _seen(framed: Framed) -> tuple[Objects, NDArray[np.float64]]:
    """The objects all of whose points are in the view, and those points relative to the input."""
    objects = annotated_objects(framed.example)
    xy_N2 = objects.xy_NK2.reshape(-1, 2)
    # A point is a box without sides.
    yxyx_N4 = framed.frame.to_frame(np.concatenate([xy_N2, xy_N2], axis=1))
    yx_NK2 = yxyx_N4[:, :2].reshape(objects.xy_NK2.shape)
    if framed.frame.view.flip:
        yx_NK2 = yx_NK2[:, MIRRORED]
    inside_N = ((yx_NK2 >= 0) & (yx_NK2 < 1)).all(axis=(1, 2))
    kept = Objects(objects.category_N[inside_N], objects.xy_NK2[inside_N], objects.area_N[inside_N])
    return kept, yx_NK2[inside_N]


def _in_image(found: Found, frame: Frame) -> NDArray[np.float64]:
    """Points x, y [K, 2] in pixels of the example's image: the view undone."""
    xyxy_K4 = frame.to_image(np.concatenate([found.yx_K2, found.yx_K2], axis=1))
    xy_K2 = xyxy_K4[:, :2]
    return xy_K2[MIRRORED] if frame.view.flip else xy_K2
