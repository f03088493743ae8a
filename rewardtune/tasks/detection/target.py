"""Which annotated boxes of an image the model is asked to find in a view of it.

Axes: N annotated objects.
"""

from __future__ import annotations

import numpy as np

from rewardtune.datasets.frame import Framed, clip_boxes
from rewardtune.tasks.detection.codec import Boxes, DetectionCodec

MIN_VISIBLE_AREA = 0.25
"""Share of a box that must lie in the view for it to be asked for. Below a quarter what is left
of an object can mostly not be told from its surroundings, and asking for it teaches to guess
boxes at the border. Only views that cut (scale above 1) are touched."""


def target_boxes(framed: Framed, *, codec: DetectionCodec) -> Boxes:
    """The example's boxes in the frame that the model sees, in the annotation's order.

    Left out: crowd regions, boxes that are mostly outside the view, and boxes without area
    once their corners are rounded to the codec's levels.
    """
    example = framed.example
    xywh_N4 = example.xywh_N4
    yxyx_N4 = framed.frame.to_frame(
        np.concatenate([xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]], axis=1)
    )
    clipped = clip_boxes(yxyx_N4)
    level_N4 = codec.levels(clipped.boxes_N4)
    is_kept_N = (
        ~example.is_crowd_N
        & (clipped.kept_N >= MIN_VISIBLE_AREA)
        & (level_N4[:, 0] < level_N4[:, 2])
        & (level_N4[:, 1] < level_N4[:, 3])
    )
    return Boxes(
        yxyx_N4=clipped.boxes_N4[is_kept_N],
        label_N=example.category_N[is_kept_N],
        confidence_N=np.full(int(is_kept_N.sum()), codec.max_confidence, dtype=np.int64),
    )


def with_wrong_boxes(
    boxes: Boxes, codec: DetectionCodec, *, ratio: float, confidence: int, rng: np.random.Generator
) -> Boxes:
    """The boxes and, for some of them, a copy that is wrong: moved, or of another class.

    A detector's own mistakes are of these two kinds, so a model that tells such copies from
    annotations has learned to doubt itself. Pix2seq trains with similar noise (Chen et al. 2022,
    arXiv:2109.10852), there to make sequences longer, not to rank boxes.

    Args:
        ratio: chance of each box to be copied; no more copies than the codec has free slots.
        confidence: token that marks the copies.
    """
    num_free = max(0, codec.max_boxes - len(boxes))
    chosen = np.flatnonzero(rng.random(len(boxes)) < ratio)[:num_free]
    copies = boxes[chosen]
    side_N2 = copies.yxyx_N4[:, 2:] - copies.yxyx_N4[:, :2]
    # Half of a side either way: overlaps from nearly 1 down to a third and less.
    moved_N4 = np.clip(
        copies.yxyx_N4 + rng.uniform(-0.5, 0.5, (len(chosen), 4)) * np.tile(side_N2, (1, 2)), 0, 1
    )
    is_moved_N = (rng.random(len(chosen)) < 0.5) | (codec.num_classes == 1)
    other_N = rng.integers(1, max(2, codec.num_classes), len(chosen))
    return Boxes(
        yxyx_N4=np.concatenate(
            [boxes.yxyx_N4, np.where(is_moved_N[:, None], moved_N4, copies.yxyx_N4)]
        ),
        label_N=np.concatenate(
            [
                boxes.label_N,
                np.where(
                    is_moved_N, copies.label_N, (copies.label_N + other_N) % codec.num_classes
                ),
            ]
        ),
        confidence_N=np.concatenate([boxes.confidence_N, np.full(len(chosen), confidence)]),
    )
