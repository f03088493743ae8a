"""Policies that wait to be measured, and the evaluator that measures them one at a time.

No step waits for it: of a policy that comes while another is measured only the count remains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path

from rewardtune.cluster.driver.cluster import Call, ServiceDied
from rewardtune.cluster.driver.fleet import Fleet
from rewardtune.cluster.driver.metrics import report_evaluation
from rewardtune.cluster.driver.service import Service
from rewardtune.cluster.hosts.evaluator import EvaluatorHost
from rewardtune.cluster.hosts.kinds import EVALUATOR
from rewardtune.evaluation.history import History
from rewardtune.run.log import RunLog
from rewardtune.transport.telemetry.meter import Meter


class Candidates:
    """Measures policy files, keeps the best."""

    def __init__(
        self, fleet: Fleet, *, history: History, best_path: Path, log: RunLog, meter: Meter
    ) -> None:
        """
        Args:
            best_path: where the best policy so far is put.
        """
        self._fleet = fleet
        self._history = history
        self._best_path = best_path
        self._log = log
        self._meter = meter
        self._waiting: deque[tuple[int, Path]] = deque()
        self._measured: int | None = None
        self.num_skipped = 0
        self.evaluator: Service[EvaluatorHost] | None = None

    def start(self) -> None:
        self.evaluator = self._fleet.start("evaluator", EVALUATOR)
        self._begin(self.evaluator)

    @property
    def is_done(self) -> bool:
        """Nothing waits and nothing is being measured."""
        return not self._waiting and self._measured is None

    def offer(self, path: Path, *, step: int, is_needed: bool) -> None:
        """Have a policy measured; unless it is needed, only if the evaluator is free."""
        if step in (self._measured, *(waiting for waiting, _ in self._waiting)):
            return  # of a step that was taken again: the same file, which is still to be read
        if not is_needed and not self.is_done:
            self.num_skipped += 1
            self._meter.count("evaluations_total", outcome="skipped")
            path.unlink(missing_ok=True)
            return
        self._waiting.append((step, path))

    def clear(self) -> None:
        """Measure nothing more."""
        self._waiting.clear()

    def place(self) -> None:
        """Give the evaluator what waits, if it is free."""
        evaluator = self.evaluator
        if evaluator is not None and evaluator.is_idle and self._waiting:
            step, path = self._waiting.popleft()
            self._measured = step
            self._fleet.call(
                evaluator.request(EvaluatorHost.evaluate, path),
                lambda call: self._on_evaluated(call, evaluator, step, path),
            )

    def _begin(self, evaluator: Service[EvaluatorHost]) -> None:
        def ready() -> None:
            evaluator.is_idle = True

        self._fleet.begin(evaluator, ready)

    def _on_evaluated(
        self,
        call: Call[Mapping[str, float]],
        evaluator: Service[EvaluatorHost],
        step: int,
        path: Path,
    ) -> None:
        try:
            metrics = call.result()
        except ServiceDied as error:
            self._measured = None
            self._waiting.appendleft((step, path))
            if self._fleet.revive(evaluator, error):
                self._begin(evaluator)
            return
        except Exception as error:
            self._fleet.fail(error)
            return
        self._measured = None
        evaluator.is_idle = True
        evaluator.deaths_in_a_row = 0
        self._log.evaluation(step, metrics)
        report_evaluation(self._meter, metrics)
        if self._history.add(step, metrics):
            path.replace(self._best_path)
        else:
            path.unlink(missing_ok=True)
