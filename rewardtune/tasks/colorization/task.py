"""The colorization task: codes of a stage I, rewarded for vivid and diverse colour.

Axes: S rollouts, T tokens of a sequence, Q probed tokens, H height, W width, 3 colours.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed
from rewardtune.datasets.images import decode_image
from rewardtune.records import Score
from rewardtune.tasks.colorization.codec import colour_image, grey, in_image, label_maps
from rewardtune.tasks.colorization.definition import (
    NUM_HUE_BINS,
    HueRange,
    VividRule,
    round_to_levels,
)
from rewardtune.tasks.colorization.kernel import colour_rewards
from rewardtune.tasks.colorization.metric import colour_metrics, lightness_psnr, psnr
from rewardtune.tasks.colorization.probe import ColorizationProbe
from rewardtune.tasks.colorization.results_files import score_pictures
from rewardtune.tasks.colorization.tripwire_kernel import batch_tripwires
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.results_files import Progress
from rewardtune.tasks.uvim.options import StageOneOptions
from rewardtune.tasks.uvim.task import StageOneTask

SCORE_RULES = ("picture",)
"""One picture per image: there is nothing to rank."""

FOLDER = "pictures"
_PNG = "png"
"""Where a record holds its picture: a PNG in base64, which files of results have in a folder."""


Pictures = Decoded[NDArray[np.uint8], NDArray[np.uint8]]
"""Of a rollout as large as the example's image, of all as they are seen."""


class ColorizationOptions(StageOneOptions):
    """Options of ``load_task("colorization", ...)``."""

    vivid_rule: VividRule = "chroma"
    """Vivid is sqrt(a^2 + b^2) > 10, or "squared" as the printed formula reads."""

    hue_range: HueRange = "full"
    """Hue over the circle, or over "half" of it as the printed formula reads."""


class _Reading(TypedDict):
    vivid_rule: VividRule
    hue_range: HueRange


class ColorizationTask(StageOneTask[ColorizationOptions]):
    """Codec, reward and metric of colorization; implements ``rewardtune.tasks.task.Task``."""

    name = "colorization"
    score_rules = SCORE_RULES

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        """Validate the options and map stage I into memory.

        Args:
            options: the fields of ``ColorizationOptions``.
            categories: of no consequence here.

        Raises:
            ValueError: an option that is unknown or out of range, a stage I that cannot be read
                or is for other labels.
        """
        super().__init__(ColorizationOptions, options)

    @classmethod
    def probe(cls, options: Mapping[str, Any], dataset: Dataset) -> ColorizationProbe:
        """Made pictures, for ``rewardtune reward check``; options are those of the probe."""
        return ColorizationProbe(options, dataset)

    @staticmethod
    def score_files(
        results: Path,
        annotations: Path | None,
        options: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        return score_pictures(results, annotations, options)

    @property
    def score_bounds(self) -> dict[str, tuple[float, float]]:
        most = float(np.log(NUM_HUE_BINS))
        return {"reward": (0.0, most), "vivid": (0.0, 1.0), "entropy": (0.0, most)}

    @property
    def _reading(self) -> _Reading:
        return {"vivid_rule": self._options.vivid_rule, "hue_range": self._options.hue_range}

    @staticmethod
    def input_images(images_GHW3: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the policy sees of pictures in their views: no colour."""
        return grey(images_GHW3)

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        """The picture seen in the view, encoded by stage I; nothing is drawn from ``rng``."""
        self._check_framing(framed.frame.framing)
        image = colour_image(framed)
        return self._codec.encode(label_maps(image), grey(image))

    def score(self, decoded: Pictures, framed: Framed) -> Score:
        """Rewards of a group's rollouts: vivid fraction times hue entropy, 0 to ln 7.

        Components: "vivid" and "entropy", whose product is the reward; and what tells when it is
        gamed, no part of it: the fields of ``tripwire.ColourTripwires``.

        """
        pictures_SHW3 = decoded.seen
        rewards = colour_rewards(pictures_SHW3, **self._reading)
        return Score(
            reward_S=rewards.reward_N,
            components={
                "vivid": rewards.vivid_N,
                "entropy": rewards.entropy_N,
                **batch_tripwires(pictures_SHW3, **self._reading),
            },
        )

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Pictures:
        """The picture of each rollout, as large as the example's image [H, W, 3].

        Raises:
            ValueError: tokens of another shape or vocabulary, or an input of another size than
                stage I's.
        """
        self._check_framing(framed.frame.framing)
        colours_SHW3 = self._codec.decode_colours(tokens_ST, grey(colour_image(framed)))
        pictures_SHW3 = round_to_levels(colours_SHW3)
        return Decoded(
            tokens_ST, pictures_SHW3, lambda place: in_image(pictures_SHW3[place], framed.frame)
        )

    def predict(
        self,
        decoded: Pictures,
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """One sequence as a picture of the image's own size.

        One record: image_id, file_name and "png", the picture as a PNG in base64.
        """
        self._check_rule(score_rule)
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(decoded[0])).save(stream, format="PNG")
        return [
            {
                "image_id": framed.example.image_id,
                "file_name": f"{Path(framed.example.file_name).stem}.png",
                _PNG: base64.b64encode(stream.getvalue()).decode("ascii"),
            }
        ]

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        """Means over the pictures of the examples at ``indices``, as large as their images.

        Keys: colour_reward, and every other figure of ``metric.ColourMetrics`` by its name; and
        against the originals psnr and psnr_lightness, where they differ at all.

        Raises:
            ValueError: no indices, or an example without result.
        """
        self._check_indices(indices)
        record_of = {record["image_id"]: record for record in results}
        figures: dict[str, list[float]] = {}
        for index in indices:
            example = dataset.example(index)
            if example.image_id not in record_of:
                raise ValueError(f"image {example.image_id} ({example.file_name}) has no result")
            picture = _picture_of(record_of[example.image_id])
            original = decode_image(example.image)
            metrics = asdict(colour_metrics(picture, **self._reading))
            for name, value in {
                "colour_reward": metrics.pop("reward"),
                **metrics,
                "psnr": psnr(picture, original),
                "psnr_lightness": lightness_psnr(picture, original),
            }.items():
                if np.isfinite(value):
                    figures.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def paint(
        self, example: Example, records: Sequence[Mapping[str, Any]] | None
    ) -> NDArray[np.uint8]:
        """A record's picture, or the original."""
        return decode_image(example.image) if records is None else _picture_of(records[0])

    def write_results(self, records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """A folder ``pictures`` of PNGs, from which every figure can be computed again."""
        pictures = folder / FOLDER
        pictures.mkdir(parents=True, exist_ok=True)
        for record in records:
            (pictures / record["file_name"]).write_bytes(base64.b64decode(record[_PNG]))


def _picture_of(record: Mapping[str, Any]) -> NDArray[np.uint8]:
    return decode_image(base64.b64decode(record[_PNG]))
