"""The keys that operators read."""

from __future__ import annotations

import json
from pathlib import Path

from rewardtune.cluster.driver.fleet import Fleet, Placement
from rewardtune.cluster.driver.status import DriverStatus, run_status, targets_of
from rewardtune.cluster.hosts.kinds import REWARD_WORKER, SAMPLER
from rewardtune.cluster.hosts.replies import Process
from rewardtune.transport.queue.job_queue import WorkerRecord
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.telemetry.meter import NoTelemetry
from tests.rewardtune.scripted_cluster import ScriptedCluster
from tests.rewardtune.steered import STATS, STATUS
from tests.rewardtune.tiny_run import SILENT, tiny_tune

PLACEMENT = Placement(
    settings="",
    secret_settings="",
    num_learners=1,
    num_samplers=1,
    num_reward_workers=1,
    num_cpus={},
    num_gpus={},
)


def test_a_status_is_json_under_the_keys_that_are_public(tmp_path: Path) -> None:
    config = tiny_tune(tmp_path / "data", tmp_path / "policy", tmp_path / "run")
    cluster = ScriptedCluster(config, MemoryJobQueue())
    fleet = Fleet(cluster, PLACEMENT, log=SILENT, meter=NoTelemetry())
    sampler = fleet.start("sampler-0", SAMPLER)
    fleet.replace(sampler)
    worker = fleet.start("reward-worker-0", REWARD_WORKER)
    worker.has_begun(Process(7, "here:1"))
    records = [
        WorkerRecord(name, "r", "d", "ready", 1, metrics_address=address)
        for name, address in (("ours", "here:1"), ("theirs", "there:2"), ("shy", ""))
    ]
    driver = DriverStatus(
        state="running",
        term=0,
        step=2,
        best={},
        evaluations_skipped=0,
        redraws=0,
        draws_in_flight=1,
        reward_workers_wanted=1,
        reward_workers_required=None,
        depth_required=None,
        queue=STATS,
    )
    status = run_status(
        driver,
        config,
        recent=[{"seconds": 2.0, "seconds_wait": 0.5, "reward": 1.5}],
        others=[sampler],
        workers=[worker],
        records=records,
    ).to_json()
    assert json.loads(json.dumps(status)) == status
    assert set(status) == set(STATUS)
    assert list(status["services"][0]) == list(STATUS["services"][0])
    assert set(status["reward_workers"][0]) == set(STATUS["reward_workers"][0])
    assert status["services"] == [
        {"name": "sampler-0", "kind": "sampler", "pid": 0, "state": "starting", "restarts": 1},
        {
            "name": "reward-worker-0",
            "kind": "reward_worker",
            "pid": 7,
            "state": "busy",
            "restarts": 0,
        },
    ]
    assert {w["worker"]: w["is_in_ray"] for w in status["reward_workers"]} == {
        "ours": True,
        "theirs": False,
        "shy": False,
    }
    assert (status["wait_ratio"], status["phases"]) == (0.25, {"wait": 0.5})
    assert [t.address for t in targets_of([sampler, worker], records, run="r")] == [
        "here:1",
        "here:1",
        "there:2",
    ]
