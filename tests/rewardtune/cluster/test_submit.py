"""A run as a job of a real Ray cluster with a dashboard: submitted, stopped, submitted again."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardtune.cluster.control.client import ControlClient
from rewardtune.cluster.control.record import NotLive
from rewardtune.cluster.job_bundle import (
    CODE_FOLDER,
    MAX_BYTES,
    RUN_FILE,
    entrypoint,
    environment,
    write_bundle,
)
from rewardtune.cluster.submit import Cluster, ClusterAway
from rewardtune.config.run_config import ConfigError
from rewardtune.run.local import pretrain
from rewardtune.run.summary import summarise
from tests.rewardtune.live_job import answers, live_client, wait_until
from tests.rewardtune.ray_head import free_port, ray_head
from tests.rewardtune.small_job import small_job
from tests.rewardtune.tiny_run import SILENT, tiny_config, write_tiny_digits

pytestmark = pytest.mark.slow

OWN_TASK = """
from my_fee import FEE
from rewardtune.records import Score
from rewardtune.tasks.detection.task import DetectionTask


class TASK(DetectionTask):
    def score(self, decoded, framed):
        scored = super().score(decoded, framed)
        reward_S = scored.reward_S - FEE * scored.components["boxes"]
        return Score(reward_S=reward_S, components=scored.components, aux=scored.aux)
"""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    with ray_head(has_dashboard=True) as head:
        wait_until(lambda: answers(f"{head.dashboard}/api/version"), head.log.read_text)
        yield head.dashboard


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a run whose task is a module of the user's, which imports another one."""
    folder = tmp_path_factory.mktemp("mine")
    data = write_tiny_digits(folder / "digits")
    policy = pretrain(tiny_config(data, folder / "mle"), SILENT).policy_path
    (folder / "my_boxes.py").write_text(OWN_TASK)
    (folder / "my_fee.py").write_text("FEE = 0.25\n")
    path = folder / "mine.toml"
    path.write_text(small_job(data, policy, num_steps=40, task="my_boxes"))
    sys.path.append(str(folder))
    yield path
    sys.path.remove(str(folder))


def test_a_job_is_submitted_stopped_and_submitted_again(
    dashboard: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    cluster, directory = Cluster.at(dashboard), config.parent / "runs" / "mine"
    job = cluster.submit(config, [])
    assert job == "mine-1"

    client = live_client(directory)
    wait_until(lambda: client.status()["step"] >= 3)
    client.pause()
    wait_until(lambda: client.status()["state"] == "paused")
    status = client.status()
    assert status["services"][0]["kind"] == "learner" and status["services"][0]["pid"] > 0
    assert client.explain(0)["whereabouts"] == "trained"
    assert client.explain(39 * 4)["whereabouts"] == "not_due"
    assert client.scale_reward_workers(2) == 1
    wait_until(lambda: len(client.status()["reward_workers"]) == 2)
    assert all(worker["is_in_ray"] for worker in client.status()["reward_workers"])
    with pytest.raises(ConfigError, match=f"job mine-1 drives {directory} already"):
        cluster.submit(config, [])

    ended = cluster.stop(job)
    assert cluster.follow(job, write=lambda text: None) == 0
    with pytest.raises(NotLive, match="no driver.json"):
        ControlClient.of_run(directory)
    stopped_at = summarise(directory).checkpoint_step
    assert stopped_at is not None and 3 <= stopped_at < 40
    assert ended == f"stopped; the run is drained at step {stopped_at} of 40"

    job = cluster.submit(config, [])
    assert job == "mine-2"
    log: list[str] = []
    assert cluster.follow(job, write=log.append) == 0
    assert f"continuing {directory} at step {stopped_at} of 40" in "".join(log)
    assert summarise(directory).is_finished


def test_a_job_ends_as_its_driver_does(
    dashboard: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    cluster = Cluster.at(dashboard)
    log: list[str] = []
    job = cluster.submit(config, ["data.train=nowhere", "operations.directory=runs/other name"])
    assert job == "other-name-1"
    assert cluster.follow(job, write=log.append) == 2
    assert "error: " in "".join(log) and "nowhere" in "".join(log)


def test_a_job_that_nobody_knows_is_one_line(dashboard: str) -> None:
    cluster = Cluster.at(dashboard)
    with pytest.raises(ValueError, match="knows no such job"):
        cluster.follow("nobody", write=print)
    with pytest.raises(ValueError, match="knows no such job"):
        cluster.stop("nobody")


def test_an_address_where_nothing_listens_is_one_line() -> None:
    with pytest.raises(ClusterAway, match="no Ray dashboard answers at") as error:
        Cluster.at(f"http://127.0.0.1:{free_port()}")
    assert "\n" not in str(error.value)


def test_a_bundle_holds_the_run_and_the_users_modules_and_no_more(
    config: Path, tmp_path: Path
) -> None:
    from rewardtune.config.config_file import load_config

    write_bundle(tmp_path, config, load_config(config), working_dir=None)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {RUN_FILE, f"{CODE_FOLDER}/my_boxes.py", f"{CODE_FOLDER}/my_fee.py"}


def test_a_working_dir_travels_without_what_is_no_code(config: Path, tmp_path: Path) -> None:
    from rewardtune.config.config_file import load_config

    source, bundle = tmp_path / "source", tmp_path / "bundle"
    for name in ("tasks/a.py", ".git/objects", "runs/x/policy", "data/shard", "b.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("text")
    bundle.mkdir()
    write_bundle(bundle, config, load_config(config), working_dir=source)
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert {name for name in found if "rewardtune_job" not in name} == {"tasks/a.py", "b.py"}


def test_a_working_dir_that_is_too_large_is_refused(config: Path, tmp_path: Path) -> None:
    from rewardtune.config.config_file import load_config

    with (tmp_path / "weights").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="has 100 MiB without .git, .venv, runs, data"):
        write_bundle(tmp_path / "bundle", config, load_config(config), working_dir=tmp_path)


def test_the_command_names_absolute_paths_and_survives_a_shell(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rewardtune.config.config_file import load_config

    monkeypatch.chdir(tmp_path)
    overrides = ["learner.num_steps=7", "operations.directory=runs/a 'b' $c"]
    command = entrypoint(load_config(config, overrides), overrides)
    assert command.startswith("exec python ")
    command = command.removeprefix("exec ")  # of which no shell makes a function
    shell = f"python() {{ printf '%s\\n' \"$@\"; }}; {command}"
    told = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    words = told.splitlines()
    assert words[:6] == ["-m", "rewardtune", "tune", RUN_FILE, "--address", "auto"]
    given = [word for before, word in itertools.pairwise(words) if before == "--set"]
    there = load_config(config, given)
    assert there.learner.num_steps == 7
    assert there.operations.directory == tmp_path / "runs" / "a 'b' $c"


def test_a_job_gets_time_for_its_checkpoint_and_our_settings() -> None:
    given = environment({"HF_HUB_OFFLINE": "1", "SECRET": "no"})
    assert int(given["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60
    assert (given["OMP_WAIT_POLICY"], given["HF_HUB_OFFLINE"]) == ("passive", "1")
    assert "SECRET" not in given


@pytest.mark.parametrize("has_own", [True, False])
def test_modules_of_the_users_come_last(tmp_path: Path, has_own: bool) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "mine.py").write_text("")
    program = "import rewardtune, rewardtune.tasks.task, json, mine"
    own = {"REWARDTUNE_CODE": str(tmp_path)} if has_own else {}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if has_own else 1), done.stderr
    assert has_own or "No module named 'mine'" in done.stderr
