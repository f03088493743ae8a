"""The panoptic task: codes of a stage I, rewarded for the segments that they decode to.

Axes: S rollouts, T tokens of a sequence, Q probed tokens, H height, W width.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.records import Score
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.panoptic.codec import (
    in_image,
    label_maps,
    panoptic_target,
    segment_ids,
    segments_of,
)
from rewardtune.tasks.panoptic.dataset_metric import dataset_metrics
from rewardtune.tasks.panoptic.files import (
    PredictedMap,
    ids_of_png,
    png_of_ids,
    segments_info,
    write_predictions,
)
from rewardtune.tasks.panoptic.paint import paint_segments
from rewardtune.tasks.panoptic.probe import PanopticProbe
from rewardtune.tasks.panoptic.results_files import score_maps
from rewardtune.tasks.panoptic.reward import FALSE_POSITIVE_WEIGHT, panoptic_reward_of_two_channels
from rewardtune.tasks.results_files import Progress
from rewardtune.tasks.uvim.config import SEMANTICS
from rewardtune.tasks.uvim.options import StageOneOptions
from rewardtune.tasks.uvim.task import StageOneTask

SCORE_RULES = ("segments",)
"""Segments do not overlap: there is nothing to rank."""

RESULTS_NAME = "panoptic.json"
_PNG = "png"
"""Where a record holds its map: a PNG in base64, which files of results have beside them."""


Maps = Decoded[NDArray[np.int32], NDArray[np.int32]]
"""Of class and instance id: of a rollout in the example's image, of all as they are seen."""


