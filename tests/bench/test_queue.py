"""That the queue's benchmark runs, at toy sizes, beside its peer."""

from __future__ import annotations

from bench.queue import PEER, queue_figures


def test_the_queues_figures_come_with_what_a_bare_loop_reaches() -> None:
    figures = {f.name: f for f in queue_figures(num_batches=2, num_singles=3, num_rounds=1)}
    assert list(figures) == [
        "queue.memory.groups_per_second",
        "queue.redis.groups_per_second",
        "queue.redis.p50_seconds",
        "queue.redis.p99_seconds",
    ]
    assert all(figure.value > 0 for figure in figures.values())
    for name, figure in figures.items():
        is_redis = name.startswith("queue.redis")
        assert (figure.peer is not None and figure.peer.startswith(PEER)) == is_redis
        assert (figure.ratio is not None) == is_redis
