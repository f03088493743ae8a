"""The detection reward of whole batches at native speed: one compiled call, one thread.

Computes what ``definition.py`` defines, for all thresholds at once. Two facts make it short. The
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
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.detection.codec import TOKENS_PER_BOX, Boxes, DetectionCodec
from rewardtune.tasks.detection.definition import CORRECT_THRESHOLD, IOU_EPSILON, check_thresholds
from rewardtune.tasks.kernel import compiled, plain


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The target boxes of several images in flat arrays; image i owns offset[i]:offset[i+1]."""

    level_G4: NDArray[np.int32]
    label_G: NDArray[np.int32]
    offset_I: NDArray[np.int64]
    """One more entry than there are images."""

    def __post_init__(self) -> None:
        num_targets = len(self.label_G)
        if self.level_G4.shape != (num_targets, 4):
            raise ValueError(f"level_G4 must be [{num_targets}, 4], got {self.level_G4.shape}")
        # The kernel follows these numbers without looking: it must not leave the arrays.
        object.__setattr__(self, "level_G4", plain(self.level_G4, np.int32))
        object.__setattr__(self, "label_G", plain(self.label_G, np.int32))
        object.__setattr__(self, "offset_I", plain(self.offset_I, np.int64))
        if not _is_sound(self.label_G, self.offset_I):
            raise ValueError(
                f"offset_I must run from 0 to {num_targets} without falling and label_G must not "
                f"be negative, got {self.offset_I.tolist()} and {self.label_G.tolist()}"
            )

    @staticmethod
    def of(images: Sequence[Boxes], codec: DetectionCodec) -> Targets:
        """Round and join the images' boxes; slots without a box are left out.

        Raises:
            ValueError: a coordinate outside [0, 1], or a negative class.
        """
        if len(images) == 1:
            yxyx_N4, label_N = images[0].yxyx_N4, images[0].label_N
            confidence_N = images[0].confidence_N
        else:
            yxyx_N4 = np.concatenate([np.zeros((0, 4)), *(boxes.yxyx_N4 for boxes in images)])
            label_N = np.concatenate([np.zeros(0, int), *(boxes.label_N for boxes in images)])
            confidence_N = np.concatenate(
                [np.zeros(0, int), *(boxes.confidence_N for boxes in images)]
            )
        num_I = np.array([len(boxes.label_N) for boxes in images], dtype=np.int64)
        level_G4, label_G, offset_I, is_fraction = _present(
            plain(yxyx_N4, np.float64),
            plain(label_N, np.int64),
            plain(confidence_N, np.int64),
            num_I,
            codec.max_level,
        )
        if not is_fraction:
            codec.levels(yxyx_N4[confidence_N > 0])  # raises, and names the coordinates
        return Targets(level_G4=level_G4, label_G=label_G, offset_I=offset_I)

    @property
    def num_images(self) -> int:
        return len(self.offset_I) - 1


