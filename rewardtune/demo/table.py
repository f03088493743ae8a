"""What each demo shows: its run, its scenes, and the figures of its last line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rewardtune.datasets.digits.facts import truthfulness
from rewardtune.datasets.digits.files import NUM_SCENES, STYLE, Annotations
from rewardtune.datasets.digits.scenes import SceneStyle, Split
from rewardtune.datasets.example import Dataset

Facts = Callable[[Sequence[Mapping[str, Any]], Dataset], Mapping[str, float]]
"""Figures of results records that the task's metric does not know of."""


@dataclass(frozen=True, slots=True)
class Demo:
    config: Path
    figures: Mapping[str, str]
    """Names in the summary, and which metric each is; by the first the best score rule is found."""
    num_scenes: Mapping[Split, int] = field(default_factory=lambda: NUM_SCENES)
    style: SceneStyle = STYLE
    annotations: Annotations = "instances"
    facts: Facts | None = None


def caption_facts(records: Sequence[Mapping[str, Any]], dataset: Dataset) -> Mapping[str, float]:
    """How much of what captions say of scenes is true: ``rewardtune.datasets.digits.facts``."""
    caption_of = {record["image_id"]: record["caption"] for record in records}
    examples = [dataset.example(index) for index in range(len(dataset))]
    return truthfulness([caption_of[example.image_id] for example in examples], examples)


_VIVID = SceneStyle(min_digits=2, max_digits=5, min_digit_size=13.0, ink="vivid")
_MANY_SCENES: Mapping[Split, int] = {"train": 20_000, "holdout": 500, "validation": 500}

DEMOS: Mapping[str, Demo] = MappingProxyType(
    {
        "detection": Demo(
            config=Path("configs/digits_detection_map.toml"),
            figures={"map": "map", "ar100": "ar100", "reward": "reward"},
        ),
        "panoptic": Demo(
            config=Path("configs/digits_panoptic_tune.toml"),
            figures={name: name for name in ("pq", "sq", "rq", "pq_things", "pq_stuff", "reward")},
            num_scenes=_MANY_SCENES,
            style=_VIVID,
            annotations="panoptic",
        ),
        "colorization": Demo(
            config=Path("configs/digits_colorization_tune.toml"),
            figures={
                "reward": "colour_reward",
                "vivid": "vivid",
                "entropy": "entropy",
                "psnr_lightness": "psnr_lightness",
                "total_variation_a": "total_variation_a",
                "total_variation_b": "total_variation_b",
            },
            num_scenes=_MANY_SCENES,
            style=_VIVID,
        ),
        "captioning": Demo(
            config=Path("configs/digits_captioning_cider.toml"),
            figures={
                "cider": "cider_d",
                "reward": "reward",
                "grammatical": "grammatical",
                "digit_precision": "digit_precision",
                "digit_recall": "digit_recall",
                "colour_precision": "colour_precision",
                "colour_recall": "colour_recall",
                "count_precision": "count_precision",
                "count_recall": "count_recall",
            },
            num_scenes={"train": 30_000, "holdout": 500, "validation": 500},
            style=SceneStyle(min_digits=1, max_digits=3, min_digit_size=13.0, ink="vivid"),
            facts=caption_facts,
        ),
    }
)
