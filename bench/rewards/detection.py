"""The detection reward of whole batches beside its definition: one thread each.

Processor time, because the machine is shared. Sequences of the shared COCO data, or made ones
where those are not there; 256 images of 4 samples, 100 slots with 20 boxes, 7.5 objects.

Axes: I images, S sequences, T tokens, G targets, P box slots, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.figure import Figure, figure
from bench.processor_time import processor_timed
from bench.timing import interleaved
from rewardtune.tasks.detection.codec import Boxes, DetectionCodec
from rewardtune.tasks.detection.definition import MAP_THRESHOLDS, detection_reward
from rewardtune.tasks.detection.kernel import Targets, match_batch, warm_up
from rewardtune.tasks.kernel import compiled

PEER = "the reward's definition, rewardtune/tasks/detection/definition.py"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "detection"
GROUP_SIZE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """Sequences of several images with what is to be found in each."""

    tokens_ST: NDArray[np.int32]
    images: list[Boxes]
    image_S: NDArray[np.int64]
    codec: DetectionCodec


def detection(*, is_quick: bool) -> Iterator[Figure]:
    """COCO's sizes: 80 classes, ten thresholds."""
    yield from detection_figures(
        _real_scenes(num_images=256)
        or made_scenes(num_images=256, num_samples=GROUP_SIZE, max_boxes=100),
        num_compared=8 if is_quick else 64,
        num_rounds=3 if is_quick else 9,
    )


