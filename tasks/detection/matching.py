"""The detection reward of whole batches at native speed: one compiled call, one thread.

Computes what ``reward.py`` defines, for all thresholds at once. Two facts make it short. The
target a box overlaps most does not depend on the threshold, so one pass over the pairs of equal
class serves all of them; and a target that n boxes chose earns once and costs n - 1 times,
whichever of the n fits best. So each box only counts, at its target, how many thresholds it
passes. Sums run over the targets, so the order of predicted boxes changes no bit of them.

Axes: S sequences, T tokens, P box slots, G target boxes of all images, I images, K thresholds,
C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.detection.codec import TOKENS_PER_BOX, Boxes, DetectionCodec
from tasks.detection.reward import CORRECT_THRESHOLD, IOU_EPSILON, check_thresholds
from tasks.kernel import compiled, plain


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The target boxes of several images in flat arrays; image i owns offset[i]:offset[i+1]."""

    level_G4: NDArray[np.int32]
    label_G: NDArray[np.int32]
    offset_I: NDArray[np.int64]
    """One more entry than there are images."""

    def __post_init__(self) -> None:
        # The kernel follows these numbers without looking: it must not leave the arrays.
        offset_I, num_targets = self.offset_I, len(self.label_G)
        if self.level_G4.shape != (num_targets, 4):
            raise ValueError(f"level_G4 must be [{num_targets}, 4], got {self.level_G4.shape}")
        if len(offset_I) == 0 or offset_I[0] != 0 or offset_I[-1] != num_targets:
            raise ValueError(f"offset_I must run from 0 to {num_targets}, got {offset_I}")
        if np.any(np.diff(offset_I) < 0) or np.any(self.label_G < 0):
            raise ValueError("offset_I must not fall and label_G must not be negative")

    @staticmethod
    def of(images: Sequence[Boxes], codec: DetectionCodec) -> Targets:
        """Round and join the images' boxes; slots without a box are left out.

        Raises:
            ValueError: a coordinate outside [0, 1], or a negative class.
        """
        kept = [boxes[boxes.is_present_N] for boxes in images]
        label_G = np.concatenate([np.zeros(0, np.int64), *(boxes.label_N for boxes in kept)])
        yxyx_G4 = np.concatenate([np.zeros((0, 4)), *(boxes.yxyx_N4 for boxes in kept)])
        return Targets(
            level_G4=codec.levels(yxyx_G4).astype(np.int32),
            label_G=label_G.astype(np.int32),
            offset_I=np.cumsum([0, *(len(boxes) for boxes in kept)], dtype=np.int64),
        )

    @property
    def num_images(self) -> int:
        return len(self.offset_I) - 1


@dataclass(frozen=True, slots=True, eq=False)
class BatchMatch:
    """What each sequence found and repeated at each threshold, and how each box fared."""

    matched_SK: NDArray[np.float64]
    """Class weights of the targets found, summed."""
    duplicated_SK: NDArray[np.float64]
    """Class weights of the repeats, summed; the penalty not yet applied."""
    num_matched_SK: NDArray[np.int32]
    num_duplicates_SK: NDArray[np.int32]
    num_boxes_S: NDArray[np.int32]
    correct_SP: NDArray[np.int8]
    """0: no box; 1: it chose no target at ``correct_threshold``; 2: it chose one."""
    match_iou_SP: NDArray[np.float64]
    """Overlap with the target chosen at ``correct_threshold``, else 0. A repeat keeps its own."""

    def reward_SK(self, *, duplicate_penalty: float) -> NDArray[np.float64]:
        """Reward per sequence and threshold, in objects."""
        return self.matched_SK - duplicate_penalty * self.duplicated_SK


