"""A run's status as people read it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rewardtune.run.run_state import End, RunState
from rewardtune.run.summary import RunSummary

_BAR_WIDTH = 30
_STATE_STYLES = {
    "running": "green",
    "ready": "green",
    "paused": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "refused": "red",
    "failed": "red",
}
_HEADLINE = ("map", "ar100", "reward")


def live_view(status: Mapping[str, Any]) -> RenderableType:
    """Of a run that is live: ``Driver.status``."""
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(status["run"], style="bold"),
        _state(status["state"]),
        ProgressBar(total=status["num_steps"], completed=status["step"], width=_BAR_WIDTH),
        f"{status['step']}/{status['num_steps']}",
        _rate(status["steps_per_second"], "steps/s"),
    )
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(status):
        facts.add_row(Text(name, style="dim"), value)
    parts: list[RenderableType] = [head, facts, _services(status["services"])]
    if status["reward_workers"]:
        parts.append(_workers(status["reward_workers"]))
    return Group(*parts)


def resting_view(summary: RunSummary | None, told: RunState | None, *, run: str) -> RenderableType:
    """Of one that no driver answers for, as its directory has it.

    Args:
        summary: None: no start got as far as a config.
        told: how the last start stands or ended; None: of an earlier version, which wrote none.
    """
    is_finished = summary is not None and summary.is_finished
    state, why = _resting_state(told, is_finished=is_finished)
    where = "no checkpoint yet"
    if summary is not None:
        step = summary.checkpoint_step
        where = where if step is None else f"checkpoint at step {step}"
        where += f" of {summary.num_steps}"
    lines = [f"{run}  {state}  {where}"]
    lines += [why] if why else []
    if summary is not None:
        lines += [f"best   {headline(summary.best)}"] if summary.best else []
        lines += [f"latest {headline(summary.last)}"] if summary.last else []
    if state == End.REFUSED:
        lines.append("mend that and give the command again")
    elif not is_finished and (told is None or told.has_ended or told.is_dead):
        lines.append("the command that started it continues it from there")
    return Text("\n".join(lines))


def _resting_state(told: RunState | None, *, is_finished: bool) -> tuple[str, str]:
    """The state, and a line that says more of it; empty where there is no more to say."""
    if told is None:
        return "finished" if is_finished else "not live", ""
    if told.has_ended:
        return told.state, told.why
    if told.is_dead:
        return "not live", f"its process {told.pid} died at step {told.step} of {told.num_steps}"
    return told.state, f"step {told.step} of {told.num_steps}, on {told.host}, process {told.pid}"


def headline(evaluation: Mapping[str, float]) -> str:
    """One evaluation's step and its best known metrics."""
    metrics = {name: value for name, value in evaluation.items() if name != "step"}
    shown = {name: metrics[name] for name in _HEADLINE if name in metrics} or metrics
    words = [f"{name} {value:.4f}" for name, value in shown.items()]
    return " · ".join([f"step {evaluation['step']:.0f}", *words])


def letters_view(letters: Sequence[Mapping[str, Any]], total: int) -> RenderableType:
    """Groups that nobody could score."""
    if not letters:
        return Text("no dead letters: every group of this term could be scored")
    table = _table("ordinal", "example", "worker", "why")
    for letter in letters:
        why = "\n".join(f"{each['kind']}: {each['message']}" for each in letter["failures"])
        example = "?" if letter["example"] is None else str(letter["example"])
        table.add_row(str(letter["ordinal"]), example, letter["worker"], Text(why))
    traced = letters[-1]["failures"][-1]["traceback"] if letters[-1]["failures"] else ""
    return Group(Text(f"{len(letters)} of {total} dead letters"), table, Text(traced))


def _facts(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("directory", status["directory"])]
    if status["reward"] is not None:
        facts.append(("reward", f"{status['reward']:.4f}"))
    phases = {name: seconds for name, seconds in status["phases"].items() if seconds > 0}
    if total := sum(phases.values()):
        largest = sorted(phases.items(), key=lambda each: -each[1])
        shares = [f"{name} {seconds / total:.0%}" for name, seconds in largest]
        facts.append(("learner's time", " · ".join(shares)))
    staleness = "-" if status["staleness"] is None else f"{status['staleness']:.0f}"
    depth, depth_required = status["depth"], status["depth_required"]
    needed = "" if depth_required is None else f", {depth_required} required"
    facts.append(("staleness", f"{staleness} (depth {depth}{needed})"))
    queue = status["queue"]
    if queue is not None:
        facts.append(
            (
                "queue",
                f"{queue['backlog']} waiting · {queue['leased']} leased · {queue['results']} scored"
                f" · oldest {queue['oldest_seconds']:.1f} s",
            )
        )
        facts.append(
            (
                "mishaps",
                f"{queue['redeliveries']} redelivered · {queue['duplicate_commits']} twice · "
                f"{queue['dead']} dead · {status['redraws']} redraws",
            )
        )
        if queue["refused"] or queue["bad_entries"]:
            of_workers = ", ".join(f"{n} of {name}" for name, n in queue["refused"].items())
            facts.append(
                (
                    "refused",
                    f"results: {of_workers or 'none'} · {queue['bad_entries']} bad entries",
                )
            )
    required = status["reward_workers_required"]
    ready = sum(worker["state"] == "ready" for worker in status["reward_workers"])
    needed = "not known yet" if required is None else str(required)
    facts.append(("reward workers", f"{ready} ready · {needed} required"))
    if status["best"]:
        facts.append(("best", headline(status["best"])))
    return facts


def _services(services: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("service", "pid", "state", "restarts")
    for service in services:
        pid = str(service["pid"] or "-")
        table.add_row(service["name"], pid, _state(service["state"]), str(service["restarts"]))
    return table


def _workers(workers: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("reward worker", "where", "state", "busy", "groups", "core s/group", "")
    for worker in workers:
        num_groups = worker["num_groups"]
        table.add_row(
            worker["worker"],
            "in Ray" if worker["is_in_ray"] else "outside",
            _state(worker["state"]),
            f"{worker['busy']}/{worker['num_scorers']}",
            str(num_groups),
            f"{worker['core_seconds'] / num_groups:.3f}" if num_groups else "-",
            Text(worker["message"]),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _state(state: str) -> Text:
    return Text(state, style=_STATE_STYLES.get(state, ""))


def _rate(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g} {unit}"
