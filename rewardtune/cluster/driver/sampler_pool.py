"""The samplers as their driver sees them: each draws one micro-batch at a time."""

from __future__ import annotations

import time
from collections import deque

from rewardtune.cluster.driver.cluster import Call, ServiceDied
from rewardtune.cluster.driver.draw_table import Draw, DrawTable
from rewardtune.cluster.driver.fleet import Fleet, first_line
from rewardtune.cluster.driver.pace import NUM_RECENT_STEPS
from rewardtune.cluster.driver.service import Service
from rewardtune.cluster.hosts.kinds import SAMPLER
from rewardtune.cluster.hosts.sampler import SamplerHost
from rewardtune.records import Published
from rewardtune.run.log import RunLog
from rewardtune.transport.queue.job_queue import QueueFull, QueueUnavailable
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.weights.weight_store import (
    DamagedWeights,
    WeightsNotFound,
    WeightsUnavailable,
)
from sampler.metrics import DrawReport

_MAX_FULL = 30
"""Draws in a row that the queue has no room for. It may say so because somebody set its frontier
back, which the learner mends within a second; else the driver has lost count."""


class SamplerPool:
    """Gives draws to samplers that are idle, in the learner's term."""

    def __init__(
        self, fleet: Fleet, table: DrawTable, *, count: int, log: RunLog, retry_seconds: float
    ) -> None:
        """
        Args:
            table: what to draw; told here what became of it.
            retry_seconds: without any draw, after one that met no queue or no weights.
        """
        self._fleet = fleet
        self._table = table
        self._count = count
        self._log = log
        self._retry_seconds = retry_seconds
        self._term = -1
        self._draw_at = 0.0
        self._num_full = 0
        self._draw_seconds: deque[float] = deque(maxlen=NUM_RECENT_STEPS)
        self.samplers: list[Service[SamplerHost]] = []

    def start(self) -> None:
        for number in range(self._count):
            sampler = self._fleet.start(f"sampler-{number}", SAMPLER)
            self.samplers.append(sampler)
            self._begin(sampler)

    def open_term(self, term: int, *, version: int) -> None:
        """Draw in a term of a learner that stands at this version."""
        self._term = term
        self._table.begin(version=version)

    def close_term(self) -> None:
        """Nothing is drawn before the next term is known."""
        self._term = -1

    @property
    def seconds_per_draw(self) -> float | None:
        """Mean of the last draws of all samplers together; None before the first."""
        seconds = list(self._draw_seconds)
        return sum(seconds) / len(seconds) / self._count if seconds else None

    def place(self) -> None:
        """Give everyone who is idle what there is to draw."""
        if self._term < 0 or time.monotonic() < self._draw_at:
            return
        for sampler in self.samplers:
            if sampler.is_idle and (draw := self._table.next()) is not None:
                self._draw(sampler, draw)

    def _begin(self, sampler: Service[SamplerHost]) -> None:
        def ready() -> None:
            sampler.is_idle = True

        self._fleet.begin(sampler, ready)

    def _draw(self, sampler: Service[SamplerHost], draw: Draw) -> None:
        term, began = self._term, time.monotonic()
        published = Published(term, draw.policy_version)
        self._fleet.call(
            sampler.request(SamplerHost.draw, draw.ordinals, published=published),
            lambda call: self._on_drawn(call, sampler, draw, term, began),
        )

    def _on_drawn(
        self,
        call: Call[DrawReport],
        sampler: Service[SamplerHost],
        draw: Draw,
        term: int,
        began: float,
    ) -> None:
        try:
            call.result()
        except (ServiceDied, DamagedWeights) as error:
            self._lost(draw, term)
            if self._fleet.revive(sampler, error):
                self._begin(sampler)
        except (QueueUnavailable, WeightsNotFound, WeightsUnavailable) as error:
            # On their way back: no draw is of use before the next look at the queue.
            self._lost(draw, term)
            self._draw_at = time.monotonic() + self._retry_seconds
            self._log.message(f"{sampler.name}: {first_line(error)}")
            sampler.is_idle = True
        except StaleTerm:
            self._lost(draw, term)
            sampler.is_idle = True
        except QueueFull as error:
            self._lost(draw, term)
            self._draw_at = time.monotonic() + self._retry_seconds
            self._num_full += 1
            sampler.is_idle = True
            if self._num_full > _MAX_FULL:
                self._fleet.fail(error)
        except Exception as error:
            self._fleet.fail(error)
        else:
            self._num_full = 0
            sampler.is_idle = True
            sampler.deaths_in_a_row = 0
            self._draw_seconds.append(time.monotonic() - began)
            if term == self._term:
                self._table.done(draw)

    def _lost(self, draw: Draw, term: int) -> None:
        if term == self._term:
            self._table.lost(draw)
