"""Custom rewards through workers with real children, and servers of rewards."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reward_workers.metrics import GROUPS, HUMAN_WAITING, RESTARTS
from reward_workers.scoring.spec import ScoringSpec
from reward_workers.serving import ServedReward
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.records import Score
from rewardtune.transport.queue.job_queue import FailureKind, JobQueue, QueueLimits
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.reward_service.messages import (
    Description,
    Question,
)
from rewardtune.transport.reward_service.server import RewardServer
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from tests.reward_workers.scoring_run import (
    USER_FOLDER,
    eventually,
    group_of,
    open_term,
    results,
    spec_of,
    working,
    write_tiny_data,
)
from tests.reward_workers.user_folder.values_by_token import HANG, NAN, RAISE, SHORT, WORDS
from tests.rewardtune.transport.certificates import Authority, write_secret

LARGEST = "values_by_token:largest"


def custom_spec(
    data: Path, reward: Any = LARGEST, *, security: SecurityConfig = PLAIN
) -> ScoringSpec:
    return spec_of(data, "by_token", {}, reward=reward, security=security)


@contextmanager
def serving(
    data: Path,
    use: str = LARGEST,
    *,
    port: int = 0,
    security: SecurityConfig = PLAIN,
    **told: Any,
) -> Iterator[RewardServer]:
    if str(USER_FOLDER) not in sys.path:
        sys.path.append(str(USER_FOLDER))
    rewards = ServedReward(use, task_name="by_token", dataset=open_dataset(data), **told)
    with RewardServer(rewards, port=port, security=security) as server:
        yield server


@pytest.mark.alone
def test_every_way_a_function_fails_is_told_with_its_example_and_the_rest_goes_on(
    queue: JobQueue, data: Path
) -> None:
    where = f"reward 'largest' ({LARGEST}), image {{0}}.png (id {{0}}): "
    spoiled = {
        1: (HANG, FailureKind.TIMEOUT, "example 1: no score after 1 s: scorer killed"),
        2: (RAISE, FailureKind.EXCEPTION, where.format(2) + "LookupError: no such thing"),
        3: (NAN, FailureKind.INVALID, where.format(3) + "gave nan, not a finite number"),
        4: (SHORT, FailureKind.INVALID, where.format(0) + "gave shape [1] for 2 predictions"),
        5: (WORDS, FailureKind.INVALID, where.format(1) + "gave list that is not numbers"),
    }
    open_term(queue, custom_spec(data))
    for ordinal in range(8):
        token = spoiled[ordinal][0] if ordinal in spoiled else ordinal
        queue.put(0, ordinal, group_of(ordinal, token, 2, 3))
    with working(queue, data, deadline_seconds=1) as running:
        found = results(queue, range(8))
    for ordinal in set(range(8)) - spoiled.keys():
        most = float(max(ordinal, 3))
        assert found[ordinal] == [most, max(most, 4.0)]
    letters = {letter.ordinal: letter for letter in queue.dead_letters()}
    assert letters.keys() == spoiled.keys()
    for ordinal, (_, kind, message) in spoiled.items():
        assert found[ordinal] is None
        for failure in letters[ordinal].failures:
            assert failure.kind is kind
            assert failure.message.startswith(message) and "\n" not in failure.message
    assert "values_by_token.py" in letters[2].failures[0].traceback
    assert running.metrics.counts[GROUPS, "failed"] == 2 * len(spoiled)


def test_a_worker_without_the_module_leases_nothing_and_says_what_to_do(
    queue: JobQueue, data: Path
) -> None:
    spec = custom_spec(data)
    assert spec.reward is not None
    parts = {**spec.reward.parts}
    parts["largest"] = parts["largest"].model_copy(update={"use": "nowhere_to_be_found:f"})
    reward = spec.reward.model_copy(update={"parts": parts})
    open_term(queue, spec.model_copy(update={"reward": reward}))
    queue.put(0, 0, group_of(0, 1, 2, 3))
    with working(queue, data) as running:
        running.eventually_is("refused")
        eventually(lambda: bool(queue.workers()), "it is listed all the same")
        message = running.worker.message
        assert "reward 'nowhere_to_be_found:f': there is no module" in message
        assert "--code" in message and "\n" not in message
        assert queue.stats().leased == 0


def test_a_worker_with_another_version_of_the_module_is_refused(
    queue: JobQueue, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = custom_spec(data)
    edited = tmp_path / "edited"
    shutil.copytree(USER_FOLDER, edited)
    source = edited / "values_by_token.py"
    source.write_text(source.read_text() + "# edited\n")
    others = [path for path in sys.path if path != str(USER_FOLDER)]
    monkeypatch.setattr(sys, "path", [*others, str(edited)])
    open_term(queue, spec)
    with working(queue, data) as running:
        running.eventually_is("refused")
        assert "install the same sources" in running.worker.message


@pytest.mark.slow
def test_a_worker_finds_files_in_a_folder_of_its_own(
    queue: JobQueue, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "value").write_text("2.5")
    part = {
        "use": "values_by_token:FromFile",
        "options": {"path": str(tmp_path / "here" / "value")},
    }
    spec = custom_spec(data, {"sum": {"fixed": 1.0}, "parts": {"fixed": part}})
    (tmp_path / "here").rename(tmp_path / "there")
    open_term(queue, spec)
    queue.put(0, 0, group_of(0, 1, 2, 3))
    with working(queue, data, artefacts_path=tmp_path / "there"):
        assert results(queue, [0]) == {0: [2.5, 2.5]}
    (tmp_path / "there" / "value").write_text("2.6")
    with working(queue, data, artefacts_path=tmp_path / "there") as running:
        running.eventually_is("refused")
        assert "install the same sources as the run, its files" in running.worker.message


@pytest.mark.slow
def test_a_server_scores_as_the_function_would(queue: JobQueue, data: Path) -> None:
    with serving(data) as server:
        given = {
            "sum": {"task": 1, "judge": 2},
            "parts": {"judge": {"use": f"grpc://{server.address}"}},
        }
        spec = custom_spec(data, given)
        assert len(spec.golden) == 4
        open_term(queue, spec)
        for ordinal in range(3):
            queue.put(0, ordinal, group_of(ordinal, 1, 2, 3))
        with working(queue, data):
            assert results(queue, range(3)) == {o: [6.0 + 6, 7.0 + 8] for o in range(3)}


@pytest.mark.slow
def test_a_server_behind_tls_is_asked_by_the_scorers_with_the_runs_certificates(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    ours = Authority(tmp_path / "ours", "ours")
    own = ours.issue("run").model_copy(
        update={"token_file": write_secret(tmp_path / "token", "t"), "verify_clients": True}
    )
    with serving(data, security=own) as server:
        use = f"grpcs://{server.address}"
        encrypted, plain = custom_spec(data, use, security=own), f"grpc://{server.address}"
        open_term(queue, encrypted)
        queue.put(0, 0, group_of(0, 1, 2, 3))
        with working(queue, data, security=own):
            assert results(queue, [0]) == {0: [3.0, 4.0]}
    # How it is called is no part of what it scores.
    with serving(data, port=server.port):
        assert custom_spec(data, plain).reward_digest == encrypted.reward_digest


@pytest.mark.alone
def test_failures_of_a_server_are_attributed_and_one_that_is_away_is_waited_for(
    queue: JobQueue, data: Path
) -> None:
    with serving(data) as server:
        port = server.port
        open_term(queue, custom_spec(data, f"grpc://{server.address}"))
        queue.put(0, 0, group_of(0, RAISE, 2, 3))
        with working(queue, data, deadline_seconds=3.0) as running:
            assert results(queue, [0]) == {0: None}
            server.close()
            queue.put(0, 1, group_of(1, 1, 2, 3))
            eventually(lambda: running.metrics.counts[GROUPS, "failed"] == 3, "the first attempt")
            with serving(data, port=port):
                assert results(queue, [1]) == {1: [3.0, 4.0]}
            queue.put(0, 2, group_of(2, 1, 2, 3))
            assert results(queue, [2]) == {2: None}
    letters = {letter.ordinal: letter.failures for letter in queue.dead_letters()}
    assert all("INTERNAL: RewardFailed: reward 'served'" in f.message for f in letters[0])
    assert {f.message for f in letters[2]} == {
        f"reward 'server' (grpc://127.0.0.1:{port}), image 2.png (id 2): grpc://127.0.0.1:{port} "
        "gave no answer within 2.4 s (UNAVAILABLE): see whether the server runs and is reachable "
        "from here"
    }
    assert {f.kind for failures in letters.values() for f in failures} == {FailureKind.EXCEPTION}


def test_another_server_under_the_same_address_is_refused_and_no_group_suffers(
    queue: JobQueue, data: Path
) -> None:
    with serving(data) as server:
        port = server.port
        open_term(queue, custom_spec(data, f"grpc://{server.address}"))
        with working(queue, data) as running:
            running.eventually_is("ready")
            server.close()
            with serving(data, "values_by_token:is_even", port=port):
                queue.put(0, 0, group_of(0, 1, 2, 3))
                running.eventually_is("refused")
                assert "it has reward" in running.worker.message
                eventually(lambda: queue.stats().backlog == 1, "the group is given back")
                assert running.metrics.counts[RESTARTS, "unfit"] == 1
                assert not any(queue.stats().failures.values())


class _OfAnotherTask:
    def describe(self) -> Description:
        return Description(task="captioning", reward_digest="a", dataset_digest="b")

    def score(self, question: Question) -> Score:
        raise NotImplementedError


def test_a_server_of_another_task_or_of_other_data_is_refused_at_the_start(
    data: Path, tmp_path: Path
) -> None:
    complaint = "scores task 'captioning', the run's task is 'by_token'"
    with RewardServer(_OfAnotherTask()) as server, pytest.raises(ValueError, match=complaint):
        custom_spec(data, f"grpc://{server.address}")
    other = write_tiny_data(tmp_path / "other", source="other")
    complaint = "start the server with the run's training data"
    with serving(other) as server, pytest.raises(ValueError, match=complaint):
        custom_spec(data, f"grpc://{server.address}")


@pytest.mark.alone
def test_people_are_waited_for_beyond_every_deadline_and_one_can_see_it(
    data: Path, tmp_path: Path
) -> None:
    queue = MemoryJobQueue(limits=QueueLimits(lease_seconds=0.3))
    told: dict[str, Any] = {"is_human": True, "options": {"folder": str(tmp_path)}}
    with serving(data, "values_by_token:Waits", **told) as server:
        spec = custom_spec(data, f"grpc://{server.address}")
        assert spec.golden == ()
        open_term(queue, spec)
        queue.put(0, 0, group_of(0, 1, 0, 3))
        with working(queue, data, lease_seconds=0.3, deadline_seconds=0.5) as running:
            eventually((tmp_path / "asked-0").exists, "the question before people")
            eventually(
                lambda: [r.message for r in queue.workers()] == ["waiting for people to score (1)"],
                "who looks sees it",
            )
            assert running.metrics.values[(HUMAN_WAITING,)] == 1
            renewed = queue.stats().redeliveries
            # Longer than the deadline of a group, and than several leases.
            deadline_over = _after(seconds=2.0)
            eventually(deadline_over, "well beyond the deadline")
            assert queue.stats().leased == 1 and queue.stats().redeliveries == renewed == 0
            (tmp_path / "answer-0").touch()
            assert results(queue, [0]) == {0: [3.0, 4.0]}
            eventually(
                lambda: running.metrics.values[(HUMAN_WAITING,)] == 0, "nobody is waited for"
            )
            assert not any(queue.stats().failures.values())


def _after(*, seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until
