"""Results of the COCO caption server, scored against COCO's captions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rewardtune.datasets.coco.official_files import read_annotations, read_caption_results
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.metric import caption_metrics
from rewardtune.tasks.results_files import needed_annotations, read_file_options

CORPUS = "corpus"
"""Document frequencies from the references of the very images that are scored."""


class CaptionFileOptions(BaseModel):
    """What ``rewardtune score captioning`` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statistics: str | Path = CORPUS
    """"corpus", or a file of document frequencies as ``rewardtune data cider-stats`` writes it."""

    is_tokenized: bool = False
    """Take all captions as words between blanks, as they stand."""

    per_image: bool = False


def score_captions(
    results: Path, annotations: Path | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """CIDEr-D (on the code's scale, 0 to 10), BLEU-1 to BLEU-4 and ROUGE-L.

    Args:
        results: COCO captions results JSON.
        annotations: COCO captions JSON.
        options: the fields of ``CaptionFileOptions``.

    Raises:
        As ``rewardtune.tasks.results_files.ResultsTask.score_files``.
    """
    told = read_file_options(CaptionFileOptions, options, task="captioning")
    annotations = needed_annotations(annotations, task="captioning")
    is_corpus = told.statistics == CORPUS
    return caption_metrics(
        read_annotations(annotations, "captions"),
        read_caption_results(results),
        frequencies=None if is_corpus else DocumentFrequencies.open(Path(told.statistics)),
        per_image=told.per_image,
        is_tokenized=told.is_tokenized,
    )
