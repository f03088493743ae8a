"""The users of one run on a Redis that others use too: what each may do, and no more.

Every right is on the run's own keys alone. Who may load scripts may have Redis run any, one that
never ends among them, so workers may only run what the learner has loaded, by its hash.
"""

from __future__ import annotations

import hashlib

from rewardtune.transport.queue.redis_connection import key_root

_BOTH = (
    *("info", "ping", "select", "evalsha", "blpop", "del", "exists", "hdel", "hexists", "hget"),
    *("hgetall", "hincrby", "hlen", "hmget", "hset", "get", "set", "llen", "pexpire", "rpush"),
    *("sadd", "smembers", "srem", "time", "type", "xack", "xadd", "xclaim", "xdel"),
    *("xinfo|groups", "xlen", "xpending", "xrange", "xreadgroup", "zrem", "zscore"),
)
_LEARNER = (
    *("script|load", "xgroup|create", "xgroup|delconsumer", "xinfo|stream", "xread", "zadd"),
    "zremrangebyscore",
)
_WORKER = ("xgroup|delconsumer",)


def users(run: str, *, learner: str, worker: str) -> list[str]:
    """Lines of an ACL file: ``RUN-learner`` for the job, ``RUN-worker`` for reward workers.

    Args:
        learner, worker: their passwords; one of the form ``>NAME`` is left for somebody to fill in,
            of any other only the hash is told.

    Raises:
        ValueError: the run has a name that no queue could have.
    """
    return [
        _user(f"{run}-learner", learner, run, (*_BOTH, *_LEARNER)),
        _user(f"{run}-worker", worker, run, (*_BOTH, *_WORKER)),
    ]


def _user(name: str, password: str, run: str, commands: tuple[str, ...]) -> str:
    told = (
        password
        if password.startswith(">")
        else f"#{hashlib.sha256(password.encode()).hexdigest()}"
    )
    rights = " ".join(f"+{command}" for command in sorted(commands))
    return f"user {name} on {told} ~{key_root(run)}* resetchannels -@all {rights}"
