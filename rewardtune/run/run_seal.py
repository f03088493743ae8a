"""A run's own name and secret: made at its first start, kept in its directory through every resume.

RUN/seal.json, readable by its owner alone. Whoever has it can sign groups and terms as the run's;
reward workers are not told it.
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from pathlib import Path

from rewardtune.transport.seal import SEAL_BYTES, RunSeal

SEAL_NAME = "seal.json"


def run_seal(directory: Path) -> RunSeal:
    """The directory's, made if there is none; of several that make one at once, the first's.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read or written.
    """
    path = directory / SEAL_NAME
    if not path.exists():
        _make(path)
    try:
        told = json.loads(path.read_text())
        seal = RunSeal(str(uuid.UUID(told["run_id"])), bytes.fromhex(told["secret"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        seal = RunSeal("", b"")
    if len(seal.secret) != SEAL_BYTES:
        raise ValueError(
            f"{path} is no run's id and secret: restore it, or delete it, and the run gets others"
        )
    return seal


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"run_id": str(uuid.uuid4()), "secret": secrets.token_hex(SEAL_BYTES)}
    partial = path.with_name(f".{SEAL_NAME}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(json.dumps(told))
    try:
        # Never over one that is there, and never half of one.
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
