"""Where a host finds the queue: by itself, or as the driver found it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.cluster.hosts.settings import HostSettings
from rewardtune.cluster.launch import tune_on_ray
from tests.rewardtune.tiny_run import SILENT, tiny_tune

URL = "redis://learner:CANARY@127.0.0.1:1"


def told(tmp_path: Path, *, queue: str, url: str = "") -> HostSettings:
    config = tiny_tune(tmp_path / "data", tmp_path / "policy", tmp_path / "run")
    return HostSettings(config=config, queue=queue, queue_url=url, weights="", spec="")


def test_a_hosts_own_environment_goes_before_what_the_driver_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = told(tmp_path, queue="env:THE_QUEUE", url=URL)
    assert settings.queue_here == URL
    assert "CANARY" not in repr(settings)
    monkeypatch.setenv("THE_QUEUE", "redis://worker:less@127.0.0.1:1")
    assert settings.queue_here == "env:THE_QUEUE"


def test_an_address_that_says_all_is_used_as_it_is(tmp_path: Path) -> None:
    assert told(tmp_path, queue="ray://run/queue").queue_here == "ray://run/queue"


def test_a_run_that_is_built_with_a_password_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    config = tiny_tune(tmp_path / "data", tmp_path / "policy", tmp_path / "run")
    cluster = config.cluster.model_copy(update={"queue": URL})
    with pytest.raises(ValueError, match="cluster.queue holds a password") as refused:
        tune_on_ray(config.model_copy(update={"cluster": cluster}), SILENT)
    assert "CANARY" not in str(refused.value)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or "CANARY" not in path.read_text()
