"""The address of a job queue: where it stands, what it must look like, and how it is shown.

An address is a URL (``redis://``, ``rediss://``, ``unix://``, ``ray://``), or says where this
process finds one: ``env:NAME`` in its environment, ``file:PATH`` in a file. What is stored, shown
and handed around is the address; only the process that connects reads the URL.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from rewardtune.transport.security.secret_file import read_secret

ENVIRONMENT_VARIABLE = "REWARDTUNE_REDIS"
FORMS = "redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix://PATH, env:NAME or file:PATH"

_REDIS = ("redis", "rediss", "unix")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = re.compile(r"[/?#\[\]@\s]")
# Whatever stands before the last @ may be a password, however it is written.
_LOGIN = re.compile(r"\b(redis|rediss|unix)://([^\s'\"]*)@")
_OPTION = re.compile(r"\bpassword=[^\s&'\"]*")


def find_url(address: str, *, environment: Mapping[str, str] = os.environ) -> str:
    """The URL that an address stands for, in this process.

    Raises:
        ValueError: the variable is not set, or the file cannot be read or is open to everybody.
    """
    kind, _, place = address.partition(":")
    if kind == "env":
        if not _NAME.fullmatch(place):
            raise ValueError("the queue's address 'env:' needs the name of a variable: env:NAME")
        url = environment.get(place, "").strip()
        if not url:
            raise ValueError(
                f"the queue's address is that of '{address}', but {place} is not set for process "
                f"{os.getpid()} on {socket.gethostname()}: set it there to redis://..."
            )
        return url
    if kind == "file":
        return read_secret(Path(place), what="the queue's address file")
    return address


def check_url(url: str) -> None:
    """Raises ValueError: a Redis could not be found by it as it was meant; shows no password."""
    scheme, _, rest = url.partition("://")
    if scheme not in _REDIS:
        return
    # The path of a socket may hold an @.
    login, _, _ = (rest if scheme != "unix" else rest.partition("/")[0]).rpartition("@")
    if _RESERVED.search(login):
        raise ValueError(
            f"the queue's address {scheme}://... has a user or password with one of / ? # [ ] @ "
            "in it: percent-encode them (%2F %3F %23 %5B %5D %40)"
        )
    shown = without_password(url)
    try:
        parts = urlsplit(url)
        port = parts.port if scheme != "unix" else None
    except ValueError as error:
        raise ValueError(
            f"the queue's address {shown} has no such port or host: write {scheme}://HOST:PORT, "
            "with a port of 1 to 65535"
        ) from error
    if port == 0:
        raise ValueError(f"the queue's address {shown} has port 0: ports are 1 to 65535")
    if scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError(
            f"the queue's address {shown} names database '{parts.path[1:]}': a database is a "
            f"number, {scheme}://HOST:PORT/0"
        )


def has_password(address: str) -> bool:
    """Whether whoever sees the address can log in by it."""
    scheme, _, rest = address.partition("://")
    if scheme not in _REDIS:
        return False
    login = rest.rpartition("@")[0]
    query = rest.partition("?")[2].partition("#")[0]
    return bool(login.partition(":")[2]) or any(
        name == "password" for name, _ in parse_qsl(query, keep_blank_values=True)
    )


def refuse_password(address: str | None, *, key: str) -> None:
    """Raises ValueError: a password stands where it is stored, shown or sent along."""
    if address is not None and has_password(address):
        raise ValueError(
            f"{key} holds a password, which the process list, the job's page and config.json "
            f"would show: set it in the environment of the job, {ENVIRONMENT_VARIABLE}=redis://"
            f"USER:PASSWORD@HOST:PORT, and write {key} = 'env:{ENVIRONMENT_VARIABLE}', or name a "
            f"file of mode 0600, {key} = 'file:PATH' (docs/security.md)"
        )


def without_password(url: str) -> str:
    """An address as errors and logs show it: without login and options."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0].partition('#')[0]}"


def redacted(text: str) -> str:
    """A text with the logins of all addresses in it put out of sight."""
    return _OPTION.sub("password=...", _LOGIN.sub(r"\1://...@", text))
