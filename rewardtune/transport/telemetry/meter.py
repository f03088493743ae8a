"""What a process reports of itself, held to ``rewardtune.transport.telemetry.metric_table``.

The values are kept here, and prometheus_client only writes them down: so a count that somebody
else keeps can be passed on, nothing is registered for the whole process, and a call costs about a
microsecond.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from rewardtune.transport.telemetry.metric_table import METRICS, Kind, Metric, Role

MAX_OPEN_SERIES = 64
"""Of a metric with a label whose values are not listed; more mean that it holds an id."""


class Meter(Protocol):
    """Where figures go. Names come without ``rewardtune_``; safe to call from any thread.

    Every method raises ValueError for a metric, a label or a label value that
    ``rewardtune.transport.telemetry.metric_table`` does not give to this process.
    """

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter; ``amount`` >= 0."""
        ...

    def set_total(self, name: str, total: float, **labels: str) -> None:
        """Where a count that somebody else keeps stands now. Lower than before: it began anew."""
        ...

    def set(self, name: str, value: float, **labels: str) -> None:
        """Of a gauge."""
        ...

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Of a histogram."""
        ...


class NoTelemetry:
    """Forgets what it is told: for a run in one process, and for tests."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        pass

    def set_total(self, name: str, total: float, **labels: str) -> None:
        pass

    def set(self, name: str, value: float, **labels: str) -> None:
        pass

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        pass


@dataclass(slots=True)
class _Series:
    """One metric with one set of label values."""

    value: float = 0.0
    """A histogram's sum."""
    counts: list[int] = field(default_factory=list)
    """Of a histogram: observations by bucket, not cumulated; the last has no bound."""


_Key = tuple[object, ...]


class Telemetry(Collector):
    """Implements ``Meter``: the metrics of one process, with what the system says of it."""

    def __init__(self, role: str) -> None:
        """Start with every counter and every listed state at 0.

        Args:
            role: what this process is, a ``metric_table.Role``.
        """
        try:
            self._role = Role(role)
        except ValueError:
            raise ValueError(f"role must be one of {', '.join(Role)}, got '{role}'") from None
        self._lock = threading.Lock()
        self._series: dict[str, dict[tuple[str, ...], _Series]] = {}
        # What a call looks up first, by everything that it was given: names are checked once.
        self._seen: dict[_Key, _Series] = {}
        self._bounds: dict[str, tuple[float, ...]] = {}
        for metric in METRICS.values():
            if self._role in metric.roles:
                self._begin(metric)
        self.set("build_info", 1, version=_version())
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        key = ("count", name, *labels.items())
        series = self._seen.get(key) or self._find(key, name, labels)
        if not amount >= 0:
            raise ValueError(f"a counter only rises, but {name} was to change by {amount}")
        with self._lock:
            series.value += amount

    def set_total(self, name: str, total: float, **labels: str) -> None:
        key = ("set_total", name, *labels.items())
        series = self._seen.get(key) or self._find(key, name, labels)
        series.value = float(total)

    def set(self, name: str, value: float, **labels: str) -> None:
        key = ("set", name, *labels.items())
        series = self._seen.get(key) or self._find(key, name, labels)
        series.value = float(value)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        key = ("observe", name, *labels.items())
        series = self._seen.get(key) or self._find(key, name, labels)
        bucket = bisect_left(self._bounds[name], seconds)
        with self._lock:
            series.counts[bucket] += 1
            series.value += seconds

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Family]:
        """What the registry asks for."""
        with self._lock:
            snapshot = {
                name: {values: (s.value, list(s.counts)) for values, s in series.items()}
                for name, series in self._series.items()
            }
        for name, series in snapshot.items():
            if series:
                yield _family(METRICS[name], series)

    def _begin(self, metric: Metric) -> None:
        self._series[metric.name] = {}
        self._bounds[metric.name] = metric.buckets
        is_plain_gauge = metric.kind is Kind.GAUGE and not metric.labels
        if not metric.has_closed_labels or (is_plain_gauge and metric.initial is None):
            return
        for values in product(*(values or () for values in metric.labels.values())):
            self._open(metric, values).value = metric.initial or 0.0

    def _open(self, metric: Metric, values: tuple[str, ...]) -> _Series:
        counts = [0] * (len(metric.buckets) + 1) if metric.kind is Kind.HISTOGRAM else []
        return self._series[metric.name].setdefault(values, _Series(counts=counts))

    def _find(self, key: _Key, name: str, labels: Mapping[str, str]) -> _Series:
        """The series of a call that was not made before."""
        metric = self._declared(name)
        asked, wanted = key[0], _method(metric)
        if asked != wanted:
            raise ValueError(f"{name} is a {metric.kind}: use {wanted}(), not {asked}()")
        if set(labels) != set(metric.labels):
            raise ValueError(
                f"{name} has the labels {sorted(metric.labels)}, but was given {sorted(labels)}"
            )
        for label, allowed in metric.labels.items():
            if allowed is not None and labels[label] not in allowed:
                raise ValueError(
                    f"{label} of {name} must be one of {', '.join(allowed)}, got '{labels[label]}'"
                )
        values = tuple(str(labels[label]) for label in metric.labels)
        with self._lock:
            if not metric.has_closed_labels and values not in self._series[name]:
                self._refuse_flood(metric)
            series = self._open(metric, values)
            self._seen[key] = series
        return series

    def _declared(self, name: str) -> Metric:
        metric = METRICS.get(name)
        if metric is None:
            raise ValueError(
                f"no metric is called {name}: declare it in "
                "rewardtune/transport/telemetry/metric_table.py"
            )
        if self._role not in metric.roles:
            raise ValueError(
                f"{name} is for {', '.join(metric.roles)} to report, not for {self._role}: see "
                "rewardtune/transport/telemetry/metric_table.py"
            )
        return metric

    def _refuse_flood(self, metric: Metric) -> None:
        if len(self._series[metric.name]) >= MAX_OPEN_SERIES:
            raise ValueError(
                f"{metric.name} already has {MAX_OPEN_SERIES} series: its labels "
                f"{sorted(metric.labels)} are for a few names, not for ids"
            )


def _method(metric: Metric) -> str:
    match metric.kind:
        case Kind.COUNTER:
            return "set_total" if metric.is_mirrored else "count"
        case Kind.GAUGE:
            return "set"
        case Kind.HISTOGRAM:
            return "observe"


def _family(metric: Metric, series: Mapping[tuple[str, ...], tuple[float, list[int]]]) -> Family:
    labels = list(metric.labels)
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.full_name, metric.help, labels=labels)
        for values, (total, counts) in series.items():
            histogram.add_metric(values, buckets=_cumulated(metric, counts), sum_value=total)
        return histogram
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = kind(
        metric.full_name, metric.help, labels=labels
    )
    for values, (value, _) in series.items():
        family.add_metric(values, value)
    return family


def _cumulated(metric: Metric, counts: list[int]) -> list[tuple[str, float]]:
    below, buckets = 0, []
    for bound, count in zip((*map(str, metric.buckets), "+Inf"), counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    return buckets


def _version() -> str:
    try:
        return version("rewardtune")
    except PackageNotFoundError:
        return "unknown"