def detection_figures(scenes: Scenes, *, num_compared: int, num_rounds: int) -> Iterator[Figure]:
    """Sequences and images per second of whole batches, targets prepared, and group by group.

    The floor is the arithmetic of all overlaps, each slot with each target of its image. Ours
    may be faster: it reckons only those of one class.

    Args:
        num_compared: sequences that the definition scores; of its seconds, which grow with
            nothing but their number, those of all are reckoned.

    Raises:
        AssertionError: the two differ on those sequences.
    """
    codec, tokens_ST, image_S = scenes.codec, scenes.tokens_ST, scenes.image_S
    weight_C = np.random.default_rng(0).random(codec.num_classes) + 0.5
    targets = Targets.of(scenes.images, codec)
    options: dict[str, Any] = {
        "codec": codec,
        "class_weight_C": weight_C,
        "iou_thresholds": MAP_THRESHOLDS,
    }
    compared = range(0, len(image_S), max(1, len(image_S) // num_compared))
    level_SP4 = np.rint(codec.decode(tokens_ST).yxyx_N4 * codec.max_level)
    level_S4P = np.ascontiguousarray(level_SP4.transpose(0, 2, 1), dtype=np.float32)
    level_G4 = targets.level_G4.astype(np.float32)

    def batch() -> NDArray[np.float64]:
        match = match_batch(tokens_ST, targets, image_S, **options)
        return match.reward_SK(duplicate_penalty=0.3)

    def groups() -> None:
        # As a reward worker calls it: each image with its sequences, targets as annotated.
        for i, boxes in enumerate(scenes.images):
            group_ST = tokens_ST[i * num_samples : (i + 1) * num_samples]
            match = match_batch(group_ST, Targets.of([boxes], codec), nothing_S, **options)
            match.reward_SK(duplicate_penalty=0.3)

    def slow() -> NDArray[np.float64]:
        return np.array(
            [
                [
                    detection_reward(
                        codec.decode(tokens_ST[s]),
                        scenes.images[image_S[s]],
                        iou_threshold=threshold,
                        class_weight_C=weight_C,
                        duplicate_penalty=0.3,
                    )
                    for threshold in MAP_THRESHOLDS
                ]
                for s in compared
            ]
        )

    num_images = len(scenes.images)
    num_samples = len(image_S) // num_images
    nothing_S = np.zeros(num_samples, dtype=np.int64)
    warm_up()
    np.testing.assert_allclose(batch()[compared], slow(), rtol=0, atol=1e-9)
    ways = {
        "batch": batch,
        "groups": groups,
        "peer": slow,
        "floor": lambda: _all_overlaps(level_S4P, image_S, level_G4, targets.offset_I),
    }
    seconds = interleaved(
        {name: processor_timed(way) for name, way in ways.items()}, num_rounds=num_rounds
    )
    peer_seconds = seconds["peer"] * len(image_S) / len(compared)
    for suffix, way, amount, unit in (
        ("", "batch", len(image_S), "sequences/s"),
        (".images", "batch", num_images, "images/s"),
        (".groups", "groups", len(image_S), "sequences/s"),
    ):
        yield figure(
            f"reward.detection_reward{suffix}",
            seconds[way],
            amount=amount,
            unit=unit,
            peer=PEER,
            peer_seconds=peer_seconds,
            floor_seconds=seconds["floor"],
        )


def made_scenes(*, num_images: int, num_samples: int, max_boxes: int) -> Scenes:
    """A fifth of the slots filled: objects found several times more or less well, and nonsense."""
    rng = np.random.default_rng(0)
    codec = DetectionCodec(num_classes=80, max_boxes=max_boxes)
    images = [_random_boxes(rng, num=1 + rng.poisson(6.5), codec=codec) for _ in range(num_images)]
    image_S = np.repeat(np.arange(num_images), num_samples)
    tokens_ST = np.stack([_noisy_tokens(rng, images[i], codec) for i in image_S])
    return Scenes(tokens_ST, images, image_S, codec)


def _real_scenes(*, num_images: int) -> Scenes | None:
    path = SHARED / "reward_tiny_a.npz"
    if not path.is_file():
        return None
    data = np.load(path)
    codec = DetectionCodec(num_classes=80, max_boxes=100)
    chosen = np.arange(num_images) % len(data["seqs_gt"])
    tokens_ST = data["seqs_pred"][chosen, :GROUP_SIZE].reshape(-1, codec.sequence_length)
    return Scenes(
        tokens_ST=tokens_ST.astype(np.int32),
        images=[codec.decode(data["seqs_gt"][i]) for i in chosen],
        image_S=np.repeat(np.arange(num_images), GROUP_SIZE),
        codec=codec,
    )


def _random_boxes(rng: np.random.Generator, *, num: int, codec: DetectionCodec) -> Boxes:
    corner_N2 = rng.random((num, 2)) * 0.7
    size_N2 = 0.05 + rng.random((num, 2)) * 0.25
    return Boxes(
        yxyx_N4=np.concatenate([corner_N2, corner_N2 + size_N2], axis=1),
        label_N=rng.integers(codec.num_classes, size=num),
        confidence_N=np.full(num, codec.max_confidence),
    )


def _noisy_tokens(
    rng: np.random.Generator, target: Boxes, codec: DetectionCodec
) -> NDArray[np.int32]:
    token_P6 = rng.integers(
        codec.first_level, codec.vocab_size, size=(codec.max_boxes, 6), dtype=np.int32
    )
    token_P6[:, 5] = rng.integers(1, codec.max_confidence + 1, size=codec.max_boxes)
    chosen = rng.integers(len(target), size=codec.max_boxes)
    noisy = np.clip(target.yxyx_N4[chosen] + rng.normal(size=(codec.max_boxes, 4)) * 0.02, 0, 1)
    is_near = rng.random(codec.max_boxes) < 0.5
    token_P6[is_near, :4] = (codec.levels(noisy) + codec.first_level)[is_near]
    token_P6[is_near, 4] = (target.label_N[chosen] + codec.first_class)[is_near]
    token_P6[max(1, codec.max_boxes // 5) :] = 0
    return token_P6.reshape(-1)


@compiled
def _all_overlaps(
    level_S4P: NDArray[np.float32],
    image_S: NDArray[np.int64],
    level_G4: NDArray[np.float32],
    offset_I: NDArray[np.int64],
) -> float:
    """The overlaps of all slots with all targets of their images: 15 operations each."""
    total = 0.0
    overlap_P = np.zeros(level_S4P.shape[2], dtype=np.float32)
    for s in range(len(image_S)):
        for g in range(offset_I[image_S[s]], offset_I[image_S[s] + 1]):
            top, left = level_G4[g, 0], level_G4[g, 1]
            bottom, right = level_G4[g, 2], level_G4[g, 3]
            area = (bottom - top) * (right - left)
            y0_P, x0_P, y1_P, x1_P = (
                level_S4P[s, 0],
                level_S4P[s, 1],
                level_S4P[s, 2],
                level_S4P[s, 3],
            )
            for p in range(level_S4P.shape[2]):
                y0, x0, y1, x1 = y0_P[p], x0_P[p], y1_P[p], x1_P[p]
                height = max(min(y1, bottom) - max(y0, top), np.float32(0))
                width = max(min(x1, right) - max(x0, left), np.float32(0))
                shared = height * width
                union = area + abs((y1 - y0) * (x1 - x0)) - shared
                overlap_P[p] = max(overlap_P[p], shared / (union + np.float32(1e-3)))
        total += overlap_P[0]
    return total
