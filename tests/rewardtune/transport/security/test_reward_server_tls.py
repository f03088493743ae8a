"""A reward server behind TLS and a bearer token: who is answered, and what others are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rewardtune.records import Score
from rewardtune.transport.reward_service.client import RewardClient
from rewardtune.transport.reward_service.messages import (
    Description,
    Question,
    RewardServerError,
    RewardUnavailable,
)
from rewardtune.transport.reward_service.server import RewardServer
from rewardtune.transport.security.config import SecurityConfig
from tests.rewardtune.transport.certificates import Authority, write_secret

DESCRIBED = Description(task="detection", reward_digest="a", dataset_digest="b")


class _Rewards:
    def describe(self) -> Description:
        return DESCRIBED

    def score(self, question: Question) -> Score:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Guarded:
    address: str
    fitting: SecurityConfig
    other_ca: SecurityConfig
    other_token: SecurityConfig


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ours, theirs = Authority(folder / "ours", "ours"), Authority(folder / "theirs", "theirs")
    token = write_secret(folder / "token", "CANARY-of-the-run\n")
    other = write_secret(folder / "other-token", "CANARY-of-another\n")
    own = ours.issue("server").model_copy(update={"token_file": token})
    with RewardServer(_Rewards(), security=own) as server:
        assert server.url == f"grpcs://{server.address}"
        fitting = SecurityConfig(ca=ours.ca, token_file=token)
        yield Guarded(
            server.address,
            fitting,
            fitting.model_copy(update={"ca": theirs.ca}),
            fitting.model_copy(update={"token_file": other}),
        )


def describe(guarded: Guarded, security: SecurityConfig | None) -> Description:
    client = RewardClient(guarded.address, security)
    try:
        return client.describe(patience_seconds=20)
    finally:
        client.close()


def test_who_believes_the_server_and_brings_its_token_is_answered(guarded: Guarded) -> None:
    assert describe(guarded, guarded.fitting) == DESCRIBED


@pytest.mark.parametrize(
    ("who", "complaint"),
    [
        ("other token", r"refuses the call .* set security\.token_file"),
        ("no token", r"refuses the call .* set security\.token_file"),
        ("other ca", r"no TLS comes about .* must have signed its certificate"),
        ("in the clear", ""),
    ],
)
def test_others_are_refused_at_once_in_one_line(guarded: Guarded, who: str, complaint: str) -> None:
    security = {
        "other token": guarded.other_token,
        "no token": SecurityConfig(ca=guarded.fitting.ca),
        "other ca": guarded.other_ca,
        "in the clear": None,
    }[who]
    if security is None:
        client = RewardClient(guarded.address)
        with pytest.raises((RewardServerError, ConnectionError)) as refused:
            client.describe(patience_seconds=0.5)
        client.close()
    else:
        with pytest.raises(RewardServerError, match=complaint) as refused:
            describe(guarded, security)
    assert "\n" not in str(refused.value) and "CANARY" not in str(refused.value)


def test_a_server_that_verifies_clients_answers_those_of_its_authority(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    # A pod's address stands in no certificate: the name does.
    own = ours.issue("server", host="rewards").model_copy(update={"verify_clients": True})
    known, stranger = ours.issue("worker"), theirs.issue("stranger")
    with RewardServer(_Rewards(), security=own) as server:

        def called_by(security: SecurityConfig) -> Description:
            named = security.model_copy(update={"ca": ours.ca, "server_name": "rewards"})
            client = RewardClient(server.address, named)
            try:
                return client.describe(patience_seconds=0.5)
            finally:
                client.close()

        assert called_by(known) == DESCRIBED
        for who in (SecurityConfig(), stranger):
            with pytest.raises(RewardUnavailable, match=r"takes security\.certificate"):
                called_by(who)


def test_a_token_is_not_asked_for_in_the_clear(tmp_path: Path) -> None:
    token = write_secret(tmp_path / "token", "CANARY")
    with pytest.raises(ValueError, match=r"security\.token_file needs security\.certificate"):
        RewardServer(_Rewards(), security=SecurityConfig(token_file=token))
