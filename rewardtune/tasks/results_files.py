"""How files of a task's results are scored: the official metric, without a policy.

A task's ``results_files.py`` reads the files in their official format and hands them to its metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from pydantic import BaseModel

from rewardtune.tasks.options import read_options

Options = TypeVar("Options", bound=BaseModel)

Progress: TypeAlias = Callable[[int, int], None]
"""Called with images done and to do."""


@runtime_checkable
class ResultsTask(Protocol):
    """What a task's class has beside ``Task`` if ``rewardtune score`` is to score its results."""

    @staticmethod
    def score_files(
        results: Path,
        annotations: Path | None,
        options: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """The official metric of a results file.

        Args:
            results, annotations: files or folders, as the task has them.
            options: those that were given, not yet validated (``read_file_options``). The command
                line has some of its own: ``per_class`` and ``per_image``, for tables by class and
                by image, are for any task that can make them.

        Returns:
            Figures by name, as JSON can hold them; no NaN and no infinity.

        Raises:
            OSError: a file or folder cannot be read.
            ValueError: an option that the task does not know, or files that are broken, of the
                wrong kind, or do not belong together; one line that says which.
        """
        ...


def read_file_options(model: type[Options], options: Mapping[str, Any], *, task: str) -> Options:
    """Validate what is told of a task's files.

    Args:
        model: a frozen model with ``extra="forbid"``.

    Raises:
        ValueError: an option of other tasks, or a value that is not possible; one line.
    """
    for key in options:
        if key not in model.model_fields:
            known = ", ".join(model.model_fields) or "none"
            raise ValueError(
                f"{key} is for other results: task '{task}' has no use for it (its options: "
                f"{known})"
            )
    return read_options(model, options, task=task)


def needed_annotations(annotations: Path | None, *, task: str) -> Path:
    """
    Raises:
        ValueError: there are none.
    """
    if annotations is None:
        raise ValueError(f"task '{task}' is scored against annotations: name their file")
    return annotations
