"""What a process may report, how it is counted, and that the reference is fresh."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rewardtune.transport.telemetry.meter import MAX_OPEN_SERIES, Meter, NoTelemetry, Telemetry
from rewardtune.transport.telemetry.metric_reference import markdown
from rewardtune.transport.telemetry.metric_table import METRICS, TARGET_LABELS, Kind, Metric, Role

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "metrics.md"


def scraped(telemetry: Telemetry) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Every sample as Prometheus would read it: name, sorted labels, value."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def check_table(metrics: Mapping[str, Metric]) -> list[str]:
    """What is wrong with a table by Prometheus' conventions and ours; empty if nothing is."""
    wrong = []
    for name, metric in metrics.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            wrong.append(f"{name}: lower case, digits and underscores only")
        if (metric.kind is Kind.COUNTER) != name.endswith("_total"):
            wrong.append(f"{name}: counters, and nothing else, end in _total")
        if re.search(r"_(ms|millis|milliseconds|minutes|hours|mb|gb|kilobytes|percent)(_|$)", name):
            wrong.append(f"{name}: base units are seconds, bytes and ratios")
        if (metric.kind is Kind.HISTOGRAM) != bool(metric.buckets):
            wrong.append(f"{name}: histograms, and nothing else, have buckets")
        if list(metric.buckets) != sorted(set(metric.buckets)):
            wrong.append(f"{name}: buckets must ascend")
        if clash := set(metric.labels) & {*TARGET_LABELS, "le"}:
            wrong.append(f"{name}: Prometheus sets {', '.join(sorted(clash))} itself")
        if not metric.roles:
            wrong.append(f"{name}: nobody reports it")
        if not metric.help.endswith("."):
            wrong.append(f"{name}: its help is a sentence")
    return wrong


def test_the_table_keeps_prometheus_conventions() -> None:
    assert check_table(METRICS) == []


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (Metric("steps", Kind.COUNTER, "Steps.", (Role.LEARNER,)), "end in _total"),
        (Metric("wait_total", Kind.GAUGE, "Wait.", (Role.LEARNER,)), "end in _total"),
        (Metric("wait_ms", Kind.GAUGE, "Wait.", (Role.LEARNER,)), "base units"),
        (Metric("wait_seconds", Kind.HISTOGRAM, "Wait.", (Role.LEARNER,)), "have buckets"),
        (Metric("x", Kind.GAUGE, "X.", (Role.LEARNER,), labels={"role": None}), "sets role"),
        (Metric("x", Kind.GAUGE, "X.", ()), "nobody"),
        (Metric("x", Kind.GAUGE, "x", (Role.LEARNER,)), "sentence"),
        (Metric("x_Y", Kind.GAUGE, "X.", (Role.LEARNER,)), "lower case"),
    ],
)
def test_a_table_that_breaks_a_convention_is_told_so(metric: Metric, complaint: str) -> None:
    (said,) = check_table({metric.name: metric})
    assert complaint in said


def test_the_reference_is_fresh() -> None:
    assert DOCUMENT.read_text() == markdown(), (
        "docs/metrics.md is stale: "
        "python -m rewardtune.transport.telemetry.metric_reference > docs/metrics.md"
    )


@pytest.mark.parametrize("role", list(Role))
def test_counters_and_listed_states_are_there_at_zero_before_anything_happens(role: Role) -> None:
    found = scraped(Telemetry(role))
    for metric in METRICS.values():
        if role not in metric.roles:
            assert not set(metric.sample_names) & set(found)
        elif metric.kind is Kind.COUNTER:
            num_series = 1
            for values in metric.labels.values():
                assert values is not None
                num_series *= len(values)
            assert list(found[metric.full_name].values()) == [0.0] * num_series


def test_a_gauge_is_absent_until_it_is_known_unless_the_table_says_otherwise() -> None:
    learner = Telemetry("learner")
    assert "rewardtune_grad_norm" not in scraped(learner)
    assert "rewardtune_gpu_memory_bytes" not in scraped(learner)
    waiting = scraped(Telemetry("reward_worker"))["rewardtune_reward_worker_waiting_for_people"]
    assert waiting == {(): 0.0}
    learner.set("grad_norm", 2.5)
    assert scraped(learner)["rewardtune_grad_norm"] == {(): 2.5}


def test_every_process_says_which_version_it_runs() -> None:
    (series,) = scraped(Telemetry("sampler"))["rewardtune_build_info"].items()
    assert series[0][0][0] == "version" and series[1] == 1


def test_the_memory_of_the_process_is_reported_beside() -> None:
    assert scraped(Telemetry("driver"))["process_resident_memory_bytes"][()] > 1e6


def test_counts_add_up_whatever_the_order_of_the_labels() -> None:
    worker = Telemetry("reward_worker")
    worker.count("reward_worker_groups_total", outcome="accepted")
    worker.count("reward_worker_groups_total", 2, outcome="accepted")
    worker.count("reward_worker_core_seconds_total", 0.5)
    found = scraped(worker)
    assert found["rewardtune_reward_worker_groups_total"][(("outcome", "accepted"),)] == 3
    assert found["rewardtune_reward_worker_groups_total"][(("outcome", "stale"),)] == 0
    assert found["rewardtune_reward_worker_core_seconds_total"][()] == 0.5


