"""That ``bench.cost`` tells a slower side from a faster one, each measured with its own code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench import commit, cost
from bench.commit import ROOT
from bench.cost import Cost, table

THAT = (1.0, 1.1, 0.9, 1.0, 1.0)


@pytest.mark.parametrize(("factor", "code"), [(0.5, 0), (1.0, 0), (1.04, 0), (1.06, 1)])
def test_the_exit_code_says_whether_a_median_is_slower(
    factor: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = {name: iter(THAT) for name in cost.AMOUNTS}
    now = dict.fromkeys(cost.AMOUNTS, 0.0)

    def run(root: Path, name: str, amount: int) -> dict[str, float]:
        # One value a round, which both sides are measured against, whoever goes first.
        if now[name] == 0.0:
            now[name] = next(rounds[name])
            seconds = now[name]
        else:
            seconds, now[name] = now[name], 0.0
        return {name: seconds * (factor if root == ROOT else 1.0)}

    monkeypatch.setattr(cost, "run_with", run)
    monkeypatch.setattr(commit, "_git", lambda *arguments: "abc1234")
    output = tmp_path / "cost.jsonl"
    assert cost.main(["--against", "HEAD", "--output", str(output)]) == code
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["name"] for record in records] == list(cost.AMOUNTS)
    assert all(record["change"] == pytest.approx(factor - 1) for record in records)
    assert all(record["that"] == list(THAT) for record in records)


def test_the_table_shows_medians_and_how_far_single_rounds_lie_apart() -> None:
    written = io.StringIO()
    slower = Cost("demo step", tuple(1.1 * each for each in THAT), THAT)
    Console(file=written, width=100).print(table([slower], against="36a8acc"))
    (line,) = (line for line in written.getvalue().splitlines() if "demo step" in line)
    assert [word.strip() for word in line.strip("│").split("│")] == [
        "demo step", "1.1", "1", "+10.0%", "20%",
    ]  # fmt: skip


def test_a_measurement_is_in_seconds() -> None:
    measured = commit.run_with(ROOT, "no-op group", 1)
    assert list(measured) == ["no-op group"]
    assert 0 < measured["no-op group"] < 1


def test_a_commit_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cost.main(["--against", "no-such-commit"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no-such-commit: ") and error.count("\n") == 1
