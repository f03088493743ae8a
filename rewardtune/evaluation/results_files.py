"""Official metrics of results files: what a benchmark's own evaluator would print, as values.

Nothing here needs torch or a policy: files in, numbers out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from rewardtune.evaluation.official_files import (
    panoptic_folder,
    read_annotations,
    read_caption_results,
    read_detection_results,
    read_panoptic_results,
)

if TYPE_CHECKING:
    from rewardtune.tasks.detection.coco_records import IouType

ScoredTask: TypeAlias = Literal["detection", "panoptic", "captioning", "colorization"]
CORPUS = "corpus"
"""Document frequencies from the references of the very images that are scored."""

_TASKS_OF: dict[str, tuple[ScoredTask, ...]] = {
    "iou_type": ("detection",),
    "statistics": ("captioning",),
    "is_tokenized": ("captioning",),
    "results_images": ("panoptic",),
    "annotations_images": ("panoptic",),
    "per_class": ("detection", "panoptic"),
}
"""Options that not every task knows."""


def score(
    task: ScoredTask,
    results: str | Path,
    *,
    annotations: str | Path | None = None,
    iou_type: IouType | None = None,
    statistics: str | Path | None = None,
    is_tokenized: bool = False,
    results_images: str | Path | None = None,
    annotations_images: str | Path | None = None,
    per_class: bool = False,
    per_image: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score a results file against its annotations, by the task's official metric.

    ============  =================================  ==================================
    task          results                            annotations
    ============  =================================  ==================================
    detection     COCO results JSON, boxes or masks  COCO instances JSON
    panoptic      COCO panoptic JSON, PNGs           COCO panoptic JSON, PNGs
    captioning    COCO captions results JSON         COCO captions JSON
    colorization  a folder of PNGs and JPEGs         a folder of the originals, or nothing
    ============  =================================  ==================================

    Args:
        iou_type: detection: match by boxes or masks; None: by what the first record has. As
            officially, masks are boxed for "bbox", and boxes filled for "segm".
        statistics: captioning: "corpus" (the default), or a file of document frequencies as
            ``rewardtune data cider-stats`` writes it.
        is_tokenized: captioning: take all captions as words between blanks, as they stand.
        results_images, annotations_images: panoptic: the folders of PNGs; by default the
            JSON's name without ``.json``, beside it.
        per_class: detection and panoptic: also a table by class.
        per_image: also figures of each image.
        progress: panoptic: called with images done and to do.

    Returns:
        The metric by name, as JSON can hold it: AP AP50 ... ARl; All, Things and Stuff with pq,
        sq, rq and n; CIDEr-D, BLEU-1 to BLEU-4 and ROUGE-L (CIDEr-D on the code's scale, 0 to
        10); reward, vivid, entropy, colourfulness.

    Raises:
        OSError: a file or folder cannot be read.
        ValueError: an option of another task, or files that are broken, of the wrong kind, or do
            not belong together; one line that says which.
    """
    if task not in get_args(ScoredTask):
        raise ValueError(
            f"no metric for task '{task}': choose from {', '.join(get_args(ScoredTask))}"
        )
    given = {
        "iou_type": iou_type is not None,
        "statistics": statistics is not None,
        "is_tokenized": is_tokenized,
        "results_images": results_images is not None,
        "annotations_images": annotations_images is not None,
        "per_class": per_class,
    }
    for option, tasks in _TASKS_OF.items():
        if given[option] and task not in tasks:
            raise ValueError(
                f"{option} is for {' and '.join(tasks)}: task '{task}' has no use for it"
            )
    truth = None if annotations is None else Path(annotations)
    if task == "colorization":
        return _colorization(Path(results), truth, per_image=per_image)
    if truth is None:
        raise ValueError(f"task '{task}' is scored against annotations: name their file")
    if task == "detection":
        return _detection(
            Path(results), truth, iou_type=iou_type, per_class=per_class, per_image=per_image
        )
    if task == "captioning":
        return _captioning(
            Path(results),
            truth,
            statistics=statistics or CORPUS,
            is_tokenized=is_tokenized,
            per_image=per_image,
        )
    return _panoptic(
        Path(results),
        truth,
        results_images=None if results_images is None else Path(results_images),
        annotations_images=None if annotations_images is None else Path(annotations_images),
        per_class=per_class,
        per_image=per_image,
        progress=progress,
    )


def _detection(
    results: Path, annotations: Path, *, iou_type: IouType | None, per_class: bool, per_image: bool
) -> dict[str, Any]:
    from rewardtune.tasks.detection.metric import coco_metrics

    records, of_records = read_detection_results(results)
    return coco_metrics(
        read_annotations(annotations, "instances"),
        records,
        iou_type=iou_type or of_records,
        per_class=per_class,
        per_image=per_image,
    )


def _panoptic(
    results: Path,
    annotations: Path,
    *,
    results_images: Path | None,
    annotations_images: Path | None,
    per_class: bool,
    per_image: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    from rewardtune.tasks.panoptic.metric import panoptic_metrics

    return panoptic_metrics(
        read_annotations(annotations, "panoptic"),
        panoptic_folder(annotations, annotations_images, option="annotations_images"),
        read_panoptic_results(results),
        panoptic_folder(results, results_images, option="results_images"),
        per_class=per_class,
        per_image=per_image,
        progress=progress,
    )


def _captioning(
    results: Path,
    annotations: Path,
    *,
    statistics: str | Path,
    is_tokenized: bool,
    per_image: bool,
) -> dict[str, Any]:
    from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
    from rewardtune.tasks.captioning.metric import caption_metrics

    return caption_metrics(
        read_annotations(annotations, "captions"),
        read_caption_results(results),
        frequencies=None if statistics == CORPUS else DocumentFrequencies.open(Path(statistics)),
        per_image=per_image,
        is_tokenized=is_tokenized,
    )


def _colorization(pictures: Path, originals: Path | None, *, per_image: bool) -> dict[str, Any]:
    from rewardtune.tasks.colorization.metric import folder_colour_metrics

    return folder_colour_metrics(pictures, reference=originals, per_image=per_image)
