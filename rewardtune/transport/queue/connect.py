"""From a URL to the job queue behind it.

``redis://`` and ``rediss://`` name a Redis, ``ray://NAMESPACE/NAME`` an actor of the Ray cluster
that this process belongs to.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits


def connect_queue(url: str, *, run: str, lease_seconds: float) -> JobQueue:
    """A queue that exists already.

    Raises:
        ValueError: no such kind of URL.
        QueueUnavailable, QueueRefused: as the queue says.
    """
    parts = urlsplit(url)
    # Each kind needs a library that the others do without.
    if parts.scheme in ("redis", "rediss"):
        from rewardtune.transport.queue.redis_queue import RedisJobQueue

        return RedisJobQueue.connect(url, run=run, limits=QueueLimits(lease_seconds=lease_seconds))
    if parts.scheme == "ray":
        from rewardtune.transport.queue.ray_queue import join_ray_queue

        return join_ray_queue(parts.path.lstrip("/"), parts.netloc)
    raise ValueError(f"'{url}' names no job queue: use redis://HOST:PORT, or ray://NAMESPACE/NAME")
