"""Taking expressions apart, as far as the contract with the metric table needs it."""

from __future__ import annotations

import pytest

from deploy.promql import Matcher, Selector, problems, read_query


@pytest.mark.parametrize(
    ("expression", "metrics", "groupings"),
    [
        ("rewardtune_term", ["rewardtune_term"], set()),
        ("sum by (run) (rate(a_total[5m]))", ["a_total"], {"run"}),
        ("sum(rate(a_total[5m])) by (run, role)", ["a_total"], {"run", "role"}),
        ("sum by (run) (a) < on (run) max by (run) (b)", ["a", "b"], {"run"}),
        ("a / ignoring(x) group_left(y) b", ["a", "b"], {"x", "y"}),
        ("time() - a > 3 * 60", ["a"], set()),
        ("a offset 5m or vector(0) unless b", ["a", "b"], set()),
        ("a == bool 1 # b", ["a"], set()),
        ("a[30m:1m] + 1e-3 + .5 + 1h30m", ["a"], set()),
        ("max_over_time(a:b:c[1h])", ["a:b:c"], set()),
        ("count by (le) (a{x=~'b{2}|c', y!=\"}\"})", ["a"], {"le"}),
    ],
)
def test_metrics_and_groupings_of_an_expression(
    expression: str, metrics: list[str], groupings: set[str]
) -> None:
    query = read_query(expression)
    assert [selector.metric for selector in query.selectors] == metrics
    assert query.groupings == groupings


def test_matchers_of_a_selector() -> None:
    (selector,) = read_query('a{b="c", d!~"e|f",}').selectors
    assert selector == Selector("a", (Matcher("b", "=", "c"), Matcher("d", "!~", "e|f")))


@pytest.mark.parametrize("expression", ["a{b=c}", "a{b}", '{__name__="a"}', "a ; b", ""])
def test_what_cannot_be_checked_is_a_problem(expression: str) -> None:
    assert problems(expression) != []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("rewardtune_trem", "no process reports rewardtune_trem"),
        ("rewardtune_learner_steps", "no process reports rewardtune_learner_steps"),
        ("rewardtune_weights_load_seconds", "no process reports rewardtune_weights_load_seconds"),
        ('rewardtune_term{state="x"}', "rewardtune_term has no label state"),
        ('rewardtune_run_state{state="runing"}', "state of rewardtune_run_state is never 'runing'"),
        (
            'rewardtune_run_state{state=~"running|lost"}',
            "state of rewardtune_run_state is never 'lost'",
        ),
        ("sum by (state) (rewardtune_term)", "no metric of the expression has the label state"),
    ],
)
def test_what_nobody_reports_is_a_problem(expression: str, problem: str) -> None:
    assert problems(expression) == [problem]


@pytest.mark.parametrize(
    "expression",
    [
        'rewardtune_run_state{state=~"run.*", run="a", role="driver"}',
        "sum by (le, run) (rewardtune_weights_load_seconds_bucket)",
        "rewardtune_weights_load_seconds_count",
        'rewardtune_reward{component="recall"}',
        'up{role="driver"}',
    ],
)
def test_what_is_reported_is_no_problem(expression: str) -> None:
    assert problems(expression) == []
