from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rewardtune.tasks.options import read_options


class Limits(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int = 0


class BoxOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="a file of boxes")
    name: str = "box"
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _is_possible(self) -> BoxOptions:
        if self.name == self.path:
            raise ValueError("name and path are the same")
        return self


def test_options_become_the_model() -> None:
    assert read_options(BoxOptions, {"path": "a"}, task="boxes") == BoxOptions(path="a")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "boxes option 'path' is missing: set task_options.path to a file of boxes"),
        (
            {"path": "a", "nane": "b"},
            "unknown boxes option 'nane' = 'b': valid options are path, name, limits",
        ),
        ({"path": 1}, "boxes option 'path' = 1: Input should be a valid string"),
        (
            {"path": "a", "limits": {"low": "x"}},
            "boxes option 'limits.low' = 'x': Input should be a valid integer, "
            "unable to parse string as an integer",
        ),
        (
            {"path": "a", "name": "a"},
            "boxes options: Value error, name and path are the same",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        read_options(BoxOptions, options, task="boxes")
