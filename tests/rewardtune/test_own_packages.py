"""A user's folder or file named like a package of ours: one line says so, in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from rewardtune import own_packages
from rewardtune.own_packages import NAMES, HiddenPackageError, check_packages

ROOT = Path(own_packages.ROOT)

COMMANDS = {
    "console script": [str(Path(sys.executable).with_name("rewardtune")), "--help"],
    "python -m rewardtune": [sys.executable, "-P", "-m", "rewardtune", "--help"],
    "import rewardtune": [sys.executable, "-P", "-c", "import rewardtune"],
    "reward worker": [
        *(str(Path(sys.executable).with_name("rewardtune")), "reward-worker"),
        *("--redis", "redis://127.0.0.1:1", "--run", "mine", "--data", "data"),
    ],
}
# As reward_workers/child.py starts it. Where 'reward_workers' itself is hidden nothing of ours
# would run, but the worker, which looks through the same path, does not come so far.
SCORER = [sys.executable, "-P", "-u", "-m", "reward_workers.scorer"]


def hide(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    return folder / name


def path_of(folder: Path) -> str:
    return f"{folder}{os.pathsep}{ROOT}"


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """With the user's folder first on the path."""
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path_of(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def line(place: Path, name: str) -> str:
    return (
        f"{place} hides the package '{name}' of rewardtune ({ROOT / name}): rename it, or take "
        f"{place.parent} off PYTHONPATH and do not start there"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_with_one_line(command: str, name: str, tmp_path: Path) -> None:
    place = hide(tmp_path, name)
    done = run(COMMANDS[command], tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"error: {line(place, name)}\n"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "reward_workers"])
def test_so_does_a_reward_workers_scorer(name: str, tmp_path: Path) -> None:
    place = hide(tmp_path, name)
    done = run(SCORER, tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: {line(place, name)}\n"


# A driver of its own: what Ray's workers look through first is the driver's current folder, and
# for the tests that is the clone. Every actor gets another path, as on another machine.
DRIVER = """
import json, sys
import ray
from rewardtune.cluster import ray_cluster
from rewardtune.cluster.hosts.kinds import HostKind
from rewardtune.cluster.hosts.reward_worker import RewardWorkerHost
from rewardtune.transport.telemetry.metric_table import Role

address, paths = sys.argv[1], json.loads(sys.argv[2])
ray.init(address, namespace="own-packages", log_to_driver=False, configure_logging=False)
kind = HostKind(Role.REWARD_WORKER, RewardWorkerHost)
cluster, calls, said = ray_cluster.RayCluster(), {}, {}
for name, path in paths.items():
    ray_cluster._environment = lambda: {"PYTHONPATH": path}
    host = cluster.start(name, kind, "{}", num_cpus=0, num_gpus=0)
    calls[name] = host.call(RewardWorkerHost.begin)
for name, call in calls.items():
    while not cluster.wait([call], timeout_seconds=60):
        pass
    try:
        call.result()
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def test_what_the_driver_reports_of_a_ray_actor_is_the_line(
    tmp_path: Path, ray_session: None
) -> None:
    places = {}
    for name in NAMES:
        (folder := tmp_path / f"hides_{name}").mkdir()
        places[name] = hide(folder, name)
    paths = {name: path_of(place.parent) for name, place in places.items()}
    (elsewhere := tmp_path / "elsewhere").mkdir()
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRIVER, address, json.dumps(paths)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    kind = "ServiceDied: rewardtune.own_packages.HiddenPackageError"
    assert said == {name: f"{kind}: {line(places[name], name)}" for name in NAMES}


def test_a_file_hides_a_package_too(tmp_path: Path) -> None:
    (tmp_path / "learner.py").touch()
    done = run(COMMANDS["import rewardtune"], tmp_path)
    assert done.stderr == f"error: {line(tmp_path / 'learner.py', 'learner')}\n"


def test_a_folder_that_is_no_package_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "learner").mkdir()
    done = run(COMMANDS["import rewardtune"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_nor_does_a_link_to_ours(tmp_path: Path) -> None:
    (tmp_path / "learner").symlink_to(ROOT / "learner")
    done = run(COMMANDS["import rewardtune"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_installation_of_links_is_one_of_ours(tmp_path: Path) -> None:
    """Some installers make every file of a package a link to their cache."""
    site = tmp_path / "site"
    for name in ("rewardtune", *NAMES):
        (site / name).mkdir(parents=True)
        for file in (ROOT / name).glob("*.py"):
            (site / name / file.name).symlink_to(file)
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import rewardtune; print(rewardtune.__file__)"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{site}/rewardtune/__init__.py\n", "")


def test_what_was_imported_before_hides_a_package_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = hide(tmp_path, "learner")
    monkeypatch.delitem(sys.modules, "learner", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = sys.excepthook
    with pytest.raises(HiddenPackageError, match=f"{place} hides the package 'learner'"):
        check_packages()
    monkeypatch.setattr(sys, "excepthook", before)


def test_the_line_is_for_people_only_where_nobody_catches_it(tmp_path: Path) -> None:
    hide(tmp_path, "protos")
    program = "try:\n import rewardtune\nexcept ImportError as error:\n print('caught')\n1 / 0"
    done = run([sys.executable, "-P", "-c", program], tmp_path)
    assert done.stdout == "caught\n"
    assert "ZeroDivisionError" in done.stderr and "hides" not in done.stderr