def match_batch(
    tokens_ST: NDArray[np.integer[Any]],
    targets: Targets,
    image_S: NDArray[np.integer[Any]],
    *,
    codec: DetectionCodec,
    class_weight_C: NDArray[np.float64],
    iou_thresholds: Sequence[float],
    correct_threshold: float = CORRECT_THRESHOLD,
) -> BatchMatch:
    """Match every sequence with the targets of its image, at all thresholds.

    A sequence's result depends on nothing but its own tokens and targets. Fastest when
    sequences of one image stand together.

    Args:
        tokens_ST: any integers; read as the codec decodes them.
        targets: annotations of the images that ``image_S`` points to.
        image_S: index of each sequence's image in ``targets``.
        codec: token layout; its ``max_boxes`` plays no part, T does.
        class_weight_C: see ``reward.class_weights``; ones for the recall reward.
        iou_thresholds: strictly rising, in (0, 1].
        correct_threshold: for ``correct_SP`` and ``match_iou_SP``, in (0, 1].

    Raises:
        ValueError: shapes, dtypes or ranges that do not fit; names the argument.
    """
    if tokens_ST.ndim != 2 or not np.issubdtype(tokens_ST.dtype, np.integer):
        raise ValueError(
            f"tokens must be integers [S, T], got {tokens_ST.dtype} {list(tokens_ST.shape)}"
        )
    if image_S.shape != tokens_ST.shape[:1]:
        raise ValueError(
            f"image_S must name one image per sequence ({len(tokens_ST)}), got shape "
            f"{list(image_S.shape)}"
        )
    if len(image_S) and not 0 <= image_S.min() <= image_S.max() < targets.num_images:
        raise ValueError(f"image_S must be in 0..{targets.num_images - 1}, got {image_S.tolist()}")
    if np.any(targets.label_G >= codec.num_classes):
        raise ValueError(f"target classes must be in 0..{codec.num_classes - 1}")
    if class_weight_C.shape != (codec.num_classes,) or not np.all(np.isfinite(class_weight_C)):
        raise ValueError(
            f"class_weight_C must be {codec.num_classes} finite numbers, got {class_weight_C}"
        )
    check_thresholds(iou_thresholds)
    check_thresholds([correct_threshold])
    if not np.can_cast(tokens_ST.dtype, np.int32):
        # What the decoder would clip anyway, before wider integers wrap around.
        tokens_ST = np.clip(tokens_ST, 0, codec.vocab_size).astype(np.int32)
    num_slots = tokens_ST.shape[1] // TOKENS_PER_BOX
    token_SP6 = tokens_ST[:, : num_slots * TOKENS_PER_BOX].reshape(
        len(tokens_ST), num_slots, TOKENS_PER_BOX
    )
    return BatchMatch(
        *_match(
            plain(token_SP6, np.int32),
            plain(image_S, np.int64),
            plain(targets.level_G4, np.int32),
            plain(targets.label_G, np.int32),
            plain(targets.offset_I, np.int64),
            plain(class_weight_C, np.float64),
            np.array(iou_thresholds, dtype=np.float64),
            float(correct_threshold),
            codec.first_level,
            codec.max_level,
            IOU_EPSILON * codec.max_level**2,
        )
    )


def warm_up() -> None:
    """Compile the kernel now (seconds, once per machine; later read from numba's cache)."""
    codec = DetectionCodec(num_classes=1, max_boxes=1)
    tokens_ST = np.zeros((1, codec.sequence_length), dtype=np.int32)
    match_batch(
        tokens_ST,
        Targets.of([codec.decode(tokens_ST[0])], codec),
        np.zeros(1, dtype=np.int64),
        codec=codec,
        class_weight_C=np.ones(1),
        iou_thresholds=(0.5,),
    )


@compiled
def _nearest(
    y0: int,
    x0: int,
    y1: int,
    x1: int,
    first: int,
    next_G: NDArray[np.int64],
    level_G4: NDArray[np.int32],
    epsilon: float,
) -> tuple[int, float]:
    """The target along the chain from ``first`` that the box overlaps most, and how much."""
    area = abs((y1 - y0) * (x1 - x0))
    nearest, best_iou = -1, 0.0
    g = first
    while g >= 0:
        top, left = int(level_G4[g, 0]), int(level_G4[g, 1])
        bottom, right = int(level_G4[g, 2]), int(level_G4[g, 3])
        height = min(y1, bottom) - max(y0, top)
        width = min(x1, right) - max(x0, left)
        if height > 0 and width > 0:
            intersection = height * width
            union = area + abs((bottom - top) * (right - left)) - intersection
            iou = intersection / (union + epsilon)
            if iou > best_iou:
                nearest, best_iou = g, iou
        g = next_G[g]
    return nearest, best_iou


