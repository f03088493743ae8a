"""Which policy was best, across restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.evaluation.history import History


def test_only_what_is_better_than_all_before_is_best(tmp_path: Path) -> None:
    history = History(tmp_path, metric="map")
    assert history.add(0, {"ap50": 0.9, "map": 0.3})
    assert not history.add(10, {"ap50": 0.9, "map": 0.3})
    assert history.add(20, {"ap50": 0.1, "map": 0.4})
    assert history.best == {"step": 20, "ap50": 0.1, "map": 0.4}


def test_without_a_name_the_first_metric_judges(tmp_path: Path) -> None:
    history = History(tmp_path, metric=None)
    history.add(0, {"cider": 1.0, "bleu": 0.0})
    assert not history.add(1, {"cider": 0.5, "bleu": 1.0})


def test_a_restart_takes_up_what_was_measured_and_measures_the_best_again_as_best(
    tmp_path: Path,
) -> None:
    history = History(tmp_path, metric="map")
    history.add(0, {"map": 0.3})
    history.add(2, {"map": 0.5})
    history.add(4, {"map": 0.4})
    again = History(tmp_path, metric="map")
    assert again.best == {"step": 2, "map": 0.5}
    assert again.add(2, {"map": 0.5})
    assert not again.add(4, {"map": 0.4})
    assert [e["step"] for e in again.evaluations] == [0, 2, 4]


def test_a_metric_that_the_task_does_not_have_is_one_line_with_those_it_has(tmp_path: Path) -> None:
    history = History(tmp_path, metric="bogus")
    said = r"evaluation.metric = 'bogus' is none of the task's metrics: choose from map, ap50$"
    with pytest.raises(ValueError, match=said):
        history.add(0, {"map": 0.3, "ap50": 0.5})
    assert history.evaluations == [] == list(tmp_path.iterdir())


def test_nothing_measured_is_no_best(tmp_path: Path) -> None:
    assert History(tmp_path, metric=None).best == {}
