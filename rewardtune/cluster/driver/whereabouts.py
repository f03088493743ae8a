"""Where a group is, in a run that is live or in one that is not: for people who ask why.

What decides takes values; ``find_group`` and ``find_stored_group`` gather them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rewardtune.cluster.driver.draw_table import DrawState, DrawTable
from rewardtune.config.run_config import RunConfig
from rewardtune.run.summary import stored_ledger
from rewardtune.transport.queue.job_queue import JobQueue, QueueStats


class Whereabouts(StrEnum):
    BEYOND_THE_END = "beyond_the_end"
    """The run ends before it."""
    NOT_DUE = "not_due"
    """The weights that it is drawn with are still being learned."""
    WANTED = "wanted"
    """It waits for a sampler."""
    BEING_DRAWN = "being_drawn"
    QUEUED = "queued"
    LEASED = "leased"
    QUEUED_OR_LEASED = "queued_or_leased"
    """It has no score yet, and the queue holds some of either kind."""
    MISSING = "missing"
    """It fell out of the queue."""
    SCORED = "scored"
    INVALID = "invalid"
    """Scoring failed for good."""
    SKIPPED = "skipped"
    """Its batch moved no weight."""
    TRAINED = "trained"


@dataclass(frozen=True, slots=True)
class Location:
    """One group's."""

    ordinal: int
    whereabouts: Whereabouts
    batch: int
    policy_version: int
    """The weights that it is drawn with."""
    detail: str
    """For people: one line."""


@dataclass(frozen=True, slots=True)
class InQueue:
    """What the queue says of one ordinal that was drawn."""

    is_missing: bool
    has_score: bool | None
    """None: no result yet; False: dead."""
    stats: QueueStats


def find_group(
    ordinal: int,
    config: RunConfig,
    *,
    version: int,
    term: int,
    table: DrawTable,
    queue: JobQueue,
    skipped_batches: frozenset[int] = frozenset(),
) -> Location:
    """Of a live run.

    Args:
        version: batches consumed.
        skipped_batches: those of this start that moved no weight; of earlier ones the newest
            checkpoint tells.

    Raises:
        ValueError: there is no such ordinal.
        QueueUnavailable, StaleTerm: as the queue says.
    """
    batch = _batch(ordinal, config)
    if batch < version:
        ledger = stored_ledger(config.operations.directory)
        dead = {letter.ordinal for letter in queue.dead_letters() if letter.term == term}
        is_skipped = batch in skipped_batches or ordinal in ledger.skipped
        whereabouts = _consumed(ordinal in dead | ledger.invalid, is_skipped=is_skipped)
        return _location(ordinal, whereabouts, config, version=version)
    state = table.state_of(ordinal)
    if state is not DrawState.DRAWN:
        return _location(ordinal, _NOT_DRAWN[state], config, version=version)
    result = queue.results(term, [ordinal]).get(ordinal)
    found = InQueue(
        is_missing=bool(queue.missing(term, [ordinal])),
        has_score=None if result is None else result.scored is not None,
        stats=queue.stats(),
    )
    return _location(ordinal, in_queue(found), config, version=version)


def find_stored_group(ordinal: int, config: RunConfig, *, directory: Path) -> Location:
    """Of a run that is not live, as its newest checkpoint has it.

    Raises:
        ValueError: there is no such ordinal.
    """
    ledger = stored_ledger(directory)
    batch = _batch(ordinal, config)
    if batch >= ledger.num_batches:
        whereabouts = Whereabouts.NOT_DUE
    else:
        whereabouts = _consumed(ordinal in ledger.invalid, is_skipped=ordinal in ledger.skipped)
    return _location(ordinal, whereabouts, config, version=ledger.num_batches)


def in_queue(found: InQueue) -> Whereabouts:
    """Where a group is that was drawn and not consumed."""
    if found.has_score is not None:
        return Whereabouts.SCORED if found.has_score else Whereabouts.INVALID
    if found.is_missing:
        return Whereabouts.MISSING
    # The queue counts what is held but does not say which: mostly the counts are enough.
    if found.stats.leased == 0:
        return Whereabouts.QUEUED
    if found.stats.backlog == 0:
        return Whereabouts.LEASED
    return Whereabouts.QUEUED_OR_LEASED


_NOT_DRAWN: Mapping[DrawState, Whereabouts] = {
    DrawState.NOT_DUE: Whereabouts.NOT_DUE,
    DrawState.WANTED: Whereabouts.WANTED,
    DrawState.IN_FLIGHT: Whereabouts.BEING_DRAWN,
}


def _consumed(is_invalid: bool, *, is_skipped: bool) -> Whereabouts:
    if is_invalid:
        return Whereabouts.INVALID
    return Whereabouts.SKIPPED if is_skipped else Whereabouts.TRAINED


def _batch(ordinal: int, config: RunConfig) -> int:
    if ordinal < 0:
        raise ValueError(f"ordinals count groups from 0, got {ordinal}")
    return ordinal // config.learner.batch_size


def _location(
    ordinal: int, whereabouts: Whereabouts, config: RunConfig, *, version: int
) -> Location:
    batch = ordinal // config.learner.batch_size
    if batch >= config.learner.num_steps:
        whereabouts = Whereabouts.BEYOND_THE_END
    drawn_with = config.drawn_with(batch)
    details = {
        Whereabouts.BEYOND_THE_END: (
            f"the run ends after batch {config.learner.num_steps - 1}, ordinal "
            f"{config.learner.num_steps * config.learner.batch_size - 1}"
        ),
        Whereabouts.NOT_DUE: (
            f"batch {batch} is drawn with version {drawn_with}; the learner is at {version}"
        ),
        Whereabouts.WANTED: "it waits for a sampler that is free",
        Whereabouts.BEING_DRAWN: f"a sampler draws its micro-batch with version {drawn_with}",
        Whereabouts.QUEUED: "it waits for a reward worker",
        Whereabouts.LEASED: "a reward worker has it",
        Whereabouts.QUEUED_OR_LEASED: "it has no score yet",
        Whereabouts.MISSING: (
            "the queue does not know it: if it stays so for two scans, it is drawn again"
        ),
        Whereabouts.SCORED: f"it waits for the rest of batch {batch}",
        Whereabouts.INVALID: "scoring failed for good, so it moves no weight: see the dead letters",
        Whereabouts.SKIPPED: f"batch {batch} was consumed and moved no weight",
        Whereabouts.TRAINED: f"consumed with batch {batch}: it is in version {batch + 1}",
    }
    return Location(
        ordinal=ordinal,
        whereabouts=whereabouts,
        batch=batch,
        policy_version=drawn_with,
        detail=details[whereabouts],
    )
