"""The detection task: boxes as tokens, rewarded by how many objects they find.

Axes: S rollouts, T tokens of a sequence, P box slots, Q probed tokens, C classes, K thresholds,
N boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.coco.instances import coco_instances
from rewardtune.datasets.example import Category, Dataset
from rewardtune.datasets.frame import Framed
from rewardtune.records import Group, Score, TokenRewards, TokenTargets
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.detection.class_rewards import class_rewards
from rewardtune.tasks.detection.codec import TOKENS_PER_BOX, DetectionCodec
from rewardtune.tasks.detection.config import DetectionConfig, read_config
from rewardtune.tasks.detection.definition import class_weights, threshold_weights
from rewardtune.tasks.detection.kernel import BatchMatch, Targets, match_batch
from rewardtune.tasks.detection.metric import coco_box_metrics
from rewardtune.tasks.detection.probe import DetectionProbe
from rewardtune.tasks.detection.results_files import score_detections
from rewardtune.tasks.detection.target import target_boxes, with_wrong_boxes
from rewardtune.tasks.results_files import Progress
from rewardtune.tasks.token_task import TokenTask
from rewardtune.tasks.vocabulary import Vocabulary

WRONG, RIGHT = 1, 2
"""Confidence tokens; 0 means that there is no box."""
SCORE_RULES = ("class", "p2", "p2_norm", "class_p2")
RESULT_NAMES = {
    "AP": "map", "AP50": "ap50", "AP75": "ap75", "APs": "aps", "APm": "apm", "APl": "apl",
    "AR1": "ar1", "AR10": "ar10", "AR100": "ar100", "ARs": "ars", "ARm": "arm", "ARl": "arl",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DetectedBox:
    """One predicted object, as custom rewards are given it."""

    category: int
    """Index into the data set's categories, as in ``Example.category_N``."""
    name: str
    """Of that category."""
    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the example's image; ``Example.xywh_N4`` has the same
    frame, and width and height in place of the last two."""


class DetectionTask(TokenTask):
    """Codec, reward and metric of object detection; implements ``rewardtune.tasks.task.Task``."""

    name = "detection"
    score_rules = SCORE_RULES

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        """Validate the options.

        Args:
            options: the fields of ``DetectionConfig``.
            categories: the data's classes in codec order; their instance counts in the training
                data make the class weights.

        Raises:
            ValueError: an option that is unknown or out of range, or no category.
        """
        if not categories:
            raise ValueError("detection needs at least one category, the data set has none")
        self._config = read_config(options)
        self._categories = tuple(categories)
        self._codec = DetectionCodec(
            num_classes=len(self._categories),
            max_boxes=self._config.max_boxes,
            max_confidence=RIGHT,
        )
        self._threshold_weight_K = threshold_weights(
            self._config.iou_thresholds, aggregate=self._config.aggregate
        )
        super().__init__(
            Vocabulary(
                task=self.name,
                size=self._codec.vocab_size,
                max_tokens=self._codec.sequence_length,
                # No stop token: a 0 hides one box, and later slots still count.
                probe_tokens=(WRONG, RIGHT),
                levels=(range(self._codec.first_level, self._codec.first_class),),
                # A box ends with its confidence. Later boxes see "right" whichever was drawn, as
                # they do in pretraining: what it is then changes no other box.
                step_length=TOKENS_PER_BOX,
                has_readout=True,
                readout_seen_as=RIGHT,
                meaning={
                    "layout": ["y0", "x0", "y1", "x1", "class", "confidence"],
                    "max_level": self._codec.max_level,
                    "max_confidence": self._codec.max_confidence,
                    "num_classes": self._codec.num_classes,
                    "class_names": [category.name for category in self._categories],
                },
            )
        )

    @classmethod
    def probe(cls, options: Mapping[str, Any], dataset: Dataset) -> DetectionProbe:
        """Made boxes, for ``rewardtune reward check``; options are those of the task."""
        task = cls(options, categories=dataset.categories)
        return DetectionProbe(task, dataset, codec=task.codec)

    @staticmethod
    def score_files(
        results: Path,
        annotations: Path | None,
        options: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return score_detections(results, annotations, options)

    @property
    def config(self) -> DetectionConfig:
        return self._config

    @property
    def codec(self) -> DetectionCodec:
        return self._codec

    @cached_property
    def class_weight_C(self) -> NDArray[np.float64]:
        """What finding one object of each class earns."""
        if self._config.reward == "recall":
            return np.ones(len(self._categories))
        return class_weights(
            [category.num_instances for category in self._categories],
            smoothing=self._config.class_weight_smoothing,
        )

    @property
    def score_bounds(self) -> dict[str, tuple[float, float]]:
        """Every box finds one object at best, and finds a found one again at worst."""
        best = float(self.class_weight_C.max())
        per_box = (-self._config.duplicate_penalty * best, best)
        all_boxes = (self._config.max_boxes * per_box[0], self._config.max_boxes * per_box[1])
        return {
            "reward": all_boxes,
            "match": (0.0, all_boxes[1]),
            "duplicate_penalty": (all_boxes[0], 0.0),
            "boxes": (0.0, float(self._config.max_boxes)),
            "duplicate_ratio": (0.0, 1.0),
            "match_iou": (0.0, 1.0),
            "is_duplicate": (0.0, 1.0),
            "step_reward": per_box,
            "class_reward": per_box,
        }

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        """The boxes that are seen as tokens [T], in the order that ``box_order`` says."""
        boxes = target_boxes(framed, codec=self._codec)
        if self._config.wrong_box_ratio > 0:
            boxes = with_wrong_boxes(
                boxes, self._codec, ratio=self._config.wrong_box_ratio, confidence=WRONG, rng=rng
            )
        return self._codec.encode(boxes, order=self._config.box_order, rng=rng)

    def score(self, decoded: Decoded[list[DetectedBox], None], framed: Framed) -> Score:
        """Rewards of a group's rollouts, in objects; see ``definition.detection_reward``.

        Components: "match" (earned) and "duplicate_penalty" (lost, <= 0) sum to the reward;
        "boxes" counts predicted boxes; "duplicate_ratio" is the share of them that find an object
        again, at the lowest threshold: both tell when a policy games the reward. Aux: "match_iou"
        [S, P], what confidence should become, and "step_reward" [S, P], by box in the order drawn;
        with the option ``class_rewards`` also "class_reward" [S, P, C], the same under every class.
        """
        tokens_ST = decoded.tokens_ST
        boxes = target_boxes(framed, codec=self._codec)
        targets = Targets.of([boxes], self._codec)
        match = match_batch(
            tokens_ST,
            targets,
            np.zeros(len(tokens_ST), dtype=np.int64),
            codec=self._codec,
            class_weight_C=self.class_weight_C,
            iou_thresholds=self._config.iou_thresholds,
        )
        earned_S = (match.matched_SK * self._threshold_weight_K).sum(axis=1)
        duplicated_S = (match.duplicated_SK * self._threshold_weight_K).sum(axis=1)
        lost_S = -self._config.duplicate_penalty * duplicated_S
        aux = {
            "match_iou": match.match_iou_SP,
            "step_reward": self._box_rewards(tokens_ST, match),
        }
        if not self._config.duplicates_keep_overlap:
            aux["is_duplicate"] = (match.num_duplicated_SP > 0).astype(np.float64)
        if self._config.class_rewards:
            aux["class_reward"] = class_rewards(
                tokens_ST,
                targets,
                codec=self._codec,
                class_weight_C=self.class_weight_C,
                iou_thresholds=self._config.iou_thresholds,
                threshold_weight_K=self._threshold_weight_K,
                duplicate_penalty=self._config.duplicate_penalty,
            )
        return Score(
            reward_S=earned_S + lost_S,
            components={
                "match": earned_S,
                "duplicate_penalty": lost_S,
                "boxes": match.num_boxes_S.astype(np.float64),
                "duplicate_ratio": match.num_duplicates_SK[:, 0] / np.maximum(1, match.num_boxes_S),
            },
            aux=aux,
        )

    def _box_rewards(self, tokens_ST: NDArray[np.int32], match: BatchMatch) -> NDArray[np.float64]:
        """What each box added to the reward of those before it [S, P]."""
        weight_before_K = np.concatenate([[0.0], self._threshold_weight_K.cumsum()])
        passed_SP = weight_before_K[match.num_passed_SP]
        duplicated_SP = weight_before_K[match.num_duplicated_SP]
        value_SP = self.class_weight_C[self._codec.decode(tokens_ST).label_N]
        earned_SP = passed_SP - duplicated_SP
        penalty = self._config.duplicate_penalty
        reward_SP: NDArray[np.float64] = value_SP * (earned_SP - penalty * duplicated_SP)
        return reward_SP

    def decode(
        self, tokens_ST: NDArray[np.int32], framed: Framed
    ) -> Decoded[list[DetectedBox], None]:
        """The boxes of each rollout, in the order they were drawn.

        In pixels of the example's own image, unflipped and clipped to it. Boxes whose corners
        are swapped or that have no area in the image are left out, as in ``predict``.

        Raises:
            ValueError: ``tokens_ST`` is not integers of shape [S, T] with the codec's T.
        """
        if tokens_ST.ndim != 2 or tokens_ST.shape[1] != self.vocabulary.max_tokens:
            raise ValueError(
                f"detection sequences must be [S, {self.vocabulary.max_tokens}], got "
                f"{list(tokens_ST.shape)}: sampler and task must agree on max_boxes"
            )

        def boxes(place: int) -> list[DetectedBox]:
            return [
                DetectedBox(category=label, name=self._categories[label].name, xyxy=xyxy)
                for _, label, xyxy in self._seen(tokens_ST[place], framed)
            ]

        return Decoded(tokens_ST, None, boxes)

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        """Teach each confidence token the overlap its box reached.

        Over tokens (0, 1, 2): (1, 0, 0) where the policy drew no box, else (0, 1 - u, u) with
        the overlap u of the object it matched, 0 if none. A duplicate keeps its overlap, where
        the reward alone is to teach against it, or has 0 (``duplicates_keep_overlap``).
        """
        if self._config.confidence_weight == 0:
            return None
        iou_SP = score.aux["match_iou"]
        if not self._config.duplicates_keep_overlap:
            iou_SP = iou_SP * (1.0 - score.aux["is_duplicate"])
        is_box_SP = group.tokens_ST[:, self._codec.confidence_positions_P] > 0
        probabilities_SP3 = np.stack(
            [~is_box_SP, is_box_SP * (1.0 - iou_SP), is_box_SP * iou_SP], axis=-1
        )
        return TokenTargets(
            positions_P=self._codec.confidence_positions_P,
            token_ids_K=np.array([0, WRONG, RIGHT], dtype=np.int64),
            probabilities_SPK=probabilities_SP3.astype(np.float32),
            weight=self._config.confidence_weight,
        )

    @property
    def has_token_rewards(self) -> bool:
        return self._config.class_rewards

    def token_rewards(self, group: Group, score: Score) -> TokenRewards:
        """What each box would have earned under every class."""
        return TokenRewards(
            positions_P=self._codec.class_positions_P,
            token_ids_K=self._codec.first_class + np.arange(self._codec.num_classes),
            reward_SPK=score.aux["class_reward"],
        )

    def predict(
        self,
        decoded: Decoded[list[DetectedBox], None],
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """One sequence as COCO results: image_id, category_id, bbox (pixels, xywh), score.

        Boxes whose corners are swapped or that have no area in the image are left out: they
        overlap nothing, so the reward never counted them either.

        Args:
            score_rule: "class": probability of the class token, for models that have not
                learned confidences; "p2": probability of confidence token 2, the expected
                overlap of a tuned model; "p2_norm": p2 / (p1 + p2); "class_p2": the product of
                the first two, how likely the class times how good the box.

        Raises:
            ValueError: no such rule.
        """
        score_P = self._box_scores(log_probs_T, probe_log_probs_TQ, score_rule=score_rule)
        seen = self._seen(decoded.tokens_ST[0], framed)
        return [
            {
                "image_id": framed.example.image_id,
                "category_id": self._categories[label].id,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": float(score_P[p]),
            }
            for p, label, (x0, y0, x1, y1) in seen
        ]

    def _seen(
        self, tokens_T: NDArray[np.int32], framed: Framed
    ) -> Iterator[tuple[int, int, tuple[float, float, float, float]]]:
        """Slot, class and corners in the image's pixels of each box that has an area there."""
        boxes = self._codec.decode(tokens_T)
        xyxy_P4 = framed.frame.to_image(boxes.yxyx_N4)
        is_kept_P = (
            boxes.is_present_N
            & np.all(boxes.yxyx_N4[:, :2] < boxes.yxyx_N4[:, 2:], axis=1)
            & np.all(xyxy_P4[:, :2] < xyxy_P4[:, 2:], axis=1)
        )
        for p in np.flatnonzero(is_kept_P):
            x0, y0, x1, y1 = xyxy_P4[p].tolist()
            yield int(p), int(boxes.label_N[p]), (x0, y0, x1, y1)

    def _box_scores(
        self,
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        *,
        score_rule: str,
    ) -> NDArray[np.float64]:
        class_P = np.exp(log_probs_T[self._codec.class_positions_P].astype(np.float64))
        if score_rule == "class":
            return np.asarray(class_P)
        probability_PQ = np.exp(
            probe_log_probs_TQ[self._codec.confidence_positions_P].astype(np.float64)
        )
        wrong_P, right_P = probability_PQ[:, 0], probability_PQ[:, 1]
        if score_rule == "p2":
            return right_P
        if score_rule == "class_p2":
            return np.asarray(class_P * right_P)
        if score_rule == "p2_norm":
            # A box scores 0 where both are too small for a float.
            return np.asarray(right_P / np.maximum(wrong_P + right_P, np.finfo(np.float64).tiny))
        raise ValueError(f"score_rule '{score_rule}' is unknown: choose from {SCORE_RULES}")

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        """COCO AP and AR over the examples at ``indices``, and boxes per image.

        Keys: map, ap50, ap75, aps, apm, apl, ar1, ar10, ar100, ars, arm, arl,
        boxes_per_image. A size of which the examples have no object has no key.

        Raises:
            ValueError: results for other images than those, or no indices.
        """
        self._check_indices(indices)
        metrics = coco_box_metrics(coco_instances(dataset, indices), results)
        named = {RESULT_NAMES[name]: value for name, value in metrics.items() if value >= 0}
        return {**named, "boxes_per_image": len(results) / len(indices)}
