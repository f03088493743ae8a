"""Control behind TLS and a bearer token, over a real server and client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from protos.v1 import control_pb2 as pb
from protos.v1.control_pb2_grpc import ControlStub
from rewardtune.cluster.control.client import ControlClient, Refused
from rewardtune.cluster.control.record import DRIVER_NAME, read_driver_record
from rewardtune.cluster.control.server import ControlServer
from rewardtune.transport.security.config import VARIABLES, SecurityConfig
from tests.rewardtune.steered import STATUS, FakeDriver
from tests.rewardtune.transport.certificates import Authority, write_secret


@dataclass(frozen=True, slots=True)
class Guarded:
    run: Path
    address: str
    security: SecurityConfig
    driver: FakeDriver
    other_ca: Path
    other_token: Path


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    token = write_secret(tmp_path / "token", "CANARY-of-the-run")
    security = ours.issue("driver").model_copy(update={"token_file": token})
    driver, run = FakeDriver(), tmp_path / "run"
    driver.now = dict(STATUS)
    with ControlServer(driver, directory=run, host="127.0.0.1", security=security) as server:
        yield Guarded(
            run,
            server.record.address,
            security,
            driver,
            theirs.ca,
            write_secret(tmp_path / "other-token", "CANARY-of-another"),
        )


def test_the_run_directory_tells_how_to_call_it(guarded: Guarded) -> None:
    with ControlClient.of_run(guarded.run) as client:
        assert client.status()["step"] == STATUS["step"]
        client.drain()
    assert guarded.driver.told == ["drain"]
    record = (guarded.run / DRIVER_NAME).read_text()
    assert json.loads(record)["security"]["ca"] == str(guarded.security.ca)
    assert "CANARY" not in record


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ("token_file", "refuses the token"),
        ("ca", "must have signed its certificate"),
    ],
)
def test_another_token_or_authority_is_refused_in_one_line(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, field: str, complaint: str
) -> None:
    others = {"token_file": guarded.other_token, "ca": guarded.other_ca}
    monkeypatch.setenv(VARIABLES[field], str(others[field]))
    with ControlClient.of_run(guarded.run) as client, pytest.raises(Refused) as refused:
        client.drain()
    assert complaint in str(refused.value) and VARIABLES[field] in str(refused.value)
    assert "\n" not in str(refused.value) and "CANARY" not in str(refused.value)
    assert guarded.driver.told == []


def test_a_file_that_this_machine_lacks_is_told(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLES["token_file"], "/not/there")
    with pytest.raises(Refused, match=r"token_file /not/there cannot be read .* say where"):
        ControlClient.of_run(guarded.run)


@pytest.mark.parametrize("brings", ["key", "token", "nothing"])
def test_neither_the_key_nor_the_token_is_enough_alone(guarded: Guarded, brings: str) -> None:
    key = read_driver_record(guarded.run).key
    metadata = {
        "key": (("authorization", f"Bearer {key}"), ("x-rewardtune-key", key)),
        "token": (("authorization", "Bearer CANARY-of-the-run"),),
        "nothing": (),
    }[brings]
    assert guarded.security.ca is not None
    credentials = grpc.ssl_channel_credentials(guarded.security.ca.read_bytes())
    with (
        grpc.secure_channel(guarded.address, credentials) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        ControlStub(channel).Drain(pb.DrainRequest(), metadata=metadata, timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert guarded.driver.told == []


def test_nobody_is_answered_in_the_clear(guarded: Guarded) -> None:
    with (
        grpc.insecure_channel(guarded.address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        ControlStub(channel).Status(pb.StatusRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
