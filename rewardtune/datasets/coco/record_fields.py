"""What records of JSON files must hold: a test for each field, told in one line where it fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

FieldTest: TypeAlias = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and what it must be."""


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(map(_is_number, value))


def _is_mask(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("counts"), str)


ID: FieldTest = (_is_id, "an integer")
# Cityscapes names its images by text.
NAME: FieldTest = (lambda value: isinstance(value, str) or _is_id(value), "an integer or a text")
NUMBER: FieldTest = (_is_number, "a number")
TEXT: FieldTest = (lambda value: isinstance(value, str), "a text")
BOX: FieldTest = (
    lambda value: _are_numbers(value, 4),
    "four numbers: left, top, width, height",
)
MASK: FieldTest = (_is_mask, "compressed run lengths: size and counts, a text")
LIST: FieldTest = (lambda value: isinstance(value, list), "a list")


def numbers(count: int, meaning: str) -> FieldTest:
    """A list of ``count`` numbers."""
    return (lambda value: _are_numbers(value, count), f"{count} numbers: {meaning}")


def check_records(
    records: Sequence[Any], fields: Mapping[str, FieldTest], path: Path, *, where: str
) -> None:
    """
    Args:
        path: of the file that they are from, for errors.
        where: what a record is called there: "annotation".

    Raises:
        ValueError: a record lacks a field or has a wrong one; names the first.
    """
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: {where} {number} is no object but {_shown(record)}")
        for field, (is_right, wanted) in fields.items():
            if field not in record:
                raise ValueError(f"{path}: {where} {number} has no '{field}': it must be {wanted}")
            if not is_right(record[field]):
                raise ValueError(
                    f"{path}: {where} {number} has {field} = {_shown(record[field])}: it must "
                    f"be {wanted}"
                )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