@dataclass(frozen=True, slots=True, eq=False)
class BatchMatch:
    """What each sequence found, and found again, at each threshold, and how each box fared."""

    matched_SK: NDArray[np.float64]
    """Class weights of the targets found, summed."""
    duplicated_SK: NDArray[np.float64]
    """Class weights of the duplicates, summed; the penalty not yet applied."""
    num_matched_SK: NDArray[np.int32]
    num_duplicates_SK: NDArray[np.int32]
    num_boxes_S: NDArray[np.int32]
    correct_SP: NDArray[np.int8]
    """0: no box; 1: it chose no target at ``correct_threshold``; 2: it chose one."""
    match_iou_SP: NDArray[np.float64]
    """Overlap with the target chosen at ``correct_threshold``, else 0. Duplicates keep theirs."""
    num_passed_SP: NDArray[np.int32]
    """Thresholds at which the box chose a target; its own, as choosing says."""
    num_duplicated_SP: NDArray[np.int32]
    """Of these, at which an earlier box had chosen the same target."""

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
        class_weight_C: see ``definition.class_weights``; ones for the recall reward.
        iou_thresholds: strictly rising, in (0, 1].
        correct_threshold: for ``correct_SP`` and ``match_iou_SP``, in (0, 1].

    Raises:
        ValueError: shapes, dtypes or ranges that do not fit; names the argument.
    """
    if tokens_ST.ndim != 2 or tokens_ST.dtype.kind not in "iu":
        raise ValueError(
            f"tokens must be integers [S, T], got {tokens_ST.dtype} {list(tokens_ST.shape)}"
        )
    if image_S.shape != tokens_ST.shape[:1]:
        raise ValueError(
            f"image_S must name one image per sequence ({len(tokens_ST)}), got shape "
            f"{list(image_S.shape)}"
        )
    if class_weight_C.shape != (codec.num_classes,):
        raise ValueError(
            f"class_weight_C must be {codec.num_classes} finite numbers, got {class_weight_C}"
        )
    threshold_K = _thresholds(tuple(iou_thresholds), float(correct_threshold))
    if tokens_ST.dtype.itemsize > 4 or tokens_ST.dtype == np.uint32:
        # What the decoder would clip anyway, before wider integers wrap around.
        tokens_ST = np.clip(tokens_ST, 0, codec.vocab_size).astype(np.int32)
    num_slots = tokens_ST.shape[1] // TOKENS_PER_BOX
    token_SP6 = tokens_ST[:, : num_slots * TOKENS_PER_BOX].reshape(
        len(tokens_ST), num_slots, TOKENS_PER_BOX
    )
    match = _match(
        plain(token_SP6, np.int32),
        plain(image_S, np.int64),
        targets.level_G4,
        targets.label_G,
        targets.offset_I,
        plain(class_weight_C, np.float64),
        threshold_K,
        float(correct_threshold),
        codec.first_level,
        codec.max_level,
        IOU_EPSILON * codec.max_level**2,
    )
    problem = match[0]
    if problem == 1:
        raise ValueError(f"image_S must be in 0..{targets.num_images - 1}, got {image_S.tolist()}")
    if problem == 2:
        raise ValueError(f"target classes must be in 0..{codec.num_classes - 1}")
    if problem == 3:
        raise ValueError(
            f"class_weight_C must be {codec.num_classes} finite numbers, got {class_weight_C}"
        )
    return BatchMatch(*match[1:])


@lru_cache(maxsize=64)
def _thresholds(iou_thresholds: tuple[float, ...], correct_threshold: float) -> NDArray[np.float64]:
    """The thresholds as the kernel takes them, once they have been checked."""
    check_thresholds(iou_thresholds)
    check_thresholds([correct_threshold])
    return np.array(iou_thresholds, dtype=np.float64)


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
def _is_sound(label_G: NDArray[np.int32], offset_I: NDArray[np.int64]) -> bool:
    if len(offset_I) == 0 or offset_I[0] != 0 or offset_I[-1] != len(label_G):
        return False
    for i in range(1, len(offset_I)):
        if offset_I[i] < offset_I[i - 1]:
            return False
    for g in range(len(label_G)):  # noqa: SIM110 - numba has no any() of a generator
        if label_G[g] < 0:
            return False
    return True


@compiled
def _present(
    yxyx_N4: NDArray[np.float64],
    label_N: NDArray[np.int64],
    confidence_N: NDArray[np.int64],
    num_I: NDArray[np.int64],
    max_level: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], bool]:
    """Levels and classes of the boxes that are there, and whether all lie within [0, 1]."""
    num_present = 0
    for n in range(len(label_N)):
        num_present += confidence_N[n] > 0
    level_G4 = np.empty((num_present, 4), dtype=np.int32)
    label_G = np.empty(num_present, dtype=np.int32)
    offset_I = np.zeros(len(num_I) + 1, dtype=np.int64)
    is_fraction = True
    g, n = 0, 0
    for image in range(len(num_I)):
        for _ in range(num_I[image]):
            if confidence_N[n] > 0:
                for side in range(4):
                    value = yxyx_N4[n, side]
                    if not 0 <= value <= 1:
                        is_fraction, value = False, 0.0
                    level_G4[g, side] = np.int32(np.rint(value * max_level))
                label_G[g] = label_N[n]
                g += 1
            n += 1
        offset_I[image + 1] = g
    return level_G4, label_G, offset_I, is_fraction


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
    int,
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int32],
    NDArray[np.int8],
    NDArray[np.float64],
    NDArray[np.int32],
    NDArray[np.int32],
]:
    """The fields of ``BatchMatch`` behind a number: above 0, what argument is out of range."""
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
    num_passed_SP = np.zeros((num_sequences, num_slots), dtype=np.int32)
    num_duplicated_SP = np.zeros((num_sequences, num_slots), dtype=np.int32)

    problem = 0
    for s in range(num_sequences):
        if not 0 <= image_S[s] < len(offset_I) - 1:
            problem = 1
    for g in range(len(label_G)):
        if label_G[g] >= num_classes:
            problem = 2
    for c in range(num_classes):
        if not np.isfinite(weight_C[c]):
            problem = 3
    if problem > 0:
        num_sequences = 0  # nothing to match

    # Targets of one class form a chain, in their order: from head_C along next_G to -1.
    head_C = np.full(num_classes, -1, dtype=np.int64)
    next_G = np.full(len(label_G), -1, dtype=np.int64)
    # passed_GK[g, n]: boxes that chose target g and exceed exactly n thresholds.
    passed_GK = np.zeros((len(label_G), num_thresholds + 1), dtype=np.int32)
    # most_G[g]: the most thresholds that any box so far exceeds.
    most_G = np.zeros(len(label_G), dtype=np.int32)

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
                num_passed_SP[s, p] = num_passed
                num_duplicated_SP[s, p] = min(num_passed, most_G[target])
                most_G[target] = max(num_passed, most_G[target])
            if iou > correct_threshold:
                correct_SP[s, p] = 2
                match_iou_SP[s, p] = iou

        for g in range(start, end):
            weight = weight_C[label_G[g]]
            num_chose = 0
            most_G[g] = 0
            for k in range(num_thresholds - 1, -1, -1):
                num_chose += passed_GK[g, k + 1]
                passed_GK[g, k + 1] = 0
                if num_chose > 0:
                    matched_SK[s, k] += weight
                    num_matched_SK[s, k] += 1
                    duplicated_SK[s, k] += weight * (num_chose - 1)
                    num_duplicates_SK[s, k] += num_chose - 1

    return (
        problem,
        matched_SK,
        duplicated_SK,
        num_matched_SK,
        num_duplicates_SK,
        num_boxes_S,
        correct_SP,
        match_iou_SP,
        num_passed_SP,
        num_duplicated_SP,
    )
