"""That a test which is gone or asserts less is found."""

from __future__ import annotations

import pytest

from tests import compare
from tests.compare import Held, falls, held_by, reasons_for

BEFORE = """
import pytest
from pytest import raises

def test_one():
    assert 1
    with pytest.raises(ValueError):
        assert 2
    with raises(KeyError):
        pass

def helper():
    assert 0

class TestClass:
    def test_method(self):
        for each in (1, 2):
            assert each
"""


def test_asserts_and_raises_are_counted_by_name() -> None:
    held = {"test_one": Held(1, 2, 2), "test_method": Held(1, 1, 0)}
    assert held_by([BEFORE]) == held


def test_tests_of_one_name_count_together_wherever_they_are() -> None:
    assert held_by([BEFORE, "def test_one():\n    assert 3\n"])["test_one"] == Held(2, 3, 2)


def test_what_is_gone_or_holds_less_is_a_fall() -> None:
    before = held_by([BEFORE])
    assert falls(before, before) == []
    fewer = held_by([BEFORE.replace("assert 1", "pass").replace("test_method", "test_renamed")])
    told = ["test_method: gone", "test_one: 2 -> 1 asserts"]
    assert [str(fall) for fall in falls(before, fewer)] == told
    swapped = held_by([BEFORE.replace("with raises(KeyError)", "assert with_x\n    with x")])
    assert [str(fall) for fall in falls(before, swapped)] == ["test_one: 2 -> 1 raises"]
    more = {**before, "test_new": Held(1, 0, 0), "test_one": Held(2, 9, 9)}
    assert falls(before, more) == []
    assert [str(fall) for fall in falls(more, before)][1] == (
        "test_one: 2 -> 1 tests, 9 -> 2 asserts, 9 -> 2 raises"
    )


def test_a_reason_is_of_one_commit() -> None:
    tables = {"36a8": {"test_a": "was twice"}, "ce26": {}}
    assert reasons_for("36a8acc0", tables) == {"test_a": "was twice"}
    assert reasons_for("ce262660", tables) == reasons_for("ffff", tables) == {}


def test_a_commit_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["no-such-commit"]) == 2
    assert capsys.readouterr().err == "error: no-such-commit is no commit of this repository\n"
