"""``[security]``: what fits together, and what its files must be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rewardtune.transport.security.config import SecurityConfig
from rewardtune.transport.security.credentials import load_credentials, load_token
from tests.rewardtune.transport.certificates import Authority, write_secret


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"certificate": "a"}, "security.certificate needs security.key"),
        ({"key": "a"}, "security.key needs security.certificate"),
        ({"verify_clients": True}, "needs security.ca"),
    ],
)
def test_half_of_a_pair_is_refused(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        SecurityConfig.model_validate(given)


def test_the_environment_goes_before(tmp_path: Path) -> None:
    told = {"REWARDTUNE_TLS_CA": "/there/ca.pem", "REWARDTUNE_TOKEN_FILE": ""}
    security = SecurityConfig(ca=Path("ca.pem"), token_file=Path("token"))
    assert security.with_environment(told) == SecurityConfig(
        ca=Path("/there/ca.pem"), token_file=Path("token")
    )
    assert security.with_environment({}) is security


def test_files_that_will_not_do_are_told_in_one_line(tmp_path: Path) -> None:
    ours = Authority(tmp_path / "ours", "ours")
    one, other = ours.issue("one"), ours.issue("other")
    assert one.key is not None and one.certificate is not None
    found = load_credentials(one)
    assert found.certificate == one.certificate.read_bytes()
    assert "KEY" not in repr(found)
    text = write_secret(tmp_path / "text", "no PEM")
    open_key = write_secret(tmp_path / "open.key", one.key.read_text())
    open_key.chmod(0o644)
    encrypted = write_secret(
        tmp_path / "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    cases: dict[str, dict[str, Path | None]] = {
        "security.ca .* holds no certificate": {"ca": text},
        "security.ca .* cannot be read": {"ca": tmp_path / "nowhere"},
        "are no pair .*mismatch": {"key": other.key},
        "security.key .* chmod 600": {"key": open_key},
        "are no pair": {"key": text},
        "security.certificate .* cannot be read": {"certificate": tmp_path / "nowhere"},
        "no pair|encrypted": {"key": encrypted},
    }
    for complaint, change in cases.items():
        with pytest.raises(ValueError, match=complaint) as refused:
            load_credentials(one.model_copy(update=change))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "is empty"), ("a\nb", "several lines"), ("CANÄRY", "printable ASCII")],
)
def test_a_token_that_no_call_can_bring_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = write_secret(tmp_path / "token", text)
    with pytest.raises(ValueError, match=complaint) as refused:
        load_token(SecurityConfig(token_file=file))
    assert "CAN" not in str(refused.value)
