from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from PIL import Image

from rewardtune.sweep.listing import listing
from rewardtune.sweep.plot import bands, draw_sweep
from rewardtune.sweep.record import finished_runs, missing_runs
from rewardtune.sweep.table import sweep_table
from tests.rewardtune.sweep_world import GROUPS, load, records

VALUES = {
    "equal_steps/one": [0.1, 0.3, 0.2],
    "equal_steps/three": [0.5, 0.7, 0.6],
    "equal_samples/one": [0.4, 0.8],
}


def cell(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.4f} ± {error:.4f}"


def test_the_table_has_means_and_standard_errors_of_every_row(tmp_path: Path) -> None:
    sweep = load(tmp_path, GROUPS)
    lines = sweep_table(sweep, records(sweep, VALUES)).splitlines()
    one, three, other = VALUES.values()

    def row(name: str, steps: int, samples: int, values: list[float]) -> str:
        recall = [1 - value for value in values]
        return (
            f"| {name} | {len(values)} | {steps} | {samples} | 0.0000 | {cell(values)} | "
            f"{cell(recall)} |"
        )

    headings = "| row | seeds | steps | samples drawn | map before | map | ar100 |"
    rule = "| --- | --- | --- | --- | --- | --- | --- |"
    start = lines.index("## equal steps")
    assert lines[start + 1 : start + 12] == [
        *("", headings, rule),
        *(row("one", 3, 48, one), row("three", 3, 96, three)),
        *("", "## equal samples", "", headings, rule),
        row("one", 6, 96, other),
    ]
    assert lines[start + 12] == row("three", 3, 96, three), "the runs of the earlier group"
    error = (statistics.variance(one) / 3 + statistics.variance(three) / 3) ** 0.5
    assert lines[-1] == (
        f"- equal_steps/one minus equal_samples/three: -0.4000 ± {error:.4f}, "
        f"{0.4 / error:.1f} standard errors: resolved at 2 (3 and 3 seeds)"
    )


def test_a_table_of_a_sweep_that_has_hardly_begun(tmp_path: Path) -> None:
    sweep = load(tmp_path, GROUPS)
    text = sweep_table(sweep, records(sweep, {"equal_steps/one": [0.25]}))
    assert "| one | 1 | 3 | 48 | 0.0000 | 0.2500 | 0.7500 |" in text
    assert "| three | 0 |  |  |  |  |  |" in text and "minus" not in text


@pytest.mark.slow
def test_bands_lie_over_steps_and_samples(tmp_path: Path) -> None:
    sweep = load(tmp_path, GROUPS)
    made = records(sweep, VALUES)
    one, three = bands(sweep, made, "equal_samples")
    assert (one.label, three.label) == ("one", "three")
    assert one.steps == [0, 3, 6] and one.samples == [0, 48, 96]
    assert three.steps == [0, 1, 3] and three.samples == [0, 32, 96]
    halves = [value / 2 for value in VALUES["equal_samples/one"]]
    assert one.mean[1] == pytest.approx(statistics.fmean(halves))
    assert one.standard_error[1] == pytest.approx(statistics.stdev(halves) / 2**0.5)
    draw_sweep(sweep, made, tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.width > 800 and picture.height > 600
    draw_sweep(sweep, {}, tmp_path / "empty.png")


def test_the_listing_counts_runs_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = load(tmp_path, GROUPS)
    assert finished_runs(sweep) == {}
    lines = listing(sweep, {}).splitlines()
    assert lines[0].split() == ["equal_steps/one/0", "3", "steps", "48", "samples"]
    assert lines[-3:] == [
        "equal_samples/three: the runs of equal_steps/three",
        "6 runs, 0 finished; 480 samples to draw in the others",
        "at most 4 runs and 288 samples more, if no pair is resolved earlier",
    ]
    apart = records(sweep, {"equal_steps/one": [0.1, 0.2], "equal_steps/three": [0.8, 0.9]})
    assert len(missing_runs(sweep, apart)) == 2
    assert "4 finished; 192 samples" in listing(sweep, apart)
    assert listing(sweep, apart).splitlines()[0].endswith("finished")
