"""A folder of coloured pictures, scored by its colours, and against its originals if given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rewardtune.tasks.colorization.metric import folder_colour_metrics
from rewardtune.tasks.results_files import read_file_options


class ColourFileOptions(BaseModel):
    """What ``rewardtune score colorization`` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_image: bool = False


def score_pictures(
    pictures: Path, originals: Path | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Means of reward, vivid, entropy, colourfulness and more; with originals PSNR.

    Args:
        pictures: a folder of PNGs and JPEGs.
        originals: a folder of pictures of the same names, or nothing.
        options: the fields of ``ColourFileOptions``.

    Raises:
        As ``rewardtune.tasks.results_files.ResultsTask.score_files``.
    """
    told = read_file_options(ColourFileOptions, options, task="colorization")
    return folder_colour_metrics(pictures, reference=originals, per_image=told.per_image)
