from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reward_workers.scoring.config import RewardConfig, Source


def read(given: Any) -> RewardConfig:
    return RewardConfig.model_validate(given)


@pytest.mark.parametrize(
    ("line", "name", "source"),
    [
        ("my_module:my_reward", "my_reward", Source.FUNCTION),
        ("a.b.c:Score", "score", Source.FUNCTION),
        ("mine:std", "custom", Source.FUNCTION),
        ("task", "task", Source.TASK),
        ("grpc://127.0.0.1:50051", "server", Source.SERVER),
        ("grpc://[::1]:50051", "server", Source.SERVER),
    ],
)
def test_one_line_is_a_sum_of_that_alone(line: str, name: str, source: Source) -> None:
    config = read(line)
    assert config.sum == {name: 1.0}
    assert config.parts[name].source is source
    assert config.parts["task"].use == "task"


def test_a_config_comes_back_from_json() -> None:
    config = read({"sum": {"task": 1, "a": 0.5}, "parts": {"a": {"use": "m:f", "clip": [0, 1]}}})
    assert RewardConfig.model_validate_json(config.model_dump_json()) == config


def test_the_address_of_a_server() -> None:
    assert read("grpc://host.example:50051").parts["server"].address == "host.example:50051"


PART = {"use": "m:f"}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("poetry", "must be 'task', 'module:function' or 'grpc://host:port'"),
        ("grpc://nowhere", "must be 'task', 'module:function' or 'grpc://host:port'"),
        ({"parts": {"a": PART}}, "needs sum or product"),
        ({"sum": {"a": 1}}, "speaks of a part 'a' that is not there: the parts are task"),
        ({"sum": {"a": 1}, "product": ["a"], "parts": {"a": PART}}, "exclude each other"),
        ({"sum": {}, "parts": {"a": PART}}, "sum or product is empty"),
        ({"sum": {"Big": 1}, "parts": {"Big": PART}}, "cannot be a part's name"),
        ({"sum": {"total": 1}, "parts": {"total": PART}}, "cannot be a part's name"),
        ({"sum": {"task": 1}, "parts": {"task": PART}}, "is the task's own reward"),
        ({"sum": {"a": 1}, "parts": {"a": {"clip": [0, 1]}}}, "exactly one of use, sum"),
        ({"sum": {"a": 1}, "parts": {"a": {**PART, "clip": [1, 1]}}}, "lowest, highest"),
        ({"sum": {"a": 1}, "parts": {"a": {**PART, "otherwise": 1}}}, "otherwise needs gates"),
        ({"sum": {"a": 1}, "gates": ["b"], "parts": {"a": PART}}, "a part 'b' that is not"),
        (
            {"sum": {"a": 1}, "parts": {"a": {"use": "grpc://h:1", "options": {"x": 1}}}},
            "options are for a function",
        ),
        (
            {"sum": {"a": 1}, "parts": {"a": {"sum": {"b": 1}}, "b": {**PART, "gates": ["a"]}}},
            "is made of itself: a > b > a",
        ),
        ({"sum": {"task": float("nan")}}, "finite number"),
    ],
)
def test_what_cannot_be_composed_is_refused_with_a_reason(given: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        read(given)
