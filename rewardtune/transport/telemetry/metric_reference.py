"""The metric table for people: docs/metrics.md.

``python -m rewardtune.transport.telemetry.metric_reference > docs/metrics.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rewardtune.transport.telemetry.metric_table import METRICS, TARGET_LABELS, Metric, Role


def markdown() -> str:
    """The reference, docs/metrics.md."""
    return "\n".join(_document()) + "\n"


def _document() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield (
        "Made from `rewardtune/transport/telemetry/metric_table.py` by "
        "`python -m rewardtune.transport.telemetry.metric_reference`; "
        "do not edit."
    )
    yield ""
    yield (
        "Every process exports its own at `/metrics`, and says at `/healthz` whether it is well. "
        "The driver lists all of them at `/sd`, as Prometheus' `http_sd_configs` reads it. "
        "Scraped series carry these labels too:"
    )
    yield ""
    yield from (f"- `{name}`: {meaning}" for name, meaning in TARGET_LABELS.items())
    yield ""
    yield (
        "A counter counts what its process has done since it started. Counters, and gauges with "
        "listed label values, are there from the start, at 0; other gauges once they are known. "
        "Beside these, every process exports `process_*`: memory, CPU seconds, open files."
    )
    for role in Role:
        yield ""
        yield f"## {role.value.replace('_', ' ').capitalize()}"
        yield ""
        yield "| metric | type | labels | meaning |"
        yield "| --- | --- | --- | --- |"
        for metric in METRICS.values():
            if role in metric.roles:
                yield (
                    f"| `{metric.full_name}` | {metric.kind} | {_labels(metric)} | {metric.help} |"
                )


def _labels(metric: Metric) -> str:
    return "; ".join(
        f"`{label}`: {'open' if values is None else ', '.join(values)}"
        for label, values in metric.labels.items()
    )


if __name__ == "__main__":
    sys.stdout.write(markdown())
