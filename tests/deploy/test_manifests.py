"""What an API server and the operators would refuse, and what would only fail later."""

from __future__ import annotations

import copy
import inspect
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from deploy.promql import problems
from reward_workers.config import RewardWorkerConfig
from rewardtune.cli.operator import add_operator_commands
from rewardtune.cli.reward_worker import reward_worker
from rewardtune.config.config_file import load_config
from tests.deploy.manifests import (
    DEPLOY,
    SCHEMAS,
    amount,
    containers,
    documents,
    errors,
    of_kind,
    pod_specs,
    validators,
)

OWN_KINDS = ("RayJob", "ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule")
DOCUMENTS = documents()
REWARD = "reward/base/deployment.yaml:Deployment:rewardtune-reward"

needs_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason=f"the schemas are not at {SCHEMAS}")


def custom(kind: str) -> dict[str, Any]:
    return next(iter(of_kind(kind).values()))


def only(kind: str, name: str) -> dict[str, Any]:
    (found,) = [d for d in of_kind(kind).values() if d["metadata"]["name"] == name]
    return found


# Kinds that operators define.


@needs_schemas
@pytest.mark.parametrize("kind", OWN_KINDS)
def test_documents_of_operators_fit_their_schemas(kind: str) -> None:
    found = of_kind(kind)
    assert found
    for where, document in found.items():
        assert errors(document) == [], where


def _misspelt_worker_field(job: dict[str, Any]) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1


def _no_group_name(job: dict[str, Any]) -> None:
    del job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]


def _number_as_text(job: dict[str, Any]) -> None:
    job["spec"]["backoffLimit"] = "3"


def _bad_quantity(job: dict[str, Any]) -> None:
    container = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"]["memory"] = "8Gx"


def _no_trigger_type(scaled: dict[str, Any]) -> None:
    del scaled["spec"]["triggers"][0]["type"]


def _misspelt_minimum(scaled: dict[str, Any]) -> None:
    scaled["spec"]["minReplicas"] = 1


def _misspelt_reference(authentication: dict[str, Any]) -> None:
    authentication["spec"]["secretTargetRefs"] = authentication["spec"].pop("secretTargetRef")


def _misspelt_endpoint(monitor: dict[str, Any]) -> None:
    monitor["spec"]["podMetricsEndpoints"][0]["scrapeInterval"] = "15s"


def _bad_duration(monitor: dict[str, Any]) -> None:
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "15 seconds"


def _alert_without_expression(rules: dict[str, Any]) -> None:
    del rules["spec"]["groups"][0]["rules"][0]["expr"]


@needs_schemas
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("RayJob", _misspelt_worker_field),
        ("RayJob", _no_group_name),
        ("RayJob", _number_as_text),
        ("RayJob", _bad_quantity),
        ("ScaledObject", _no_trigger_type),
        ("ScaledObject", _misspelt_minimum),
        ("TriggerAuthentication", _misspelt_reference),
        ("PodMonitor", _misspelt_endpoint),
        ("PodMonitor", _bad_duration),
        ("PrometheusRule", _alert_without_expression),
    ],
)
def test_a_damaged_document_does_not_fit(
    kind: str, damage: Callable[[dict[str, Any]], None]
) -> None:
    document = copy.deepcopy(custom(kind))
    damage(document)
    assert errors(document) != []


@needs_schemas
def test_every_kind_is_checked_by_a_schema_or_by_the_tests_below() -> None:
    built_in = {
        "Deployment",
        "StatefulSet",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Kustomization",
        "ScrapeConfig",
    }
    kinds = {kind for _, kind in validators()}
    assert {document["kind"] for document in DOCUMENTS.values()} <= kinds | built_in


# What only KubeRay's code checks.


