"""A connection to a Redis that can hold the queue, and its errors in the queue's own words."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rewardtune.transport.queue.address import FORMS, check_url, without_password
from rewardtune.transport.queue.job_queue import QueueRefused, QueueUnavailable
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.security.credentials import load_credentials
from rewardtune.transport.security.tls_alert import listen_for_alert

OLDEST_VERSION = (6, 2)

ANSWER_SECONDS = 5.0
"""An answer that takes longer, beyond what was asked to block, is none."""

_FILES = {"ca": "ssl_ca_certs", "certificate": "ssl_certfile", "key": "ssl_keyfile"}
"""redis-py's words for those of [security]."""
_NETWORK: dict[str, Any] = {"socket_connect_timeout": ANSWER_SECONDS, "socket_keepalive": True}

_PASSING = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MISCONF|NOREPLICAS|BUSY)\b"
)
"""Refusals that end by themselves or by an operator's hand."""


def open_connection(url: str, security: SecurityConfig = PLAIN) -> redis.Redis:
    """Connections to ``redis://``, ``rediss://`` or ``unix://``, tried once.

    Raises:
        ValueError: the URL is none of these, or a file of ``security`` will not do.
        QueueUnavailable: nobody answers there.
        QueueRefused: as ``check_server``, or for a wrong password or a lacking right.
    """
    check_url(url)
    try:
        client: redis.Redis = redis.Redis.from_url(
            url,
            **(_tls_options(security) if url.startswith("rediss://") else {}),
            protocol=2,
            # Whoever uses the queue tries again; a connection that did so too would hide how long
            # the queue has been away, and lease twice.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWER_SECONDS,
            **({} if url.startswith("unix://") else _NETWORK),
        )
    except ValueError as error:
        raise ValueError(
            f"the queue's address must be {FORMS}, got '{without_password(url)}': {error}"
        ) from error
    where = without_password(url)
    try:
        with own_errors(where):
            try:
                check_server(client.info(), where=where)
            except redis.ConnectionError as error:
                if (alert := _alert(error, client)) is None:
                    raise
                raise redis.ConnectionError(str(error)) from alert
    except BaseException:
        client.close()
        raise
    return client


def _alert(error: redis.ConnectionError, client: redis.Redis) -> ssl.SSLError | None:
    """What a server that speaks TLS has against us, where it hung up without a word of it."""
    if not isinstance(_of_tls(error), ssl.SSLEOFError):
        return None
    told = client.connection_pool.connection_kwargs
    paths = {
        name: Path(told[option]) if told.get(option) else None for name, option in _FILES.items()
    }
    with contextlib.suppress(OSError):
        return listen_for_alert(told["host"], told["port"], **paths)
    return None


