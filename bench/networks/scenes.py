"""Made detection examples without pictures, and groups of rollouts scored on them."""

from __future__ import annotations

import numpy as np

from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.frame import Framed, Square
from rewardtune.policies.policy import Samples
from rewardtune.records import Group, Published, ScoredGroup, View
from rewardtune.tasks.detection.task import DetectionTask


def made_task(*, num_classes: int, max_boxes: int) -> DetectionTask:
    categories = [
        Category(id=i + 1, name=f"class {i}", num_instances=100) for i in range(num_classes)
    ]
    options = {"max_boxes": max_boxes, "reward": "map", "confidence_weight": 0.3}
    return DetectionTask(options, categories=categories)


def made_example(*, size: int, num_classes: int, num_objects: int, seed: int) -> Example:
    rng = np.random.default_rng(seed)
    corner_N2 = rng.random((num_objects, 2)) * 0.7 * size
    side_N2 = (0.05 + rng.random((num_objects, 2)) * 0.25) * size
    return Example(
        image_id=seed,
        file_name=f"made_{seed}.png",
        height=size,
        width=size,
        image=b"",
        xywh_N4=np.concatenate([corner_N2, side_N2], axis=1),
        category_N=rng.integers(num_classes, size=num_objects),
        area_N=side_N2.prod(axis=1),
        is_crowd_N=np.zeros(num_objects, dtype=np.bool_),
        annotation_id_N=np.arange(num_objects),
    )


def scored(
    samples: Samples, *, task: DetectionTask, num_classes: int, num_objects: int, size: int
) -> list[ScoredGroup]:
    """Every image's rollouts with their rewards on a made example."""
    result = []
    for index in range(len(samples.tokens_GST)):
        example = made_example(
            size=size, num_classes=num_classes, num_objects=num_objects, seed=index
        )
        group = Group(
            ordinal=index,
            example=index,
            view=View(),
            published=Published(term=0, policy_version=0),
            tokens_ST=samples.tokens_GST[index].numpy(),
            log_probs_ST=samples.log_probs_GST[index].numpy(),
            probe_log_probs_STQ=samples.probe_log_probs_GSTQ[index].numpy(),
        )
        framed = Framed.of(example, group.view, Square(side=size))
        score = task.score(task.decode(group.tokens_ST, framed), framed)
        result.append(ScoredGroup(group, score))
    return result