def test_the_ray_job_keeps_the_rules_of_kuberays_own_code() -> None:
    spec = custom("RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    assert "clusterSelector" not in spec
    assert spec["shutdownAfterJobFinishes"] is True  # which ttlSecondsAfterFinished needs
    assert spec["backoffLimit"] >= 1
    assert "deletionStrategy" not in spec
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"]["mode"] == "token"
    major, minor, _ = map(int, cluster["rayVersion"].split("."))
    assert (major, minor) >= (2, 52)  # which token mode needs
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert "num-cpus" not in group["rayStartParams"] or "resources" not in group
    for where, pod in pod_specs():
        if ":RayJob:" in where:
            assert pod.get("restartPolicy", "Never") == "Never"
            assert "RAY_enable_autoscaler_v2" not in str(pod)


def test_the_ray_job_does_what_operators_need() -> None:
    spec = custom("RayJob")["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert spec["submissionMode"] == "HTTPMode"
    entrypoint = "exec python -m rewardtune tune /config/run.toml --address auto --as-job"
    assert spec["entrypoint"].startswith(entrypoint)
    assert head["rayStartParams"]["num-cpus"] == "0"
    environment = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    wait = int(environment["RAY_JOB_STOP_WAIT_TIME_S"])
    assert 3 < wait <= head["template"]["spec"]["terminationGracePeriodSeconds"]
    assert all(isinstance(value, str) for value in environment.values())


def test_the_head_drains_its_run_before_it_goes() -> None:
    head = custom("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = head["containers"]
    shell, option, line = container["lifecycle"]["preStop"]["exec"]["command"]
    program = "python -m rewardtune "
    assert (shell, option) == ("/bin/sh", "-c") and line.startswith(program)
    assert line.endswith(" || true")
    words = line.removeprefix(program).removesuffix(" || true").split()
    app = typer.Typer()
    add_operator_commands(app)
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    told = command.make_context("drain", words[1:]).params
    run = load_config(DEPLOY / "kuberay/base/run.toml", ["cluster.queue=redis://h:1"])
    assert told == {"run": str(run.operations.directory), "wait": True, "for_restart": True}


def test_the_operators_scrape_config_asks_where_prometheus_would() -> None:
    plain = yaml.safe_load((DEPLOY / "monitoring/prometheus.yml").read_text())
    (job,) = plain["scrape_configs"]
    config = custom("ScrapeConfig")
    assert config["apiVersion"] == "monitoring.coreos.com/v1alpha1"
    assert config["spec"] == {
        "scrapeInterval": plain["global"]["scrape_interval"],
        "httpSDConfigs": [
            {"url": each["url"], "refreshInterval": each["refresh_interval"]}
            for each in job["http_sd_configs"]
        ],
    }
    port = only("Service", "rewardtune-driver")["spec"]["ports"][0]["port"]
    assert config["spec"]["httpSDConfigs"][0]["url"] == f"http://rewardtune-driver:{port}/sd"


def test_ray_groups_ask_for_whole_cores() -> None:
    for where, container, _ in containers():
        if ":RayJob:" in where:
            assert re.fullmatch(r"\d+", container["resources"]["requests"]["cpu"]), where


# Built-in kinds.


def test_selectors_find_the_pods_of_their_template() -> None:
    for kind in ("Deployment", "StatefulSet"):
        for where, document in of_kind(kind).items():
            labels = document["spec"]["template"]["metadata"]["labels"]
            wanted = document["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= labels.items(), where


def _pod_labels() -> list[dict[str, str]]:
    found = [
        document["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for document in of_kind(kind).values()
    ]
    head = custom("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    # KubeRay adds the node type.
    return [*found, head["metadata"]["labels"] | {"ray.io/node-type": "head"}]


def test_whatever_selects_pods_finds_some() -> None:
    selectors = {
        **{w: d["spec"]["selector"] for w, d in of_kind("Service").items()},
        **{w: d["spec"]["selector"]["matchLabels"] for w, d in of_kind("PodMonitor").items()},
        **{
            w: d["spec"]["selector"]["matchLabels"]
            for w, d in of_kind("PodDisruptionBudget").items()
        },
        **{w: d["spec"]["podSelector"]["matchLabels"] for w, d in of_kind("NetworkPolicy").items()},
    }
    assert len(selectors) >= 7
    for where, wanted in selectors.items():
        assert any(wanted.items() <= labels.items() for labels in _pod_labels()), where


def test_ports_that_are_named_exist() -> None:
    named = {
        port["name"] for _, container, _ in containers() for port in container.get("ports", [])
    }
    for where, document in of_kind("Service").items():
        for port in document["spec"]["ports"]:
            assert port["targetPort"] in named, where
    for where, document in of_kind("PodMonitor").items():
        for endpoint in document["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in named, where
    for document in of_kind("NetworkPolicy").values():
        for rule in document["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= named


def test_probes_ask_ports_of_their_container() -> None:
    num_probes = 0
    for where, container, _ in containers():
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for name in ("readinessProbe", "livenessProbe", "startupProbe"):
            for how in ("grpc", "tcpSocket", "httpGet"):
                port = container.get(name, {}).get(how, {}).get("port")
                if port is not None:
                    num_probes += 1
                    assert port in ports or port in ports.values(), where
                    assert how != "grpc" or isinstance(port, int), f"{where}: grpc takes a number"
    # Redis is asked by a command: tests/deploy/test_redis_kit.py runs it.
    assert num_probes >= 2


def test_requests_are_at_most_limits_and_memory_has_both() -> None:
    for where, container, _ in containers():
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests), where
        assert "memory" in limits, where
        for name, limit in limits.items():
            assert amount(requests[name]) <= amount(limit), f"{where}: {name}"


def test_nobody_is_root_and_nobody_becomes_it() -> None:
    for where, container, pod in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, where
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], where
        if ":RayJob:" not in where:  # Ray writes into its image
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where


def test_images_are_pinned() -> None:
    for where, container, _ in containers():
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]*", container["image"]), where


def test_mounts_have_volumes_and_volumes_are_mounted() -> None:
    for where, pod in pod_specs():
        document = DOCUMENTS[":".join(where.split(":")[:3])]
        claims = document["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounted = {
            mount["name"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]
            for mount in container.get("volumeMounts", [])
        }
        assert mounted == volumes, where


def test_config_maps_claims_and_services_that_are_referred_to_exist() -> None:
    maps = {
        generated["name"]
        for document in of_kind("Kustomization").values()
        for generated in document.get("configMapGenerator", [])
    }
    claims = {d["metadata"]["name"] for d in of_kind("PersistentVolumeClaim").values()}
    services = {d["metadata"]["name"] for d in of_kind("Service").values()}
    for where, pod in pod_specs():
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps, where
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, where
    for where, container, _ in containers():
        for variable in container.get("env", []):
            for host in re.findall(r"@([\w-]+):\d+", variable.get("value", "")):
                assert host in services, where
    for document in of_kind("StatefulSet").values():
        assert document["spec"]["serviceName"] in services


def test_variables_are_defined_before_they_are_used() -> None:
    for where, container, _ in containers():
        defined: set[str] = set()
        for variable in container.get("env", []):
            used = set(re.findall(r"\$\((\w+)\)", variable.get("value", "")))
            assert used <= defined, where
            defined.add(variable["name"])
        for argument in container.get("command", []):
            assert set(re.findall(r"\$\((\w+)\)", argument)) <= defined, where


def test_secrets_are_named_once_and_in_the_guide() -> None:
    guide = (DEPLOY / "README.md").read_text()
    for where, container, _ in containers():
        for variable in container.get("env", []):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret is not None:
                assert secret["name"] in guide and f"{secret['key']}=" in guide, where


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("kustomization.yaml")), ids=str)
def test_a_kustomization_names_files_that_are_there(path: Path) -> None:
    kustomization = yaml.safe_load(path.read_text())
    files = [file for each in kustomization.get("configMapGenerator", []) for file in each["files"]]
    for name in [*kustomization["resources"], *files]:
        assert (path.parent / name).exists(), name


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ["kuberay/base", "reward/base", "reward/overlays/keda", "redis"])
def test_kustomize_builds_it(folder: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / folder)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    found = {document["kind"]: document for document in yaml.safe_load_all(built.stdout)}
    if folder == "reward/overlays/keda":
        assert "replicas" not in found["Deployment"]["spec"]
    if folder == "redis":
        # The name of a generated ConfigMap holds its content's hash: a change restarts Redis.
        config = found["ConfigMap"]["metadata"]["name"]
        assert config != "rewardtune-redis" and config in str(found["StatefulSet"])


# The reward workers' Deployment against the program.


def _reward_container() -> dict[str, Any]:
    (container,) = DOCUMENTS[REWARD]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def _command() -> Any:
    app = typer.Typer()
    app.command("reward-worker")(reward_worker)
    return typer.main.get_command(app)


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command would be called with. Exits if it would refuse."""
    context = _command().make_context("reward-worker", arguments)
    found: dict[str, Any] = context.params
    return found


def test_the_reward_workers_command_is_one_that_the_program_takes() -> None:
    container = _reward_container()
    program, command, *arguments = container["command"]
    assert (program, command) == ("rewardtune", "reward-worker")
    told = _parsed(arguments)
    assert set(told) <= set(inspect.signature(reward_worker).parameters)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert (told["metrics_port"], told["health_port"]) == (ports["metrics"], ports["health"])
    assert told["host"] == "0.0.0.0"
    assert str(told["data"]).startswith(container["volumeMounts"][0]["mountPath"])
    assert told["run"] == DOCUMENTS[REWARD]["metadata"]["labels"]["app.kubernetes.io/instance"]


def test_the_workers_are_told_what_the_run_is_told() -> None:
    _, _, *arguments = _reward_container()["command"]
    told = _parsed(arguments)
    run = load_config(DEPLOY / "kuberay/base/run.toml", ["cluster.queue=redis://h:1"])
    assert told["threads"] == run.reward_workers.threads
    assert told["lease_seconds"] == run.cluster.lease_seconds
    assert told["data"] == run.data.train


def test_a_flag_that_the_program_does_not_know_is_noticed() -> None:
    _, _, *arguments = _reward_container()["command"]
    with pytest.raises(Exception, match="No such option: --scorer"):
        _parsed([*arguments, "--scorer", "2"])


def test_a_pod_lives_long_enough_to_drain() -> None:
    pod = DOCUMENTS[REWARD]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 2 * RewardWorkerConfig().drain_seconds


def test_what_the_worker_writes_goes_where_it_may_write() -> None:
    container = _reward_container()
    writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
    for variable in ("HOME", "NUMBA_CACHE_DIR"):
        (value,) = [v["value"] for v in container["env"] if v["name"] == variable]
        assert any(value.startswith(path) for path in writable)


# Scaling.


def test_the_pool_scales_on_figures_that_the_driver_reports() -> None:
    scaled = custom("ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    assert problems(trigger["metadata"]["query"]) == []
    assert "rewardtune_reward_backlog" in trigger["metadata"]["query"]
    assert problems(trigger["metadata"]["query"].replace("reward_backlog", "backlog")) != []
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]
    assert trigger["metricType"] == "AverageValue"  # which fallback needs
    assert scaled["scaleTargetRef"]["name"] == DOCUMENTS[REWARD]["metadata"]["name"]
    only("TriggerAuthentication", trigger["authenticationRef"]["name"])


def test_the_run_is_called_the_same_everywhere() -> None:
    run = custom("RayJob")["metadata"]["name"]
    query = custom("ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    assert set(re.findall(r'run="([^"]+)"', query)) == {run}
    names = {
        labels["app.kubernetes.io/instance"]
        for labels in _pod_labels()
        if "app.kubernetes.io/instance" in labels
    }
    assert names == {run}