@compiled
def _match(
    token_SP6: NDArray[np.int32],
    image_S: NDArray[np.int64],
    level_G4: NDArray[np.int32],
    label_G: NDArray[np.int32],
    offset_I: NDArray[np.int64],
    weight_C: NDArray[np.float64],
    threshold_K: NDArray[np.float64],
    correct_threshold: float,
    first_level: int,
    max_level: int,
    epsilon: float,
) -> tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int8],
    NDArray[np.float64],
]:
    num_sequences, num_slots = token_SP6.shape[:2]
    num_thresholds, num_classes = len(threshold_K), len(weight_C)
    first_class = first_level + max_level + 1
    matched_SK = np.zeros((num_sequences, num_thresholds))
    duplicated_SK = np.zeros((num_sequences, num_thresholds))
    num_matched_SK = np.zeros((num_sequences, num_thresholds), dtype=np.int32)
    num_duplicates_SK = np.zeros((num_sequences, num_thresholds), dtype=np.int32)
    num_boxes_S = np.zeros(num_sequences, dtype=np.int32)
    correct_SP = np.zeros((num_sequences, num_slots), dtype=np.int8)
    match_iou_SP = np.zeros((num_sequences, num_slots))

    # Targets of one class form a chain, in their order: from head_C along next_G to -1.
    head_C = np.full(num_classes, -1, dtype=np.int64)
    next_G = np.full(len(label_G), -1, dtype=np.int64)
    # passed_GK[g, n]: boxes that chose target g and exceed exactly n thresholds.
    passed_GK = np.zeros((len(label_G), num_thresholds + 1), dtype=np.int32)

    image, start, end = -1, 0, 0
    for s in range(num_sequences):
        if image_S[s] != image:
            for g in range(start, end):
                head_C[label_G[g]] = -1
            image = image_S[s]
            start, end = offset_I[image], offset_I[image + 1]
            for g in range(end - 1, start - 1, -1):
                next_G[g] = head_C[label_G[g]]
                head_C[label_G[g]] = g

        for p in range(num_slots):
            token_6 = token_SP6[s, p]
            if token_6[5] <= 0:
                continue
            num_boxes_S[s] += 1
            correct_SP[s, p] = 1
            label = min(max(int(token_6[4]) - first_class, 0), num_classes - 1)
            if head_C[label] < 0:
                continue
            target, iou = _nearest(
                min(max(int(token_6[0]) - first_level, 0), max_level),
                min(max(int(token_6[1]) - first_level, 0), max_level),
                min(max(int(token_6[2]) - first_level, 0), max_level),
                min(max(int(token_6[3]) - first_level, 0), max_level),
                head_C[label],
                next_G,
                level_G4,
                epsilon,
            )
            num_passed = 0
            for k in range(num_thresholds):
                num_passed += iou > threshold_K[k]
            if num_passed > 0:
                passed_GK[target, num_passed] += 1
            if iou > correct_threshold:
                correct_SP[s, p] = 2
                match_iou_SP[s, p] = iou

        for g in range(start, end):
            weight = weight_C[label_G[g]]
            num_chose = 0
            for k in range(num_thresholds - 1, -1, -1):
                num_chose += passed_GK[g, k + 1]
                passed_GK[g, k + 1] = 0
                if num_chose > 0:
                    matched_SK[s, k] += weight
                    num_matched_SK[s, k] += 1
                    duplicated_SK[s, k] += weight * (num_chose - 1)
                    num_duplicates_SK[s, k] += num_chose - 1

    return (
        matched_SK,
        duplicated_SK,
        num_matched_SK,
        num_duplicates_SK,
        num_boxes_S,
        correct_SP,
        match_iou_SP,
    )
