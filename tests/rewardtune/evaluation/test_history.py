"""Which policy was best, across restarts."""

from __future__ import annotations

from pathlib import Path

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


def test_nothing_measured_is_no_best(tmp_path: Path) -> None:
    assert History(tmp_path, metric=None).best == {}
