"""Makes the runs of a sweep, several at a time, each in a process of its own.

What is needed next is decided by ``sweep_plan``; here processes are started, watched and stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from rewardtune.config.run_config import ConfigError, RunConfig, derived
from rewardtune.run.log import LOG_NAME
from rewardtune.run.stopping import StopFlag, stop_on_signal
from rewardtune.sweep.config import Sweep
from rewardtune.sweep.measure import Start, measure_start, start_key
from rewardtune.sweep.plan import Run
from rewardtune.sweep.process import OUTCOME_NAME, STOPPED, read_outcome, write_job
from rewardtune.sweep.record import RECORDS_NAME, Record, append_record, finished_runs, missing_runs

_OUTPUT_NAME = "output.txt"
_POLL_SECONDS = 0.2
_TAIL_BYTES = 4096


class SweepFailed(RuntimeError):
    """A run came to an end that it should not; the others can go on where they were."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    config: RunConfig
    bar: TaskID


def run_sweep(
    sweep: Sweep, *, num_jobs: int = 1, console: Console | None = None
) -> dict[Run, Record] | None:
    """Make every run that is not finished, and return all; None if a signal stopped it.

    Runs are written to ``records.jsonl`` below the sweep's directory as they end.

    Args:
        num_jobs: runs at a time.
        console: where to tell about it; by default stderr.

    Raises:
        ConfigError, ValueError, OSError: a config, data set or checkpoint will not do, or the
            directory holds a sweep of other settings or other files.
        SweepFailed: a run failed; the others were stopped where they were.
    """
    records = finished_runs(sweep)
    console = console or Console(stderr=True)
    if not missing_runs(sweep, records):
        return records
    starts = _starts(sweep, records)
    with stop_on_signal() as stop, _bars(console) as bars:
        shell = _Shell(sweep, starts=starts, records=records, bars=bars)
        try:
            shell.run(num_jobs, stop)
        finally:
            shell.kill()
    return None if missing_runs(sweep, records) else records


def _starts(sweep: Sweep, records: Mapping[Run, Record]) -> dict[str, Start]:
    """By row; measured once for all rows that start alike."""
    by_key: dict[str, Start] = {}
    starts = {}
    for name in sweep.distinct:
        config = sweep.run_config(name, 0)
        key = start_key(config)
        if key not in by_key:
            folder = sweep.directory / "starts"
            by_key[key] = measure_start(config, sweep.settings.data, folder)
            _check_metrics(sweep, by_key[key].metrics)
        starts[name] = by_key[key]
    for run, record in records.items():
        if record.start != starts[run.row].fingerprint:
            raise ConfigError(
                f"{sweep.directory} holds run {run.name}, made when a data set, the checkpoint or "
                "a file of the task's options held something else: restore it, or move the "
                "directory away"
            )
    return starts


def _check_metrics(sweep: Sweep, measured: Mapping[str, float]) -> None:
    first, *others = sweep.settings.metrics
    for metric in (first, *(other for other in others if other != "rollout_reward")):
        if metric not in measured:
            raise ConfigError(
                f"metrics has '{metric}', which this task does not measure: choose from "
                f"{', '.join(measured)}"
            )


