"""What can be said of the images and of the run they carry, where none can be built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from rewardtune.config.config_file import load_config
from tests.deploy.manifests import DEPLOY, ROOT, containers, of_kind

DOCKERFILES = sorted((DEPLOY / "images").glob("Dockerfile.*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def steps(path: Path) -> list[tuple[str, str]]:
    """Instruction and what follows, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines]


def told(path: Path, instruction: str) -> list[str]:
    return [rest for name, rest in steps(path) if name == instruction]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_made_from_a_version_and_not_from_whatever_is_newest(path: Path) -> None:
    (base,) = told(path, "FROM")
    for argument in told(path, "ARG"):
        name, value = argument.split("=")
        base = base.replace(f"${{{name}}}", value)
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_does_not_run_as_root(path: Path) -> None:
    names = [name for name, _ in steps(path)]
    assert told(path, "USER")[-1] in ("ray", "1000")
    assert "USER" not in names[:1] and "ADD" not in names


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_holds_what_the_package_is_built_from(path: Path) -> None:
    copied: set[str] = set()
    for line in told(path, "COPY"):
        *sources, target = [word for word in line.split() if not word.startswith("--")]
        assert all((ROOT / source).exists() for source in sources), line
        # A folder's content is copied into the target, which must therefore have its name.
        assert len(sources) > 1 or Path(target).name == sources[0], line
        copied |= set(sources)
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    packages = [*wheel["packages"], *wheel["force-include"]]
    assert copied == {*packages, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}


def test_each_image_installs_what_its_processes_need_at_pinned_versions() -> None:
    extras = {}
    for path in DOCKERFILES:
        (install,) = re.findall(r"pip install \"?(\S+?)\"?(?:$| )", " ".join(told(path, "RUN")))
        extras[path.suffix] = re.findall(r"\[([\w-]+)\]", install)
        assert "PIP_CONSTRAINT=" in " ".join(told(path, "ENV"))
    assert extras == {".ray": ["all"], ".reward": ["reward-worker"]}


def test_the_cluster_and_the_image_have_the_same_ray() -> None:
    pinned = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (job,) = of_kind("RayJob").values()
    (base,) = re.findall(
        r"rayproject/ray:([\d.]+)-", told(DEPLOY / "images/Dockerfile.ray", "ARG")[0]
    )
    assert [job["spec"]["rayClusterSpec"]["rayVersion"]] == pinned == [base]


def test_manifests_use_the_images_that_the_dockerfiles_say_how_to_build() -> None:
    built = set()
    for path in DOCKERFILES:
        built |= set(re.findall(r"-t (\S+)", path.read_text()))
    used = {container["image"] for _, container, _ in containers()}
    assert {image for image in used if image.startswith("rewardtune")} == built
    assert all(image.endswith(f":{PROJECT['project']['version']}") for image in built)


def test_the_run_that_is_submitted_is_one_that_the_program_takes() -> None:
    config = load_config(
        DEPLOY / "kuberay/base/run.toml",
        ["cluster.queue=env:REWARDTUNE_REDIS"],
    )
    (job,) = of_kind("RayJob").values()
    assert config.mode == "tune"
    assert config.run_name == job["metadata"]["name"]
    # Whoever scrapes is in another pod, and knows the driver by its first port.
    assert config.cluster.bind == "0.0.0.0"
    (driver,) = [d for w, d in of_kind("Service").items() if w.endswith("rewardtune-driver")]
    assert driver["spec"]["ports"][0]["port"] == config.cluster.metrics_port
    mounts = [
        m["mountPath"] for w, c, _ in containers() if "ray-head" in w for m in c["volumeMounts"]
    ]
    for path in (config.data.train, config.data.holdout, config.policy.checkpoint):
        assert any(str(path).startswith(mount) for mount in mounts)
    assert str(config.operations.directory).startswith("/runs/")
