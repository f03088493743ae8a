"""From an address to the job queue behind it.

``redis://``, ``rediss://`` and ``unix://`` name a Redis, ``ray://NAMESPACE/NAME`` an actor of the
Ray cluster that this process belongs to; ``env:NAME`` and ``file:PATH`` say where one of these
stands (``rewardtune.transport.queue.address``).
"""

from __future__ import annotations

from rewardtune.transport.queue.address import FORMS, find_url, without_password
from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits
from rewardtune.transport.security.config import PLAIN, SecurityConfig


def connect_queue(
    address: str, *, run: str, lease_seconds: float, security: SecurityConfig = PLAIN
) -> JobQueue:
    """A queue that exists already.

    Args:
        security: what ``rediss://`` proves itself and its server by.

    Raises:
        ValueError: no such kind of address, or it cannot be found here.
        QueueUnavailable, QueueRefused: as the queue says.
    """
    url = find_url(address)
    scheme, _, place = url.partition("://")
    # Each kind needs a library that the others do without.
    if scheme in ("redis", "rediss", "unix"):
        from rewardtune.transport.queue.redis_queue import RedisJobQueue

        limits = QueueLimits(lease_seconds=lease_seconds)
        return RedisJobQueue.connect(url, run=run, limits=limits, security=security)
    if scheme == "ray":
        from rewardtune.transport.queue.ray_queue import join_ray_queue

        namespace, _, name = place.partition("/")
        return join_ray_queue(name, namespace)
    # What an env: or file: holds may be anything, a bare password too.
    shown = f"'{without_password(url)}'" if url == address else f"what {address} holds"
    raise ValueError(f"{shown} names no job queue: use {FORMS}, or ray://NAMESPACE/NAME")