class _Shell:
    """The processes of one sweep. Records are added to as runs end."""

    def __init__(
        self,
        sweep: Sweep,
        *,
        starts: Mapping[str, Start],
        records: dict[Run, Record],
        bars: Progress,
    ) -> None:
        self._sweep = sweep
        self._starts = starts
        self._records = records
        self._bars = bars
        self._total = bars.add_task("all runs", total=None)
        self._children: dict[Run, _Child] = {}
        self._failure: SweepFailed | None = None
        self._is_stopping = False

    def run(self, num_jobs: int, stop: StopFlag) -> None:
        """Until everything is done, or everything has stopped.

        Raises:
            SweepFailed: a run failed.
        """
        while True:
            missing = missing_runs(self._sweep, self._records)
            self._bars.update(
                self._total,
                completed=len(self._records),
                total=len(self._records) + len(missing),
            )
            if (stop or self._failure) and not self._is_stopping:
                self._is_stopping = True
                for child in self._children.values():
                    child.process.terminate()  # it finishes its step and writes a checkpoint
            if not self._is_stopping:
                idle = [run for run in missing if run not in self._children]
                for run in idle[: num_jobs - len(self._children)]:
                    self._children[run] = self._start(run)
            if not self._children:
                break
            time.sleep(_POLL_SECONDS)
            for run, child in list(self._children.items()):
                if child.process.poll() is None:
                    step = _last_step(child.config.operations.directory / LOG_NAME)
                    self._bars.update(child.bar, completed=step)
                else:
                    del self._children[run]
                    self._bars.remove_task(child.bar)
                    self._collect(run, child)
        if self._failure is not None:
            raise self._failure

    def kill(self) -> None:
        """Whatever still runs, at once: after an interrupt."""
        for child in self._children.values():
            child.process.kill()
            child.process.wait()

    def _start(self, run: Run) -> _Child:
        settings = self._sweep.settings
        config = _quiet(self._sweep.run_config(run.row, run.seed))
        directory = config.operations.directory
        job = write_job(config, settings.data, settings.policy)
        (directory / OUTCOME_NAME).unlink(missing_ok=True)
        with (directory / _OUTPUT_NAME).open("ab") as output:
            process = subprocess.Popen(
                # -P: a file in the current folder must not shadow a module.
                [sys.executable, "-P", "-m", "rewardtune.sweep.process", str(job)],
                env=_environment(config.compute.threads),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # An interrupt at the terminal is for the sweep, which then asks its runs to stop.
                start_new_session=True,
            )
        bar = self._bars.add_task(run.name, total=config.learner.num_steps)
        return _Child(process, config, bar)

    def _collect(self, run: Run, child: _Child) -> None:
        code, directory = child.process.returncode, child.config.operations.directory
        # It dies of the signal where it has not begun to listen, or measures already.
        if code == STOPPED or (self._is_stopping and code == -signal.SIGTERM):
            return
        if code != 0:
            self._failure = self._failure or SweepFailed(
                f"run {run.name} ended with exit code {code}: {_last_line(directory)}"
            )
            return
        record = _record(run, child.config, self._sweep, self._starts[run.row])
        append_record(self._sweep.directory / RECORDS_NAME, record)
        self._records[run] = record
        metric = self._sweep.settings.metrics[0]
        self._bars.console.print(
            f"{run.name}: {metric} {record.before[metric]:.4f} to {record.value(metric):.4f}, "
            f"{record.seconds:.0f} s",
            highlight=False,
            soft_wrap=True,
        )


def _record(run: Run, config: RunConfig, sweep: Sweep, start: Start) -> Record:
    outcome, sizes = read_outcome(config.operations.directory), derived(config)
    return Record(
        row=run.row,
        seed=run.seed,
        before=start.metrics,
        after=outcome.after,
        evaluations=outcome.evaluations,
        num_steps=config.learner.num_steps,
        num_samples=int(sizes["rollouts_total"]),
        samples_per_step=int(sizes["rollouts_per_step"]),
        seconds=outcome.seconds,
        machine=outcome.machine,
        key=sweep.key(run.row, run.seed),
        start=start.fingerprint,
    )


def _quiet(config: RunConfig) -> RunConfig:
    operations = config.operations.model_copy(update={"progress": False})
    return config.model_copy(update={"operations": operations})


def _environment(threads: int) -> dict[str, str]:
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        # Idle threads that spin slow runs beside each other several times (docs/decisions.md).
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "20000"),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
    }


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield bars


def _last_step(log: Path) -> int:
    """As far as a live run's log tells; 0 at first."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # half of it lies before the tail, or is not written yet
        if record.get("kind") == "step":
            return int(record["step"])
    return 0


def _last_line(directory: Path) -> str:
    path = directory / _OUTPUT_NAME
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    return f"{said} (all it said: {path})"