def test_a_mirrored_counter_stands_where_its_source_does_and_may_begin_anew() -> None:
    driver = Telemetry("driver")
    driver.set_total("queue_failures_total", 7, kind="crash")
    driver.set_total("queue_failures_total", 0, kind="crash")
    driver.set_total("queue_failures_total", 2, kind="crash")
    series = scraped(driver)["rewardtune_queue_failures_total"]
    assert series[(("kind", "crash"),)] == 2
    assert series[(("kind", "timeout"),)] == 0


@given(st.lists(st.floats(min_value=0, max_value=1000), max_size=30))
def test_a_histogram_counts_what_is_at_most_each_bound(seconds: list[float]) -> None:
    learner = Telemetry("learner")
    for value in seconds:
        learner.observe("weights_publish_seconds", value)
    found = scraped(learner)
    for ((_, bound),), count in found["rewardtune_weights_publish_seconds_bucket"].items():
        assert count == sum(value <= float(bound) for value in seconds)
    assert found["rewardtune_weights_publish_seconds_count"][()] == len(seconds)
    assert found["rewardtune_weights_publish_seconds_sum"][()] == pytest.approx(sum(seconds))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda t: t.count("groups"), "no metric is called groups"),
        (lambda t: t.count("rewardtune_groups_total", outcome="trained"), "no metric is called"),
        (lambda t: t.count("groups_total"), "has the labels ['outcome'], but was given []"),
        (lambda t: t.count("groups_total", outcome="trained", run="x"), "was given"),
        (lambda t: t.count("groups_total", outcome="lost"), "one of trained, invalid, skipped"),
        (lambda t: t.count("learner_steps_total", -1), "only rises"),
        (lambda t: t.count("learner_steps_total", float("nan")), "only rises"),
        (lambda t: t.set("learner_steps_total", 3), "use count(), not set()"),
        (lambda t: t.set_total("learner_steps_total", 3), "use count(), not set_total()"),
        (lambda t: t.observe("grad_norm", 3), "use set(), not observe()"),
        (lambda t: t.set("weights_publish_seconds", 3), "use observe(), not set()"),
        (lambda t: t.set("reward_backlog", 3), "for driver to report, not for learner"),
    ],
)
def test_what_is_not_declared_is_refused(call: object, complaint: str) -> None:
    assert callable(call)
    learner = Telemetry("learner")
    before = learner.exposition()
    for _ in range(2):  # the second time, too: nothing wrong is remembered as right
        with pytest.raises(ValueError, match=re.escape(complaint)):
            call(learner)
    assert _own(learner.exposition()) == _own(before)


def _own(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if line.startswith(b"rewardtune_")]


def test_an_unknown_role_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="driver, learner, learner_rank, sampler, reward_worker"):
        Telemetry("workers")


def test_a_label_that_takes_ids_is_stopped() -> None:
    learner = Telemetry("learner")
    for number in range(MAX_OPEN_SERIES):
        learner.set("reward", 1.0, component=f"group-{number}")
    with pytest.raises(ValueError, match="not for ids"):
        learner.set("reward", 1.0, component="one more")
    learner.set("reward", 2.0, component="group-0")


def test_counts_of_many_threads_are_all_there() -> None:
    worker = Telemetry("reward_worker")

    def work() -> None:
        for _ in range(2000):
            worker.count("reward_worker_groups_total", outcome="accepted")
            worker.observe("reward_worker_score_seconds", 0.02, phase="score")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        worker.exposition()  # a scrape in the middle breaks nothing
    found = scraped(worker)
    assert found["rewardtune_reward_worker_groups_total"][(("outcome", "accepted"),)] == 8000
    assert found["rewardtune_reward_worker_score_seconds_count"][(("phase", "score"),)] == 8000


@pytest.mark.alone
def test_a_call_costs_microseconds() -> None:
    worker = Telemetry("reward_worker")
    worker.count("reward_worker_groups_total", outcome="accepted")

    def seconds_per_call() -> float:
        started = time.perf_counter()
        for _ in range(10_000):
            worker.count("reward_worker_groups_total", outcome="accepted")
        return (time.perf_counter() - started) / 10_000

    # About 1 microsecond; the bound allows for a machine that is busy with something else.
    assert min(seconds_per_call() for _ in range(5)) < 10e-6


def test_no_telemetry_takes_anything() -> None:
    meter: Meter = NoTelemetry()
    meter.count("groups_total", outcome="trained")
    meter.set_total("redraws_total", 3)
    meter.set("grad_norm", 1.0)
    meter.observe("weights_load_seconds", 1.0)
    real: Meter = Telemetry("learner")
    real.set("grad_norm", 1.0)
