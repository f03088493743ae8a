"""Files that hold a secret: read whole, and refused where everybody can read them."""

from __future__ import annotations

import stat
from pathlib import Path

_OTHERS = stat.S_IRWXO


def read_secret(path: Path, *, what: str) -> str:
    """The text of a file without the white space around it.

    Args:
        what: names the file's use in errors, which never show what it holds.

    Raises:
        ValueError: it cannot be read, is empty, or others than its owner and group may read it.
    """
    text = read_private(path, what=what).decode("utf-8", errors="replace").strip()
    if not text:
        raise ValueError(f"{what} {path} is empty: it must hold the secret, on one line")
    if len(text.splitlines()) > 1:
        raise ValueError(f"{what} {path} has several lines: it must hold the secret on one")
    return text


def read_private(path: Path, *, what: str) -> bytes:
    """The bytes of a file. The group may read it: so Kubernetes mounts a Secret for a pod.

    Raises:
        ValueError: as ``read_secret``.
    """
    data = read_public(path, what=what)
    if path.stat().st_mode & _OTHERS:
        raise ValueError(
            f"{what} {path} is open to everybody on its machine: run chmod 600 {path} (in "
            "Kubernetes: defaultMode: 0440 of the Secret's volume)"
        )
    return data


def read_public(path: Path, *, what: str) -> bytes:
    """The bytes of a file that is no secret.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{what} {path} cannot be read ({error.strerror}): give a file that this user can read"
        ) from error
