from __future__ import annotations

import threading
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from protos.v1 import reward_pb2 as pb
from protos.v1 import reward_pb2_grpc as pb_grpc
from rewardtune.datasets.frame import Square
from rewardtune.records import Group, Published, Score, View
from rewardtune.transport.reward_service.client import RewardClient
from rewardtune.transport.reward_service.messages import (
    Description,
    Question,
    RewardRefused,
    RewardServerError,
    RewardUnavailable,
    answer,
    answer_message,
    question,
    question_message,
)
from rewardtune.transport.reward_service.server import RewardServer

DESCRIBED = Description(
    task="detection",
    reward_digest="abc",
    dataset_digest="def",
    components=("one", "two"),
    max_concurrency=1,
    is_human=True,
)


def asked(ordinal: int = 5) -> Question:
    return Question(
        group=Group(
            ordinal=ordinal,
            example=3,
            view=View(flip=True, scale=1.5),
            published=Published(term=1, policy_version=2),
            tokens_ST=np.array([[1, 2], [3, 4]], dtype=np.int32),
            log_probs_ST=np.zeros((2, 2), dtype=np.float32),
            probe_log_probs_STQ=np.zeros((2, 2, 0), dtype=np.float32),
        ),
        framing=Square(side=32),
        dataset_digest="def",
        reward_digest="abc",
        vocabulary={"task": "detection"},
        task_options={"max_boxes": 3},
    )


class _Rewards:
    """Sums tokens, or does what the test says."""

    def __init__(self, instead: Callable[[], object] = lambda: None) -> None:
        self._instead = instead

    def describe(self) -> Description:
        return DESCRIBED

    def score(self, question: Question) -> Score:
        self._instead()
        sum_S = question.group.tokens_ST.sum(axis=1).astype(np.float64)
        return Score(reward_S=sum_S, components={"one": sum_S / 2})


def raising(error: Exception) -> Callable[[], object]:
    def instead() -> None:
        raise error

    return instead


def test_a_question_comes_back_from_its_message() -> None:
    got = question(question_message(asked()))
    assert got.group.view == View(flip=True, scale=1.5)
    assert got.group.tokens_ST.tolist() == [[1, 2], [3, 4]]
    assert (got.framing, got.vocabulary, got.task_options) == (
        Square(side=32),
        {"task": "detection"},
        {"max_boxes": 3},
    )


def test_a_question_without_a_size_is_refused() -> None:
    message = question_message(asked())
    message.input_size = 0
    with pytest.raises(ValueError, match="input_size is 0: it must be the side of a square"):
        question(message)


def test_an_answer_about_another_group_is_refused() -> None:
    message = answer_message(4, Score(reward_S=np.zeros(1)))
    with pytest.raises(ValueError, match="answered about group 4, asked about 5"):
        answer(message, ordinal=5)


def test_a_server_describes_and_scores() -> None:
    with RewardServer(_Rewards()) as server:
        client = RewardClient(server.address)
        assert client.describe() == DESCRIBED
        score = client.score(asked(), patience_seconds=20)
        client.close()
    assert score.reward_S.tolist() == [3, 7]
    assert score.components["one"].tolist() == [1.5, 3.5]


@pytest.mark.parametrize(
    ("raised", "error", "complaint"),
    [
        (KeyError("x\ny"), RewardServerError, r"INTERNAL: KeyError: 'x\\ny'"),
        (RewardRefused("other data"), RewardRefused, "refuses: other data"),
    ],
)
def test_what_goes_wrong_in_a_server_is_told(
    raised: Exception, error: type[Exception], complaint: str
) -> None:
    with RewardServer(_Rewards(raising(raised))) as server:
        client = RewardClient(server.address)
        with pytest.raises(error, match=complaint):
            client.score(asked(), patience_seconds=20)
        client.close()


def test_a_message_that_is_no_question_is_an_invalid_argument() -> None:
    with (
        RewardServer(_Rewards()) as server,
        grpc.insecure_channel(server.address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        pb_grpc.RewardStub(channel).Score(pb.ScoreRequest(vocabulary="["), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_nobody_there_is_given_up_after_the_patience() -> None:
    with RewardServer(_Rewards()) as server:
        address = server.address
    client = RewardClient(address)
    complaint = rf"grpc://{address} gave no answer within 0.5 s \(UNAVAILABLE\)"
    with pytest.raises(RewardUnavailable, match=complaint):
        client.score(asked(), patience_seconds=0.5)
    client.close()


def test_a_server_that_hangs_is_given_up_after_the_patience() -> None:
    over = threading.Event()
    with RewardServer(_Rewards(over.wait)) as server:
        client = RewardClient(server.address)
        with pytest.raises(RewardUnavailable, match=r"within 0.5 s \(DEADLINE_EXCEEDED\)"):
            client.score(asked(), patience_seconds=0.5)
        client.close()
        over.set()


def test_a_full_server_is_asked_again_and_describes_all_the_same() -> None:
    begun, over = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        over.wait()

    with RewardServer(_Rewards(wait), max_concurrency=1) as server:
        client = RewardClient(server.address)
        found: list[Score] = []

        def ask() -> None:
            found.append(client.score(asked(), patience_seconds=None))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        assert begun.wait(20)
        with pytest.raises(RewardUnavailable, match="RESOURCE_EXHAUSTED"):
            client.score(asked(), patience_seconds=0.3)
        assert client.describe() == DESCRIBED
        threads[1].start()
        over.set()
        for thread in threads:
            thread.join(20)
        client.close()
    assert [score.reward_S.tolist() for score in found] == [[3, 7], [3, 7]]


def test_a_port_that_is_taken_is_an_error() -> None:
    with (
        RewardServer(_Rewards()) as server,
        pytest.raises(OSError, match="cannot listen on 127.0.0.1"),
    ):
        RewardServer(_Rewards(), port=server.port)
