"""The exit code that a run's error comes to, and what stays of it in the run's directory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

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
        directory = values.get("operations", {}).get("directory")
        if isinstance(directory, str):
            show_refusal(values, error, is_shown=is_shown)
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
