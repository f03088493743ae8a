"""A connection to a Redis that can hold the queue, and its errors in the queue's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rewardtune.transport.queue.job_queue import QueueRefused, QueueUnavailable

OLDEST_VERSION = (6, 2)

ANSWER_SECONDS = 5.0
"""An answer that takes longer, beyond what was asked to block, is none."""

_PASSING = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MISCONF|NOREPLICAS|BUSY)\b"
)
"""Refusals that end by themselves or by an operator's hand."""


def open_connection(url: str) -> redis.Redis:
    """Connections to ``redis://``, ``rediss://`` or ``unix://``, tried once.

    Raises:
        ValueError: the URL is none of these.
        QueueUnavailable: nobody answers there.
        QueueRefused: as ``check_server``, or for a wrong password or a lacking right.
    """
    try:
        client: redis.Redis = redis.Redis.from_url(
            url,
            protocol=2,
            # Whoever uses the queue tries again; a connection that did so too would hide how long
            # the queue has been away, and lease twice.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
        )
    except ValueError as error:
        raise ValueError(
            "the queue's address must be redis://HOST:PORT/DB, rediss://... or unix://PATH, got "
            f"'{without_password(url)}': {error}"
        ) from error
    try:
        with own_errors(without_password(url)):
            check_server(client.info(), where=without_password(url))
    except BaseException:
        client.close()
        raise
    return client


def check_server(info: Mapping[str, Any], *, where: str) -> None:
    """Raises QueueRefused where the queue would not work, by what INFO says."""
    version = str(info.get("redis_version", ""))
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST_VERSION:
        needed = ".".join(map(str, OLDEST_VERSION))
        raise QueueRefused(
            f"Redis {version or 'of unknown version'} at {where} is too old for the queue, which "
            f"needs {needed} or newer: upgrade it"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise QueueRefused(
            f"Redis at {where} has maxmemory-policy {policy} and would drop jobs when its memory "
            "is full: run CONFIG SET maxmemory-policy noeviction there"
        )


def without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//", url).partition("?")[0]


@contextmanager
def own_errors(where: str) -> Iterator[None]:
    """Turn what redis-py raises into QueueUnavailable or QueueRefused; bugs stay what they are."""
    try:
        yield
    # The order matters: a wrong password is a ConnectionError to redis-py.
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise QueueRefused(
            f"Redis at {where} refused the login ({error}): put the right user and password into "
            "the queue's address, redis://USER:PASSWORD@HOST:PORT"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise QueueUnavailable(f"no answer from Redis at {where}: {error}") from error
    except redis.exceptions.InvalidResponse as error:
        raise QueueRefused(
            f"what answers at {where} is not Redis ({error}): check the queue's host and port"
        ) from error
    except redis.ResponseError as error:
        text = str(error)
        if lacks_right(error):
            raise QueueRefused(
                f"Redis at {where} denies its user something the queue needs ({text}): give the "
                "user the run's keys, ~{RUN}:*, and that command"
            ) from error
        if isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in text:
            raise QueueUnavailable(
                f"the memory of Redis at {where} is full: wait for jobs to be scored, or raise "
                "its maxmemory"
            ) from error
        if "NOGROUP" in text:
            raise QueueUnavailable(
                f"Redis at {where} has lost the work stream: the learner opens its term again"
            ) from error
        if is_passing(error):
            raise QueueUnavailable(f"Redis at {where} cannot serve now: {text}") from error
        raise


def is_passing(error: redis.ResponseError) -> bool:
    """It ends by itself or by an operator's hand: memory that is full, a replica, a busy script."""
    full = isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in str(error)
    readonly = isinstance(error, redis.ReadOnlyError)
    return full or readonly or _PASSING.search(str(error)) is not None


def lacks_right(error: redis.ResponseError) -> bool:
    """Of the user itself, or of the user within a script, which Redis words its own way."""
    within_script = ("ACL failure in script", "can't run this command", "can't access at least one")
    return isinstance(error, redis.exceptions.NoPermissionError) or any(
        words in str(error) for words in within_script
    )
