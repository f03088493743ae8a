"""``task_options`` as a task takes them: validated by its pydantic model, refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Options = TypeVar("Options", bound=BaseModel)


def read_options(model: type[Options], options: Mapping[str, Any], *, task: str) -> Options:
    """Validate a task's options; for tasks outside the project, too.

    Args:
        model: a frozen model with ``extra="forbid"``.
        options: a run's ``task_options``.
        task: its name, for the error.

    Raises:
        ValueError: one line with the first bad key, what came, and what would be valid.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise ValueError(
                f"unknown {task} option '{key}' = {problem['input']!r}: valid options are "
                f"{', '.join(model.model_fields)}"
            ) from None
        if problem["type"] == "missing":
            meaning = model.model_fields[key].description if key in model.model_fields else None
            raise ValueError(
                f"{task} option '{key}' is missing: set task_options.{key}"
                f"{f' to {meaning}' if meaning else ''}"
            ) from None
        subject = f"{task} option '{key}' = {problem['input']!r}" if key else f"{task} options"
        raise ValueError(f"{subject}: {problem['msg']}") from None
