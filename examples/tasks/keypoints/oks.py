"""How well points fit: COCO's object keypoint similarity, a reward made of it, and COCO's AP.

Axes: M predicted objects, N annotated ones, K points of each.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from keypoints.points import POINTS


def similarity(
    predicted_MK2: NDArray[np.float64],
    annotated_NK2: NDArray[np.float64],
    area_N: NDArray[np.float64],
    *,
    sigma: float,
) -> NDArray[np.float64]:
    """Object keypoint similarity [M, N] in [0, 1]; 1 where all points are where they should be.

    Args:
        predicted_MK2, annotated_NK2: points in the same pixels as the areas.
        sigma: how far off people are, as a share of the object's size. COCO's own go from 0.025
            for eyes to 0.107 for hips.

    Source: https://cocodataset.org/#keypoints-eval, all points visible.
    """
    offset_MNK2 = predicted_MK2[:, None] - annotated_NK2[None]
    squared_MNK = (offset_MNK2**2).sum(axis=-1)
    scale_N1 = 2 * area_N[:, None] * (2 * sigma) ** 2
    return np.asarray(np.exp(-squared_MNK / scale_N1).mean(axis=-1))


def matched_similarity(
    oks_MN: NDArray[np.float64],
    predicted_category_M: NDArray[np.int64],
    category_N: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What each predicted object has matched [M]; 0 if nothing.

    The best pair of one class is matched first, then the best of what is left.
    """
    left_MN = np.where(predicted_category_M[:, None] == category_N, oks_MN, 0.0)
    matched_M = np.zeros(len(oks_MN))
    while left_MN.size and left_MN.max() > 0:
        m, n = np.unravel_index(left_MN.argmax(), left_MN.shape)
        matched_M[m] = left_MN[m, n]
        left_MN[m] = left_MN[:, n] = 0.0
    return matched_M


def coco_keypoint_metrics(
    images: Sequence[int],
    annotations: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    *,
    sigma: float,
) -> dict[str, float]:
    """COCO's keypoint AP and AR, by its own code, in [0, 1]; -1 where nothing is annotated.

    Args:
        images: ids.
        annotations: id, image_id, category_id, keypoints, num_keypoints, bbox, area, iscrowd.
        results: image_id, category_id, keypoints, score.
    """
    names = ("ap", "ap50", "ap75", "ar", "ar50", "ar75")
    if not results:
        return dict.fromkeys(names, 0.0)
    classes = sorted({record["category_id"] for record in [*annotations, *results]})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": each} for each in images],
            "categories": [{"id": each} for each in classes],
            "annotations": copy.deepcopy(list(annotations)),
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(list(results))), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.full(len(POINTS), sigma)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    kept = (0, 1, 2, 5, 6, 7)  # the others are of medium and large objects
    return {name: float(evaluation.stats[i]) for name, i in zip(names, kept, strict=True)}
