"""How the driver of a run leaves Prometheus: seen in its last state, then listed no more.

Prometheus cannot tell a driver that has ended from one that died: either does not answer. So one
that ends in good order, or is refused, waits until a scrape has seen the state that it ended in,
and then until /sd has told that there is nobody to scrape. Where nobody scrapes, nobody waits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from rewardtune.cluster.driver.metrics import report_state
from rewardtune.cluster.hosts.exposed import serve_metrics
from rewardtune.config.cluster_config import ClusterConfig
from rewardtune.run.run_state import End, RunStateFile, is_refusal
from rewardtune.run.stopping import stop_on_signal
from rewardtune.transport.telemetry.exposition import Target
from rewardtune.transport.telemetry.meter import Telemetry
from rewardtune.transport.telemetry.metric_table import Role

PATIENCE_SECONDS = 45.0
"""With Prometheus, for each of its two visits: three of the intervals in deploy/monitoring."""
SETTLE_SECONDS = 6.0
"""Prometheus drops targets up to 5 s after it has asked for them."""
_POLL_SECONDS = 0.1


class DriverPage:
    """What the driver of a run shows: its metrics, and who else is to be scraped."""

    def __init__(self, cluster: ClusterConfig, *, run: str) -> None:
        """Raises OSError where none of the configured ports is free."""
        self.meter = Telemetry(Role.DRIVER)
        self.exposition = serve_metrics(cluster, self.meter, targets=self._targets)
        self.services: Callable[[], Sequence[Target]] = list
        """Who is to be scraped beside the driver, at that moment."""
        self._run = run
        self._has_left = False

    def leave(self, state: str, *, waits_for_first: bool) -> None:
        """Show the last state until it is seen, then an empty list. A signal cuts it short.

        Args:
            waits_for_first: for a scrape even if there never was one.
        """
        report_state(self.meter, state)
        self.services = list
        with stop_on_signal() as is_hurried:
            if self.exposition.last_visit("/metrics") is None and not waits_for_first:
                return
            self._wait_for_visit("/metrics", is_hurried)
            self._has_left = True
            if self.exposition.last_visit("/sd") is not None:
                self._wait_for_visit("/sd", is_hurried)
                _wait(lambda: bool(is_hurried), seconds=SETTLE_SECONDS)

    def _wait_for_visit(self, page: str, is_hurried: object) -> None:
        began = time.monotonic()
        _wait(
            lambda: bool(is_hurried) or (self.exposition.last_visit(page) or 0.0) > began,
            seconds=PATIENCE_SECONDS,
        )

    def _targets(self) -> list[Target]:
        if self._has_left:
            return []
        return [Target(self.exposition.address, Role.DRIVER.value, self._run), *self.services()]


@contextlib.contextmanager
def driver_page(
    cluster: ClusterConfig, told: RunStateFile, *, run: str, is_job: bool
) -> Iterator[DriverPage]:
    """Serve the page while the run goes on, and leave as it ends; at once if it fails.

    Args:
        told: where the block tells how the run ended.
        is_job: a refusal is waited with until a first scrape has seen it: nobody watches a job.

    Raises:
        OSError: none of the configured ports is free.
    """
    page = DriverPage(cluster, run=run)
    with page.exposition:
        try:
            yield page
        except Exception as error:
            if is_refusal(error):
                page.leave(End.REFUSED, waits_for_first=is_job)
            raise
        page.leave(told.now.state, waits_for_first=False)


def show_refusal(directory: Path, error: ValueError, *, cluster: object, is_shown: bool) -> None:
    """Write, and perhaps show to Prometheus, that a config was refused before there was a run.

    Args:
        cluster: the config's table, which may be what is wrong: it is then served by default.
    """
    RunStateFile(directory, num_steps=0).ended_by(error)
    if not is_shown:
        return
    try:
        settings = ClusterConfig.model_validate(cluster)
    except ValidationError:
        settings = ClusterConfig()
    with contextlib.suppress(OSError):
        page = DriverPage(settings, run=directory.name)
        with page.exposition:
            page.leave(End.REFUSED, waits_for_first=True)


def _wait(is_so: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
