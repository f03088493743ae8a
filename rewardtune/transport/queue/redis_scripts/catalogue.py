"""What Redis itself does for ``RedisJobQueue``: one Lua script for every step that must be whole.

Redis runs a script without interruption, so nobody sees half of one, and a client that dies has
done all of it or nothing. Commands of Redis 6.2 only. All keys carry the run's name as their hash
tag, so that they lie on one node of a cluster:

    {run}:term                      hash: the term, its run and seal, its frontier, limits, counts
    {run}:work                      stream: one entry per job without a result, oldest first
    {run}:TERM:job:ORDINAL          hash: body, seal, entry, lease, deliveries, failures
    {run}:TERM:result:ORDINAL       string: s + worker, seal, scored group, or d + those of a group
                                    that nobody could score
    {run}:calls                     list: a word for each job that a sleeping worker could take
    {run}:bell                      stream of one entry, a term: moves when it has another result
    {run}:letters                   stream: dead letters, the last 1000
    {run}:refused                   hash: results that the learner refused, by worker
    {run}:workers, {run}:worker:*   set and hashes: who said to be here, each with its own expiry
    {run}:draining                  sorted set: who is asked to leave, by when it was asked

A lease is an entry's place in the consumer group's pending list: who has it, and for how long it
has been idle. A job that was given back stays there, held by ``(nobody)`` and idle since 1970, so
that it is the next to go. Entries are deleted with their acknowledgement, never trimmed. A job that
has its result keeps its body until it is consumed, for a result may be refused.

Jobs and results exist for ordinals in [frontier, frontier + capacity) alone, so that range is the
list of a term's keys. Every script begins with ``SHARED``, gets ``{run}:term`` as its one key and
answers a list whose first word says what the rest is: ``ok``, or why it refused.

Redis runs a script with its caller's rights, so whoever may take and commit jobs may write
anything into its run's keys by hand. Scripts therefore believe nothing that they read: a number
that is none counts as 0, an entry that is no job is passed over and counted, a job that nobody
could lease any more is missing, and what makes no sense at all is ``damaged``, which the learner
mends by opening its term afresh.

When memory is full, Redis refuses a script whose first write needs some, and lets a script finish
that began by freeing some. So put begins by adding, and is refused whole; what ends a job begins
by deleting, and gets through.
"""

from __future__ import annotations

from rewardtune.transport.queue.redis_scripts import of_learner, of_worker, shared

# What makes no sense is told, but to the one script that can put it right.
_SOUND = """
if is_damaged then return {'damaged', 'its term'} end
"""


def whole_script(name: str) -> str:
    """What Redis is given: the script of this name with what all share before it."""
    text = getattr(of_learner, name, None) or getattr(of_worker, name)
    return f"{shared.SHARED}{'' if name == 'OPEN_TERM' else _SOUND}{text}"


def every_script() -> list[str]:
    """All that a queue runs."""
    return [
        whole_script(name)
        for home in (of_learner, of_worker)
        for name in vars(home)
        if name.isupper()
    ]
