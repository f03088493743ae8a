"""Official metrics of results files: what a benchmark's own evaluator would print, as values.

Nothing here needs torch or a policy: files in, numbers out. What files and options there are is the
task's to say (``rewardtune.tasks.results_files``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewardtune.tasks.results_files import Progress, ResultsTask
from rewardtune.tasks.task import task_class


def score(
    task: str,
    results: str | Path,
    *,
    annotations: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
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
        task: one of these, or a module of your own whose task has ``score_files``.
        progress: called with images done and to do, by tasks that take long.
        options: of the task, such as ``iou_type="segm"``; the model in its ``results_files.py``
            lists them. Every task above has ``per_image``, detection and panoptic ``per_class``.

    Returns:
        The metric by name, as JSON can hold it: AP AP50 ... ARl; All, Things and Stuff with pq,
        sq, rq and n; CIDEr-D, BLEU-1 to BLEU-4 and ROUGE-L (CIDEr-D on the code's scale, 0 to
        10); reward, vivid, entropy, colourfulness.

    Raises:
        OSError: a file or folder cannot be read.
        ValueError: no such task, one that cannot score files, an option of another task, or files
            that are broken, of the wrong kind, or do not belong together; one line that says which.
    """
    truth = None if annotations is None else Path(annotations)
    return results_task(task).score_files(Path(results), truth, options, progress=progress)


def results_task(name: str) -> ResultsTask:
    """The class of a task that can score files of its results.

    Raises:
        ValueError: no such task, or it cannot.
    """
    found = task_class(name)
    if not isinstance(found, ResultsTask):
        raise ValueError(
            f"task '{name}' does not say how files of its results are scored: give its class the "
            "method score_files (rewardtune.tasks.results_files.ResultsTask)"
        )
    return found
