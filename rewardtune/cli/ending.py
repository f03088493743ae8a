"""The exit code that a run's error comes to, and what stays of it in the run's directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import typer

from rewardtune.config.run_config import ConfigError
from rewardtune.run.run_state import End, is_refusal, read_run_state

BAD_INPUT = 2
FAILED = 1


def note_refusal(
    path: Path, overrides: Sequence[str], error: ValueError, *, is_shown: bool
) -> Path | None:
    """Keep that a config was refused before there was a run.

    Args:
        is_shown: to Prometheus too, as the driver of the run would.

    Returns:
        The run's directory, or None where the config cannot even be read: nobody knows it then.
    """
    from rewardtune.cluster.farewell import show_refusal
    from rewardtune.config.config_file import read_values

    with contextlib.suppress(ConfigError):
        values = read_values(path, overrides)
        operations = values["operations"]
        directory = operations.get("directory") if isinstance(operations, dict) else None
        if isinstance(directory, str):
            cluster = values.get("cluster", {})
            show_refusal(Path(directory), error, cluster=cluster, is_shown=is_shown)
            return Path(directory)
    return None


def exit_code(error: Exception, directory: Path | None, *, is_job: bool) -> int:
    """Of a run that raised this.

    Of a job a refusal is 0, so that nothing tries it again; but only where RUN/state.json tells
    of it, since nothing else would.
    """
    if not is_refusal(error):
        return FAILED
    told = read_run_state(directory) if is_job and directory is not None else None
    return 0 if told is not None and told.state == End.REFUSED else BAD_INPUT


def exit_by(error: Exception, code: int) -> typer.Exit:
    """Say what is wrong; or raise it, where its traceback is asked for."""
    if os.environ.get("REWARDTUNE_TRACEBACK") == "1":
        raise error
    typer.echo(f"error: {error}", err=True)
    if isinstance(error, RuntimeError):
        typer.echo("REWARDTUNE_TRACEBACK=1 shows where it came from", err=True)
    return typer.Exit(code)