def key_root(run: str) -> str:
    """What every key of a run begins with: its name as the hash tag.

    Raises:
        ValueError: the name could be taken for something else than one.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+", run):
        raise ValueError(
            f"a run's name in Redis is made of letters, digits, '.', '_' and '-', got '{run}'"
        )
    return f"{{{run}}}:"


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


def _tls_options(security: SecurityConfig) -> dict[str, Any]:
    """Of a connection; what the URL itself says (``?ssl_ca_certs=...``) goes before."""
    load_credentials(security)  # redis-py would tell of a bad file as of a server that is away
    paths = {option: getattr(security, name) for name, option in _FILES.items()}
    return {option: str(path) for option, path in paths.items() if path is not None}


@contextlib.contextmanager
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
        if reason := _tls_refusal(error):
            raise QueueRefused(f"Redis at {where}: {reason}") from error
        if "DENIED" in str(error):
            raise QueueRefused(
                f"Redis at {where} is in protected mode and takes nobody from elsewhere: give its "
                "users passwords"
            ) from error
        raise QueueUnavailable(f"no answer from Redis at {where}: {error}") from error
    except redis.exceptions.InvalidResponse as error:
        raise QueueRefused(
            f"what answers at {where} is not Redis ({error}): check the queue's host and port"
        ) from error
    except redis.ResponseError as error:
        if told := _refusal(error):
            raise QueueRefused(f"Redis at {where} {told}") from error
        if absence := _absence(error):
            raise QueueUnavailable(absence.format(where=f"Redis at {where}")) from error
        raise


def _refusal(error: redis.ResponseError) -> str | None:
    """What is wrong with a server, and what to do, where waiting does not help."""
    text = str(error)
    if lacks_right(error):
        return (
            f"denies its user something the queue needs ({text}): give the user the run's keys, "
            "~{RUN}:*, and that command"
        )
    # MOVED is an ASK to redis-py.
    if isinstance(error, (redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError)):
        return (
            f"is a cluster ({error.status_code or type(error).__name__} {text}): the queue of a "
            "run lives on a single Redis, give the address of one"
        )
    for words, told in _REFUSALS.items():
        if words in text:
            return f"{told} ({text[:200]})"
    return None


def _absence(error: redis.ResponseError) -> str | None:
    """What is the matter with the server at ``{where}``, which will be well again."""
    text = str(error)
    if isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in text:
        return "the memory of {where} is full: wait for jobs to be scored, or raise its maxmemory"
    if "NOGROUP" in text:
        return "{where} has lost the work stream: the learner opens its term again"
    if not is_passing(error):
        return None
    return f"{{where}} cannot serve now: {text.replace('{', '{{').replace('}', '}}')}"


_REFUSALS = {
    "DB index is out of range": "has no such database: a server has 16, from 0, unless its "
    "'databases' says more",
    "unknown command": "lacks a command that the queue needs, as proxies and renamed commands do: "
    "give the address of the Redis itself",
    "UNKILLABLE": "is stuck in a script that has written and cannot be killed: run SHUTDOWN NOSAVE "
    "there, and start it again",
    "DENIED": "is in protected mode and takes nobody from elsewhere: give its users passwords",
}
"""By the words of the reply."""

_TLS_REASONS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate does not prove that it is the server of this "
    "address: security.ca must have signed it, and it must name the host",
    "CERTIFICATE_REQUIRED": "it asks for a client's certificate: set security.certificate and "
    "security.key",
    "UNKNOWN_CA": "it does not believe the authority of security.certificate: use one that the "
    "server's own authority has signed",
    "WRONG_VERSION_NUMBER": "it speaks no TLS: write redis:// or give its TLS port",
    "RECORD_LAYER_FAILURE": "it speaks no TLS: write redis:// or give its TLS port",
}
"""By OpenSSL's names."""


def _tls_refusal(error: BaseException | None) -> str | None:
    """Why no TLS comes about, where waiting does not help."""
    found = _of_tls(error)
    text = f"{found}".upper().replace(" ", "_")
    for name, told in _TLS_REASONS.items():
        if found is not None and name in text:
            return f"{told} ({found.reason or 'TLS'})"
    return None


def _of_tls(error: BaseException | None) -> ssl.SSLError | None:
    """What OpenSSL said, which redis-py wraps."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def is_passing(error: redis.ResponseError) -> bool:
    """It ends by itself or by an operator's hand: memory that is full, a replica, a busy script."""
    full = isinstance(error, redis.OutOfMemoryError) or "OOM command not allowed" in str(error)
    # redis-py takes the code off these.
    passing = (
        redis.ReadOnlyError,
        redis.exceptions.ClusterDownError,  # MASTERDOWN is one
        redis.exceptions.TryAgainError,
    )
    return full or isinstance(error, passing) or _PASSING.search(str(error)) is not None


def lacks_right(error: redis.ResponseError) -> bool:
    """Of the user itself, or of the user within a script, which Redis words its own way."""
    within_script = ("ACL failure in script", "can't run this command", "can't access at least one")
    return isinstance(error, redis.exceptions.NoPermissionError) or any(
        words in str(error) for words in within_script
    )
