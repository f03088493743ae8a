"""A run as a job of a Ray cluster: submitted, followed to its end, stopped.

The log is not the job: whether it has ended is asked for, never read off the end of its log.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from rewardtune.cluster.job_bundle import entrypoint, environment, write_bundle
from rewardtune.cluster.ray_token import HOW_TO, settle_own_auth_mode
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.run.run_state import End, RunState, read_run_state

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
"""With a cluster that does not answer while a job is followed."""
_RUN = "rewardtune_run"
_DIRECTORY = "rewardtune_directory"

_AnswerT = TypeVar("_AnswerT")


class ClusterAway(ConnectionError):
    """The cluster's dashboard does not answer."""


class Cluster:
    """Jobs of one Ray cluster."""

    def __init__(self, client: JobSubmissionClient, *, address: str) -> None:
        self._client = client
        self._address = address

    @classmethod
    def at(cls, address: str) -> Cluster:
        """Raises ClusterAway."""
        # The mode must not hang on a file in somebody's home folder.
        settle_own_auth_mode()
        try:
            client = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise ClusterAway(_token_refused(address)) from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterAway(
                f"no Ray dashboard answers at {address} ({_first_line(error)}): give the address "
                "of the head's dashboard, such as http://HOST:8265"
            ) from error
        # It tells of every upload; only its own making sets the level.
        logging.getLogger("ray").setLevel(logging.WARNING)
        return cls(client, address=address)

    def submit(
        self, config_path: Path, overrides: Sequence[str], *, working_dir: Path | None = None
    ) -> str:
        """Start the run, or continue it; returns the job's name.

        Raises:
            ConfigError: the config cannot be run, the bundle is too large, or a job drives the
                run already.
            ClusterAway: it does not answer.
        """
        config = load_config(config_path, overrides)
        if config.mode != "tune":
            raise ConfigError(
                f"{config_path} has mode = '{config.mode}': submit runs mode = 'tune'"
            )
        attempt = self._next_attempt(config)
        with tempfile.TemporaryDirectory(prefix="rewardtune-job-") as folder:
            write_bundle(Path(folder), config_path, config, working_dir=working_dir)
            return self._ask(
                lambda: self._client.submit_job(
                    entrypoint=entrypoint(config, overrides),
                    submission_id=f"{_job_name(config)}-{attempt}",
                    runtime_env={"working_dir": folder, "env_vars": environment()},
                    metadata={_RUN: config.run_name, _DIRECTORY: _directory(config)},
                )
            )

    def follow(self, job: str, *, write: Callable[[str], object]) -> int:
        """Show the job's log until the job ends; returns the exit code of its driver.

        Of a job that was stopped Ray keeps none: where the run's directory can be read from here,
        it tells whether the run was drained in time.

        Raises:
            ClusterAway: for longer than ten minutes.
            ValueError: the cluster knows no such job.
        """
        num_shown, away_since = 0, None
        while True:
            try:
                # In this order: what the job said before it ended is in the log by then.
                details = self._details(job)
                log = self._ask(lambda: self._client.get_job_logs(job))
            except ClusterAway:
                away_since = away_since or time.monotonic()
                if time.monotonic() > away_since + PATIENCE_SECONDS:
                    raise
            else:
                away_since = None
                write(log[num_shown:])
                num_shown = len(log)
                if details.status.is_terminal():
                    return _exit_code(details)
            time.sleep(POLL_SECONDS)

    def stop(self, job: str) -> str:
        """Have the run write its checkpoint and end; returns how the job ended.

        Raises:
            ValueError: the cluster knows no such job.
            ClusterAway: it does not answer.
        """
        if not self._details(job).status.is_terminal():
            self._ask(lambda: self._client.stop_job(job))
        while not (details := self._details(job)).status.is_terminal():
            time.sleep(POLL_SECONDS)
        told = _told(details)
        ended = str(details.status.value).lower()
        return ended if told is None else f"{ended}; the run is {told.line}"

    def _next_attempt(self, config: RunConfig) -> int:
        """One more than there were of this name; a job's name is used once."""
        name, attempts = _job_name(config), [0]
        for details in self._ask(self._client.list_jobs):
            is_same = (details.metadata or {}).get(_DIRECTORY) == _directory(config)
            if is_same and not details.status.is_terminal():
                raise ConfigError(
                    f"job {details.submission_id} drives {_directory(config)} already: stop it by "
                    f"rewardtune submit --address {self._address} --stop {details.submission_id}, "
                    f"or watch it with --follow {details.submission_id}"
                )
            if found := re.fullmatch(rf"{re.escape(name)}-(\d+)", details.submission_id or ""):
                attempts.append(int(found[1]))
        return 1 + max(attempts)

    def _details(self, job: str) -> JobDetails:
        return self._ask(lambda: self._client.get_job_info(job))

    def _ask(self, ask: Callable[[], _AnswerT]) -> _AnswerT:
        try:
            return ask()
        except AuthenticationError as error:
            raise ClusterAway(_token_refused(self._address)) from error
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                raise ValueError(
                    f"the cluster at {self._address} knows no such job: its head was started "
                    "again since, or the name is wrong; submitting the run continues it"
                ) from error
            raise ClusterAway(
                f"the cluster at {self._address} fails to answer: {_first_line(error)}"
            ) from error
        except OSError as error:  # those of requests are among them
            raise ClusterAway(
                f"the cluster at {self._address} does not answer: {_first_line(error)}"
            ) from error


def _token_refused(address: str) -> str:
    return f"the cluster at {address} refuses this process: {HOW_TO}"


def _exit_code(details: JobDetails) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        told = _told(details)
        return 0 if told is None or told.state in (End.FINISHED, End.DRAINED) else 1
    # A job can fail without a driver: no such command, no room.
    return details.driver_exit_code or 1


def _told(details: JobDetails) -> RunState | None:
    """None where the run's directory is not to be seen from here."""
    return read_run_state(Path((details.metadata or {}).get(_DIRECTORY, "")))


def _job_name(config: RunConfig) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", config.run_name)


def _directory(config: RunConfig) -> str:
    return str(config.operations.directory.absolute())


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
