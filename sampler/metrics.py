"""What a sampler reports of each micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

from rewardtune.records import Published
from rewardtune.transport.telemetry.meter import Meter


@dataclass(frozen=True, slots=True)
class DrawReport:
    """One micro-batch, and what it took."""

    num_groups: int
    num_admitted: int
    """Groups that the queue did not have yet."""
    blocked_seconds: float
    """Since the one before it: there was nothing to draw."""
    load_seconds: float
    """Fetching weights and swapping them in; 0 if they were there."""
    images_seconds: float
    encode_seconds: float
    decode_seconds: float
    put_seconds: float


def report_draw(meter: Meter, report: DrawReport, published: Published) -> None:
    meter.count("sampler_groups_total", report.num_groups)
    for phase in ("blocked", "load", "images", "encode", "decode", "put"):
        meter.count("sampler_seconds_total", getattr(report, f"{phase}_seconds"), phase=phase)
    if report.load_seconds:
        meter.observe("weights_load_seconds", report.load_seconds)
    meter.set("sampler_policy_version", published.policy_version)
