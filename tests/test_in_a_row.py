"""What is read from pytest's last lines."""

from __future__ import annotations

from tests.in_a_row import counts

OUTPUT = """\
tests/test_house.py ....                                                 [100%]
================= 3370 passed, 60 skipped in 213.46s (0:03:33) =================
=================================== FAILURES ===================================
========== 1 failed, 195 passed, 1580 deselected in 217.68s (0:03:37) ==========
"""


def test_the_last_lines_of_all_parts_are_summed() -> None:
    assert counts(OUTPUT) == {"passed": 3565, "failed": 1, "skipped": 60}
    assert counts("nothing ran") == {"passed": 0, "failed": 0, "skipped": 0}
