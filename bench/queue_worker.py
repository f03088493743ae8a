"""The other process of bench.queue: ``python -m bench.queue_worker URL ours|peer``.

Apart from it, because a worker imports no torch. Says ``ready``, then scores, giving bodies back as
they came, until it is killed.
"""

from __future__ import annotations

import sys
from typing import Any

import redis

from rewardtune.transport.queue.job_queue import JobQueue
from rewardtune.transport.queue.redis_queue import RedisJobQueue

RUN = "bench"
PEER_WORK, PEER_RESULTS, PEER_GROUP = "work", "results", "workers"


def score(queue: JobQueue) -> None:
    """Score what there is to score within a second."""
    for job in queue.lease("worker", reward_digest="", max_jobs=8, timeout_seconds=1):
        queue.commit(job, "worker", job.body)


def score_plainly(client: redis.Redis) -> None:
    """As most would write it: no term, no owner, and a death between the calls loses or doubles."""
    read: Any = client.xreadgroup(PEER_GROUP, "worker", {PEER_WORK: ">"}, count=8, block=1000)
    for _, entries in read:
        for entry, told in entries:
            client.xadd(PEER_RESULTS, told)
            client.xack(PEER_WORK, PEER_GROUP, entry)


def main(url: str, whose: str) -> None:
    if whose == "ours":
        queue = RedisJobQueue.connect(url, run=RUN)
        print("ready", flush=True)
        while True:
            score(queue)
    client: redis.Redis = redis.Redis.from_url(url, protocol=2)
    print("ready", flush=True)
    while True:
        score_plainly(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
