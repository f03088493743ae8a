"""What each drawn box would have added to the reward under every class it could have had.

A class is drawn after its box's corners, and those before it stay as they are: so the rewards of
all classes follow from one pass over the targets, without another look at the network. Told to the
learner, they take the draw of the class out of the gradient's noise.

Axes: S sequences, P box slots, C classes, G target boxes, K thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.detection.codec import TOKENS_PER_BOX, DetectionCodec
from rewardtune.tasks.detection.definition import IOU_EPSILON, check_thresholds
from rewardtune.tasks.detection.kernel import Targets
from rewardtune.tasks.kernel import compiled, plain


def class_rewards(
    tokens_ST: NDArray[np.integer[Any]],
    targets: Targets,
    *,
    codec: DetectionCodec,
    class_weight_C: NDArray[np.float64],
    iou_thresholds: Sequence[float],
    threshold_weight_K: NDArray[np.float64],
    duplicate_penalty: float,
) -> NDArray[np.float64]:
    """Reward [S, P, C] that box p of class c would have added to that of the boxes before it.

    At the class that was drawn it is the box's own; 0 where there is no box. The confidence drawn
    after the class stays as it is.

    Args:
        tokens_ST: sequences of one image.
        targets: its annotation.
        threshold_weight_K: see ``definition.threshold_weights``.

    Raises:
        ValueError: targets of more than one image, or of a class that the codec does not have.
    """
    if targets.num_images != 1:
        raise ValueError(f"class_rewards takes one image at a time, got {targets.num_images}")
    if np.any(targets.label_G >= codec.num_classes):
        raise ValueError(f"target classes must be in 0..{codec.num_classes - 1}")
    check_thresholds(iou_thresholds)
    rewards_SPC: NDArray[np.float64] = _rewards(
        plain(tokens_ST.reshape(len(tokens_ST), -1, TOKENS_PER_BOX), np.int32),
        targets.level_G4,
        targets.label_G,
        plain(class_weight_C, np.float64),
        np.array(iou_thresholds, dtype=np.float64),
        np.concatenate([[0.0], threshold_weight_K.cumsum()]),
        float(duplicate_penalty),
        codec.first_level,
        codec.max_level,
        IOU_EPSILON * codec.max_level**2,
    )
    return rewards_SPC


def warm_up() -> None:
    """Compile the kernel now (seconds, once per machine; later read from numba's cache)."""
    codec = DetectionCodec(num_classes=1, max_boxes=1)
    tokens_ST = np.zeros((1, codec.sequence_length), dtype=np.int32)
    class_rewards(
        tokens_ST,
        Targets.of([codec.decode(tokens_ST[0])], codec),
        codec=codec,
        class_weight_C=np.ones(1),
        iou_thresholds=(0.5,),
        threshold_weight_K=np.ones(1),
        duplicate_penalty=0.0,
    )


@compiled
def _rewards(
    token_SP6: NDArray[np.int32],
    level_G4: NDArray[np.int32],
    label_G: NDArray[np.int32],
    weight_C: NDArray[np.float64],
    threshold_K: NDArray[np.float64],
    earned_K: NDArray[np.float64],
    duplicate_penalty: float,
    first_level: int,
    max_level: int,
    epsilon: float,
) -> NDArray[np.float64]:
    """``earned_K[n]``: share of the reward that passing n thresholds earns.

    Overlaps are those of ``matching``, whose kernel is not called: numba's cache would not notice
    a change of it in another file, and here one pass over the targets serves all classes.
    """
    num_sequences, num_slots = token_SP6.shape[:2]
    num_targets, num_classes = len(label_G), len(weight_C)
    first_class = first_level + max_level + 1
    reward_SPC = np.zeros((num_sequences, num_slots, num_classes))
    # most_G[g]: the most thresholds that any box so far exceeds.
    most_G = np.zeros(num_targets, dtype=np.int64)
    best_iou_C = np.zeros(num_classes)
    nearest_C = np.zeros(num_classes, dtype=np.int64)
    for s in range(num_sequences):
        most_G[:] = 0
        for p in range(num_slots):
            token_6 = token_SP6[s, p]
            if token_6[5] <= 0:
                continue
            y0 = min(max(int(token_6[0]) - first_level, 0), max_level)
            x0 = min(max(int(token_6[1]) - first_level, 0), max_level)
            y1 = min(max(int(token_6[2]) - first_level, 0), max_level)
            x1 = min(max(int(token_6[3]) - first_level, 0), max_level)
            drawn = min(max(int(token_6[4]) - first_class, 0), num_classes - 1)
            area = abs((y1 - y0) * (x1 - x0))
            best_iou_C[:] = 0.0
            nearest_C[:] = -1
            for g in range(num_targets):
                top, left = int(level_G4[g, 0]), int(level_G4[g, 1])
                bottom, right = int(level_G4[g, 2]), int(level_G4[g, 3])
                height = min(y1, bottom) - max(y0, top)
                width = min(x1, right) - max(x0, left)
                if height > 0 and width > 0:
                    intersection = height * width
                    union = area + abs((bottom - top) * (right - left)) - intersection
                    iou = intersection / (union + epsilon)
                    if iou > best_iou_C[label_G[g]]:
                        best_iou_C[label_G[g]] = iou
                        nearest_C[label_G[g]] = g
            for c in range(num_classes):
                target = nearest_C[c]
                if target < 0:
                    continue
                num_passed = 0
                for k in range(len(threshold_K)):
                    num_passed += best_iou_C[c] > threshold_K[k]
                duplicated = earned_K[min(num_passed, most_G[target])]
                earned = earned_K[num_passed] - duplicated
                reward_SPC[s, p, c] = weight_C[c] * (earned - duplicate_penalty * duplicated)
                if c == drawn:
                    most_G[target] = max(num_passed, most_G[target])
    return reward_SPC
