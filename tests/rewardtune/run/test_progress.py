from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from rewardtune.run.progress import LiveLine, PlainLines, counting


def record(step: int, **more: float) -> dict[str, float]:
    return {
        "step": step,
        "reward": 1.5,
        "samples_per_second": 800.0,
        "staleness": 1.0,
        "seconds_sample": 0.6,
        "seconds_learn": 0.4,
        **more,
    }


def console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=is_terminal, width=100, color_system=None), text


def test_plain_lines_come_now_and_then_and_at_the_end() -> None:
    shown, text = console()
    log = PlainLines(shown, title="tune", num_steps=250)
    for step in range(1, 251):
        log.step(record(step))
    lines = text.getvalue().splitlines()
    assert len(lines) == 126
    assert lines[0].startswith("tune 1/250 · reward 1.500 · 800 samples/s · staleness 1 · sample")
    assert "sample 60% learn 40%" in lines[0]
    assert lines[-1].startswith("tune 250/250")


def test_a_resumed_run_is_reported_from_where_it_stands() -> None:
    shown, text = console()
    log = PlainLines(shown, title="tune", num_steps=1000)
    log.step(record(777))
    assert text.getvalue().startswith("tune 777/1000")


def test_the_time_left_follows_the_steps_of_this_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 103.0])
    monkeypatch.setattr("rewardtune.run.progress.time.monotonic", lambda: next(now, 103.0))
    shown, text = console()
    log = PlainLines(shown, title="tune", num_steps=32)
    log.step(record(1))
    log.step(record(2))
    first, second = text.getvalue().splitlines()
    assert "left" not in first
    assert second.endswith("0:01:30 left")


def test_a_line_shows_the_figures_of_its_own_step_and_no_earlier_ones() -> None:
    shown, text = console()
    log = PlainLines(shown, title="tune", num_steps=5)
    log.step(record(1, loss=0.5))
    log.step(record(2, loss=math.nan))
    log.step(record(3))
    log.step({"step": 4, "seconds_sample": 1.0})
    log.step(record(5, loss=0.25))
    first, bad, without, bare, last = text.getvalue().splitlines()
    assert "loss 0.5000" in first
    assert "loss nan" in bad
    assert "reward 1.500" in without and "loss" not in without
    assert "reward" not in bare and "staleness" not in bare and "sample 100%" in bare
    # The mean goes on over what there was.
    assert "loss 0.4750" in last


def test_the_live_line_shows_how_far_how_well_and_where_the_time_goes() -> None:
    shown, text = console(is_terminal=True)
    log = LiveLine(shown, title="tune", num_steps=10)
    log.message("continuing [runs/x]")
    log.evaluation(0, {"map": 0.25, "ap50": 0.5, "reward": 1.0})
    for step in range(1, 11):
        log.step(record(step))
    log.close()
    assert "continuing [runs/x]" in text.getvalue()
    assert "step 0: map 0.2500 · reward 1.0000" in text.getvalue()
    last = text.getvalue().rpartition("tune ")[2]
    assert "10/10" in last
    assert "reward 1.500 · 800 samples/s · staleness 1" in last
    assert "sample 60% learn 40%" in last


def test_counting_is_silent_off_a_terminal() -> None:
    shown, text = console()
    with counting("converting", console=shown) as advance:
        advance(1, 2)
    assert text.getvalue() == ""


def test_counting_shows_what_is_done_of_what_there_is() -> None:
    shown, text = console(is_terminal=True)
    with counting("converting", console=shown) as advance:
        advance(2, 2)
    assert "converting" in text.getvalue() and "2/2" in text.getvalue()
