"""The detection reward of whole batches beside its definition.

Axes: I images, S sequences, T tokens, N boxes, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.figure import Figure, figure
from bench.timing import interleaved, timed
from tasks.detection.codec import Boxes, DetectionCodec
from tasks.detection.matching import Targets, match_batch, warm_up
from tasks.detection.reward import MAP_THRESHOLDS, detection_reward

PEER = "the reward's definition, tasks/detection/reward.py"


def detection(*, is_quick: bool) -> Iterator[Figure]:
    """COCO's sizes: 80 classes, 100 predicted boxes, 7 objects an image, ten thresholds."""
    yield from detection_figures(
        num_images=256,
        num_samples=2,
        max_boxes=100,
        num_compared=8 if is_quick else 64,
        num_rounds=3 if is_quick else 9,
    )


def detection_figures(
    *, num_images: int, num_samples: int, max_boxes: int, num_compared: int, num_rounds: int
) -> Iterator[Figure]:
    """Sequences and images per second on one thread.

    Args:
        num_compared: sequences that the definition scores; of its seconds, which grow with
            nothing but their number, those of all are reckoned.

    Raises:
        AssertionError: the two differ on those sequences.
    """
    rng = np.random.default_rng(0)
    codec = DetectionCodec(num_classes=80, max_boxes=max_boxes)
    weight_C = rng.random(codec.num_classes) + 0.5
    images = [_random_boxes(rng, num=1 + rng.poisson(6), codec=codec) for _ in range(num_images)]
    image_S = np.repeat(np.arange(num_images), num_samples)
    tokens_ST = np.stack([_noisy_tokens(rng, images[i], codec) for i in image_S])
    compared = range(0, len(image_S), max(1, len(image_S) // num_compared))
    options = {"class_weight_C": weight_C, "duplicate_penalty": 0.3}

    def fast() -> NDArray[np.float64]:
        match = match_batch(
            tokens_ST,
            Targets.of(images, codec),
            image_S,
            codec=codec,
            class_weight_C=weight_C,
            iou_thresholds=MAP_THRESHOLDS,
        )
        return match.reward_SK(duplicate_penalty=0.3)

    def slow() -> NDArray[np.float64]:
        return np.array(
            [
                [
                    detection_reward(
                        codec.decode(tokens_ST[s]),
                        images[image_S[s]],
                        iou_threshold=threshold,
                        **options,  # type: ignore[arg-type]
                    )
                    for threshold in MAP_THRESHOLDS
                ]
                for s in compared
            ]
        )

    warm_up()
    np.testing.assert_allclose(fast()[compared], slow(), rtol=0, atol=1e-9)
    seconds = interleaved({"ours": timed(fast), "peer": timed(slow)}, num_rounds=num_rounds)
    peer_seconds = seconds["peer"] * len(image_S) / len(compared)
    for suffix, amount, unit in (
        ("", len(image_S), "sequences/s"),
        (".images", num_images, "images/s"),
    ):
        yield figure(
            f"reward.detection_reward{suffix}",
            seconds["ours"],
            amount=amount,
            unit=unit,
            peer=PEER,
            peer_seconds=peer_seconds,
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
    """A full sequence: each object found several times more or less well, and some nonsense."""
    token_P6 = rng.integers(
        codec.first_level, codec.vocab_size, size=(codec.max_boxes, 6), dtype=np.int32
    )
    token_P6[:, 5] = rng.integers(1, codec.max_confidence + 1, size=codec.max_boxes)
    chosen = rng.integers(len(target), size=codec.max_boxes)
    noisy = np.clip(target.yxyx_N4[chosen] + rng.normal(size=(codec.max_boxes, 4)) * 0.02, 0, 1)
    is_near = rng.random(codec.max_boxes) < 0.5
    token_P6[is_near, :4] = (codec.levels(noisy) + codec.first_level)[is_near]
    token_P6[is_near, 4] = (target.label_N[chosen] + codec.first_class)[is_near]
    return token_P6.reshape(-1)
