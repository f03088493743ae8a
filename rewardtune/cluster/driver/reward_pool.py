"""The reward workers inside Ray as their driver sees them: as many as are wanted."""

from __future__ import annotations

from collections.abc import Collection

from rewardtune.cluster.driver.cluster import Call, ServiceDied
from rewardtune.cluster.driver.fleet import Fleet
from rewardtune.cluster.driver.service import Service
from rewardtune.cluster.hosts.kinds import REWARD_WORKER
from rewardtune.cluster.hosts.reward_worker import RewardWorkerHost


class RewardPool:
    """Starts what is missing, drains what is too many."""

    def __init__(self, fleet: Fleet, *, count: int) -> None:
        self._fleet = fleet
        self._num_started = 0
        self.num_wanted = count
        self.workers: list[Service[RewardWorkerHost]] = []

    def keep(self) -> None:
        """As many as are wanted, from now on."""
        if self._fleet.is_ending:
            return
        while len(self.workers) < self.num_wanted:
            name = f"reward-worker-{self._num_started}"
            self._num_started += 1
            worker = self._fleet.start(name, REWARD_WORKER)
            self.workers.append(worker)
            self._begin(worker)
        while len(self.workers) > self.num_wanted:
            self._fleet.let_go(self.workers.pop())

    def have_scored(self, metrics_addresses: Collection[str]) -> None:
        """These work: what they died of before is forgotten."""
        for worker in self.workers:
            if worker.metrics_address in metrics_addresses:
                worker.deaths_in_a_row = 0

    def _begin(self, worker: Service[RewardWorkerHost]) -> None:
        run = worker.request(RewardWorkerHost.run)
        self._fleet.begin(
            worker, lambda: self._fleet.call(run, lambda call: self._on_ended(call, worker))
        )

    def _on_ended(self, call: Call[int], worker: Service[RewardWorkerHost]) -> None:
        try:
            call.result()
        except ServiceDied as error:
            if worker in self.workers and self._fleet.revive(worker, error):
                self._begin(worker)
        except Exception as error:
            self._fleet.fail(error)
        else:
            worker.host.kill()
            if worker in self.workers:  # somebody asked the queue to drain it
                self.workers.remove(worker)