class PanopticOptions(StageOneOptions):
    """Options of ``load_task("panoptic", ...)``."""

    false_positive_weight: float = Field(default=FALSE_POSITIVE_WEIGHT, ge=0)
    """Segments lost per predicted segment that matches nothing."""

    min_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Predicted instances that cover no more than this share of the input become void."""


class PanopticTask(StageOneTask[PanopticOptions]):
    """Codec, reward and metric of panoptic segmentation: ``rewardtune.tasks.task.Task``."""

    name = "panoptic"
    score_rules = SCORE_RULES

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        """Validate the options and map stage I into memory.

        Args:
            options: the fields of ``PanopticOptions``.
            categories: the data set's classes, in the order that codes know them by.

        Raises:
            ValueError: an option that is unknown or out of range, a stage I that cannot be read
                or is for other labels or other classes.
        """
        super().__init__(
            PanopticOptions,
            options,
            meaning={
                "class_names": [category.name for category in categories],
                "is_thing": [category.is_thing for category in categories],
            },
        )
        self._categories = tuple(categories)
        self._is_thing_C = np.array([category.is_thing for category in categories], dtype=bool)
        self._check_classes()

    @classmethod
    def probe(cls, options: Mapping[str, Any], dataset: Dataset) -> PanopticProbe:
        """Made maps, for ``rewardtune reward check``; options are those of the probe."""
        return PanopticProbe(options, dataset)

    @staticmethod
    def score_files(
        results: Path,
        annotations: Path | None,
        options: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return score_maps(results, annotations, options, progress=progress)

    @property
    def score_bounds(self) -> dict[str, tuple[float, float]]:
        """Every pair of class and instance that stage I can paint is one segment at most."""
        outputs = self._codec.config.outputs
        most = float(outputs["semantics"] * outputs["instances"])
        worst = -self._options.false_positive_weight * most
        return {
            "reward": (worst, most),
            "matched_iou": (0.0, most),
            "false_positive_penalty": (worst, 0.0),
            "true_positives": (0.0, most),
            "false_positives": (0.0, most),
        }

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        """The annotation seen in the view, encoded by stage I; nothing is drawn from ``rng``."""
        self._check_framing(framed.frame.framing)
        return self._codec.encode(label_maps(framed), _image(framed))

    def score(self, decoded: Maps, framed: Framed) -> Score:
        """Rewards of a group's rollouts, in segments; see ``rewardtune.tasks.panoptic.reward``.

        Components: "matched_iou" (earned) and "false_positive_penalty" (lost, <= 0) sum to the
        reward; "true_positives", "false_positives" and "false_negatives" count segments.

        Raises:
            ValueError: an example without annotation.
        """
        target, map_SHW2 = panoptic_target(framed), decoded.seen
        reward = panoptic_reward_of_two_channels(
            map_SHW2[..., 0],
            map_SHW2[..., 1],
            target,
            is_thing_C=self._is_thing_C,
            false_positive_weight=self._options.false_positive_weight,
        )
        return Score(
            reward_S=reward.reward_S,
            components={
                "matched_iou": reward.matched_iou_S,
                "false_positive_penalty": reward.reward_S - reward.matched_iou_S,
                "true_positives": reward.true_positives_S.astype(np.float64),
                "false_positives": reward.false_positives_S.astype(np.float64),
                "false_negatives": reward.false_negatives_S.astype(np.float64),
            },
        )

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Maps:
        """Maps of the rollouts, as large as the example's image: class and instance id [H, W, 2].

        A class is the index of a category + 1; 0 is void, also outside the view.

        Raises:
            ValueError: tokens of another shape or vocabulary, or an input of another size than
                stage I's.
        """
        self._check_framing(framed.frame.framing)
        maps_SHW2 = self._codec.decode_panoptic(
            tokens_ST, _image(framed), min_fraction=self._options.min_fraction
        )
        return Decoded(tokens_ST, maps_SHW2, lambda place: in_image(maps_SHW2[place], framed.frame))

    def predict(
        self,
        decoded: Maps,
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """One sequence as COCO's panoptic result, its map beside it.

        One record: image_id, file_name, segments_info, and "png", the map of segment ids as a
        PNG in base64. The map has the image's own size.
        """
        self._check_rule(score_rule)
        id_HW, category_of = segments_of(decoded[0], is_thing_C=self._is_thing_C)
        category_ids = {i: self._categories[label].id for i, label in category_of.items()}
        return [
            {
                "image_id": framed.example.image_id,
                "file_name": f"{Path(framed.example.file_name).stem}.png",
                "segments_info": segments_info(id_HW, category_ids),
                _PNG: base64.b64encode(png_of_ids(id_HW)).decode("ascii"),
            }
        ]

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        """Official panoptic quality over the examples at ``indices``, and segments per image.

        Keys: pq, sq, rq, pq_things, pq_stuff, segments_per_image; see ``dataset_metrics``.
        """
        metrics = dataset_metrics(dataset, results, indices=indices, read_prediction=_ids_of)
        num_segments = sum(len(record["segments_info"]) for record in results)
        return {**metrics, "segments_per_image": num_segments / len(indices)}

    def paint(
        self, example: Example, records: Sequence[Mapping[str, Any]] | None
    ) -> NDArray[np.uint8]:
        """The picture with a record's segments laid over it, or with the annotation's."""
        image_HWC = decode_image(example.image)
        index_of = {category.id: index for index, category in enumerate(self._categories)}
        if records is None:
            id_HW = segment_ids(example)
            category_of = {segment.id: segment.category for segment in example.segments}
        else:
            record = records[0]
            id_HW = _ids_of(record).astype(np.int64)
            category_of = {
                segment["id"]: index_of[segment["category_id"]]
                for segment in record["segments_info"]
            }
        return paint_segments(image_HWC, id_HW, category_of, is_thing_C=self._is_thing_C)

    def write_results(self, records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """COCO's files: ``panoptic.json`` and the folder ``panoptic`` of PNGs beside it."""
        write_predictions(
            folder / RESULTS_NAME,
            (
                PredictedMap(
                    image_id=record["image_id"],
                    file_name=record["file_name"],
                    id_HW=_ids_of(record),
                    category_ids={s["id"]: s["category_id"] for s in record["segments_info"]},
                )
                for record in records
            ),
            overwrite=True,
        )

    def _check_classes(self) -> None:
        path, config = self._options.stage_one, self._codec.config
        num_known = config.outputs[SEMANTICS] - 1
        names = tuple(category.name for category in self._categories)
        if num_known != len(names):
            raise ValueError(
                f"stage I {path} knows {num_known} classes but the data set has {len(names)}: "
                f"name one that was trained on this data set's classes"
            )
        known = self._codec.class_names
        if known is not None and known != names:
            at = next(i for i, name in enumerate(names) if name != known[i])
            raise ValueError(
                f"stage I {path} calls class {at} '{known[at]}' but the data set '{names[at]}': "
                f"name one that was trained on this data set's classes"
            )


def _image(framed: Framed) -> NDArray[np.float32]:
    return view_image(decode_image(framed.example.image), framed.frame)


def _ids_of(record: Mapping[str, Any]) -> NDArray[np.uint32]:
    return ids_of_png(base64.b64decode(record[_PNG]))
