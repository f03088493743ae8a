"""A task's own settings as they are given on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any


def task_options(options: Sequence[str]) -> Mapping[str, Any]:
    """``key=value`` with TOML values; what is not TOML is a string.

    Raises:
        ValueError: one that is not of this form.
    """
    values: dict[str, Any] = {}
    for option in options:
        key, equals, text = (part.strip() for part in option.partition("="))
        if not key or not equals:
            raise ValueError(f"--option {option}: write it as key=value, such as max_boxes=20")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values
